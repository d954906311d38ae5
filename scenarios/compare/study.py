"""The comparison as a whole: each model's fleet and forgeries, in a process of its own."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection, wait
from typing import Any

from pki.trust import TRUST_MODELS
from services.common.problems import NotAsExpectedError, WrongUseError
from services.ecosystem import Ecosystem, from_text, to_document

from .fleet import fleet
from .forging import forge
from .play import Scene, play
from .table import Row, pick

# Which model, what is done there, of how many.
OnProgress = Callable[[str, str, int, int], None]


def compare(
    ecosystem: Ecosystem,
    models: Sequence[str],
    size: int,
    seed: str,
    on_progress: OnProgress = lambda *_: None,
) -> list[Row]:
    """The rows of ``size`` vehicles under each of ``models``, in their order.

    WrongUseError for an unknown model or a fleet that cannot be; NotAsExpectedError where
    something does not come out as it must.
    """
    for name in models:
        if name not in TRUST_MODELS:
            raise WrongUseError(f"{name!r} is none of {', '.join(TRUST_MODELS)}")
    if len(set(models)) != len(models):
        raise WrongUseError("a trust model is named twice")
    fleet(ecosystem, size, seed)
    # As text, since not all of it can be sent to another process; what is brought stays out.
    document = to_document(replace(ecosystem, bring=()))
    # Started anew and not forked: whoever calls may have threads.
    context = multiprocessing.get_context("spawn")
    pipes: dict[Connection, str] = {}
    processes = []
    try:
        for name in models:
            here, there = context.Pipe(duplex=False)
            process = context.Process(
                target=_one_model, args=(there, document, name, size, seed), daemon=True
            )
            process.start()
            there.close()
            processes.append(process)
            pipes[here] = name
        found = _heard(pipes, on_progress)
    finally:
        for process in processes:
            process.terminate()
            process.join()
    return [row for name in models for row in found[name]]


def _heard(pipes: dict[Connection, str], on_progress: OnProgress) -> dict[str, list[Row]]:
    """What the processes tell until all have told their rows."""
    found: dict[str, list[Row]] = {}
    while len(found) < len(pipes):
        for pipe in wait([one for one, name in pipes.items() if name not in found]):
            assert isinstance(pipe, Connection)
            name = pipes[pipe]
            try:
                kind, told = pipe.recv()
            except EOFError:
                raise NotAsExpectedError(f"{name}: its process died; see above") from None
            if kind == "rows":
                found[name] = told
            elif kind == "error":
                raise NotAsExpectedError(f"{name}: {told}")
            else:
                on_progress(name, *told)
    return found


def _one_model(pipe: Connection, document: str, name: str, size: int, seed: str) -> None:
    """The work of one process: plays a model and tells how far it is, then the rows."""

    def on_step(*step: Any) -> None:
        pipe.send(("step", step))

    async def forged(scene: Scene) -> list[Row]:
        return await forge(scene, on_step)

    try:
        chosen = from_text(document, "the ecosystem")
        pipe.send(
            (
                "rows",
                asyncio.run(
                    play(chosen, TRUST_MODELS[name], size, seed, on_step=on_step, then=forged)
                ),
            )
        )
    except (NotAsExpectedError, WrongUseError) as error:
        pipe.send(("error", str(error)))


def side_by_side(rows: Sequence[Row], models: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The counts that a reader wants first, and of all others those that differ: what was
    counted, and its number under each model."""
    found = []
    for topic, who, measure in dict.fromkeys((row.topic, row.who, row.measure) for row in rows):
        if topic in ("forgery", "control", "fleet"):
            continue
        numbers = [_one(rows, model, topic, who, measure) for model in models]
        if who == "all" or (topic, measure) in _FIRST or len(set(numbers)) > 1:
            found.append((f"{topic}, {who}: {measure}", numbers))
    return found


_FIRST = {("contacts", "parties contacted, sum")}


def _one(rows: Sequence[Row], model: str, topic: str, who: str, measure: str) -> int:
    found = pick(rows, model=model, topic=topic, who=who, measure=measure)
    return found[0].count if found else 0


def forgeries(rows: Sequence[Row], models: Sequence[str]) -> list[tuple[str, str, list[str]]]:
    """Of the forgeries that somebody believed: whose keys, which one, and how far it came under
    each model."""
    told = {(row.model, row.who, row.measure): row for row in rows if row.topic == "forgery"}
    found = []
    for who, what in dict.fromkeys(
        (who, measure.removesuffix(_ACCEPTED))
        for _model, who, measure in told
        if measure.endswith(_ACCEPTED)
    ):
        ends = [told.get((model, who, what + _ACCEPTED)) for model in models]
        believed = [told.get((model, who, what + _BELIEVED)) for model in models]
        if any(row and row.count for row in (*ends, *believed)):
            found.append((who, what, [_word(*pair) for pair in zip(ends, believed, strict=True)]))
    return found


_ACCEPTED, _BELIEVED = ", accepted", ", chain believed"


def _word(end: Row | None, believed: Row | None) -> str:
    if end is None:
        return ""
    if end.count:
        return f"accepted: {end.note}"
    return f"{'chain believed, then ' if believed and believed.count else ''}refused: {end.note}"
