"""The comparison as a whole: each model's fleet and forgeries, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pki.trust import TRUST_MODELS
from services.common.problems import WrongUseError
from services.ecosystem import Ecosystem

from .fleet import fleet
from .forging import forge
from .play import Scene, play
from .table import Row, pick

# Which model, what is done there, of how many.
OnProgress = Callable[[str, str, int, int], None]


async def compare(
    ecosystem: Ecosystem,
    models: Sequence[str],
    size: int,
    seed: str,
    on_progress: OnProgress = lambda *_: None,
) -> list[Row]:
    """The rows of ``size`` vehicles under each of ``models``.

    WrongUseError for an unknown model or a fleet that cannot be; NotAsExpectedError where
    something does not come out as it must.
    """
    for name in models:
        if name not in TRUST_MODELS:
            raise WrongUseError(f"{name!r} is none of {', '.join(TRUST_MODELS)}")
    if len(set(models)) != len(models):
        raise WrongUseError("a trust model is named twice")
    fleet(ecosystem, size, seed)
    rows = []
    for name in models:

        def on_step(what: str, done: int, total: int, name: str = name) -> None:
            on_progress(name, what, done, total)

        async def forged(
            scene: Scene, on_step: Callable[[str, int, int], None] = on_step
        ) -> list[Row]:
            return await forge(scene, on_step)

        rows += await play(ecosystem, TRUST_MODELS[name], size, seed, on_step=on_step, then=forged)
    return rows


def side_by_side(rows: Sequence[Row], models: Sequence[str]) -> list[tuple[str, list[int]]]:
    """The counts that a reader wants first: what was counted, and its number under each model."""
    labels = {
        ("sessions", "all"): "sessions",
        ("cost", "all"): "cost",
        ("link", "all"): "all links",
    }
    wanted = [
        (row.topic, row.who, row.measure, f"{labels[row.topic, row.who]}: {row.measure}")
        for row in rows
        if (row.topic, row.who) in labels
    ]
    wanted += [
        (row.topic, row.who, row.measure, f"{row.who}: {row.measure}")
        for row in rows
        if row.topic in ("contacts", "anchors") and not row.measure.endswith("sum")
    ]
    return [
        (label, [_one(rows, model, topic, who, measure) for model in models])
        for topic, who, measure, label in dict.fromkeys(wanted)
    ]


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
