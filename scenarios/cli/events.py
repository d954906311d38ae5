"""``pnclab events``: what happened, from the parties that run, or from their databases.

``pnclab events assert`` answers a question about it with its exit code: 0 when it is so, 1
when it is not.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from services.common.problems import NotAsExpectedError, WrongUseError

from .options import DataFolder, EcosystemFile, Json, chosen_ecosystem
from .output import err, out, print_json

if TYPE_CHECKING:
    from scenarios.assertions import Answer, Count, Evidence, Expectation
    from scenarios.lab import Lab
    from services.common.event_log import Wanted
    from services.common.events import Event
    from services.ecosystem import Ecosystem

app = typer.Typer(
    help="Show what happened, or ask whether something did.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
)

# Seconds for which an event waits for earlier ones of other parties, when following.
PATIENCE = 1.0
# Between two looks, while an answer is waited for.
LOOK_EVERY = 0.5
# Events that are looked at beside those that are meant.
MOST_BESIDE = 1000

_COLOURS = {"ok": "green", "refused": "yellow", "failed": "red"}

Run = Annotated[str | None, typer.Option("--run", help="Only of this run.")]
Parties = Annotated[
    list[str] | None, typer.Option("--party", help="Only as this party tells it; repeatable.")
]
Kind = Annotated[
    str | None, typer.Option("--kind", help="http, cable, issued, revoked, verdict, state ...")
]
Name = Annotated[str | None, typer.Option("--name", help="Only what is called so.")]
Outcome = Annotated[str | None, typer.Option("--outcome", help="ok, refused or failed.")]
Sender = Annotated[str | None, typer.Option("--from", help="Only from this sender.")]
Receiver = Annotated[str | None, typer.Option("--to", help="Only to this receiver.")]
Marks = Annotated[
    list[str] | None,
    typer.Option("--mark", help="KIND:VALUE, such as session:7AC3...; repeatable."),
]
Certificate = Annotated[
    str | None, typer.Option("--certificate", help="About this one: a file, or its SHA-256.")
]
Emaid = Annotated[str | None, typer.Option("--emaid", help="About this contract.")]
Pcid = Annotated[str | None, typer.Option("--pcid", help="About this car.")]
Session = Annotated[str | None, typer.Option("--session", help="Of this session on the cable.")]


@app.callback()
def events(
    context: typer.Context,
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    run: Run = None,
    party: Parties = None,
    kind: Kind = None,
    name: Name = None,
    outcome: Outcome = None,
    sender: Sender = None,
    receiver: Receiver = None,
    mark: Marks = None,
    certificate: Certificate = None,
    emaid: Emaid = None,
    pcid: Pcid = None,
    session: Session = None,
    since: Annotated[
        str | None, typer.Option("--since", help="From this instant on (ISO 8601).")
    ] = None,
    until: Annotated[str | None, typer.Option("--until", help="Before this instant.")] = None,
    real: Annotated[
        bool, typer.Option("--real", help="--since and --until are the machine's time.")
    ] = False,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on as it happens.")] = False,
    limit: Annotated[
        int, typer.Option("--limit", "-n", min=0, help="The newest so many; 0 for all.")
    ] = 200,
    json: Json = False,
) -> None:
    """Show what happened, of all parties in one order: time, who to whom, what, how it went.

    Parties that run are asked; of the others, the databases are read. Times are the
    ecosystem's. All filters must hold.
    """
    if context.invoked_subcommand is not None:
        return
    chosen = chosen_ecosystem(ecosystem, data)
    query = _query(
        {"run": run, "kind": kind, "name": name, "outcome": outcome}
        | {"sender": sender, "receiver": receiver},
        _about(mark, certificate, emaid, pcid, session),
        since,
        until,
        real=real,
    )
    parties = _parties(chosen, party)
    show = _Shown(json)
    if follow:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(_follow(chosen, parties, query, limit, show))
        return
    found = asyncio.run(_collect(chosen, parties, query, limit or None, quiet=False))
    for event in found:
        show(event)
    if not found and not json:
        err.print("Nothing of that kind happened.")


@app.command("assert")
def assert_(
    ecosystem: EcosystemFile = None,
    data: DataFolder = None,
    message: Annotated[
        str | None, typer.Option("--message", help="The message: AuthorizationReq ...")
    ] = None,
    run: Run = None,
    party: Parties = None,
    kind: Kind = None,
    name: Name = None,
    outcome: Outcome = None,
    code: Annotated[
        str | None, typer.Option("--code", help="Answered with this response code or status.")
    ] = None,
    sender: Sender = None,
    receiver: Receiver = None,
    mark: Marks = None,
    certificate: Certificate = None,
    emaid: Emaid = None,
    pcid: Pcid = None,
    session: Session = None,
    signed_by: Annotated[
        str | None,
        typer.Option(
            "--signed-by",
            help="Its signature holds by the key of this certificate (a file, a SHA-256) or of "
            "a contract of this EMAID.",
        ),
    ] = None,
    before: Annotated[
        str | None, typer.Option("--before", help="Before this instant of ecosystem time.")
    ] = None,
    after: Annotated[str | None, typer.Option("--after", help="At this instant or later.")] = None,
    count: Annotated[int | None, typer.Option("--count", min=0, help="Exactly so often.")] = None,
    never: Annotated[bool, typer.Option("--never", help="Not once.")] = False,
    at_least: Annotated[int | None, typer.Option("--at-least", min=1)] = None,
    at_most: Annotated[int | None, typer.Option("--at-most", min=0)] = None,
    within: Annotated[
        float,
        typer.Option("--within", min=0, help="Wait so many seconds for it to become so."),
    ] = 0.0,
    json: Json = False,
) -> None:
    """Ask whether something happened: exit 0 when it did as often as asked (once or more
    unless told otherwise), 1 when not, and then what came nearest.

    For instance: pnclab events assert --message AuthorizationReq --from garage
    --to charger-1 --signed-by DESUNC12345678 --before 2027-01-31T12:00Z
    """
    chosen = chosen_ecosystem(ecosystem, data)
    parties = _parties(chosen, party)
    question = _Question(
        message=message,
        equal={"run": run, "kind": kind, "name": name, "outcome": outcome},
        sender=sender,
        receiver=receiver,
        code=code,
        marks=_about(mark, certificate, emaid, pcid, session),
        signed_by=signed_by,
        before=before,
        after=after,
        count=_count(count, never, at_least, at_most),
    )
    answer = asyncio.run(_asked(chosen, parties, question, within))
    if json:
        print_json(answer.as_dict())
    else:
        style = "green" if answer.holds else "red"
        head, *rest = str(answer).splitlines()
        out.print(Text("as expected" if answer.holds else "not as expected", style))
        for line in (head, *rest):
            out.print(Text(line))
    raise typer.Exit(0 if answer.holds else 1)


# ------------------------------------------------------------------------ what is asked for


@dataclass(frozen=True)
class _Query:
    """Filters, as a party is asked over HTTP and as a database is."""

    wanted: Wanted
    params: Mapping[str, str | Sequence[str]]


def _query(
    equal: Mapping[str, str | None],
    marks: Sequence[str],
    since: str | None = None,
    until: str | None = None,
    *,
    real: bool = False,
) -> _Query:
    from services.common.event_log import Wanted
    from services.common.events import EVENT_KINDS, OUTCOMES

    texts = {key: value for key, value in equal.items() if value is not None}
    for option, known in (("kind", EVENT_KINDS), ("outcome", OUTCOMES)):
        if texts.get(option) not in (None, *known):
            raise WrongUseError(f"--{option}: {texts[option]!r} is none of {', '.join(known)}")
    times = {
        key: _instant(f"--{key}", text)
        for key, text in (("since", since), ("until", until))
        if text is not None
    }
    params: dict[str, str | Sequence[str]] = {**texts, **({"mark": marks} if marks else {})}
    params |= {f"real_{key}" if real else key: at.isoformat() for key, at in times.items()}
    bounds: dict[str, Any] = texts | (
        {f"real_{key}": at.timestamp() for key, at in times.items()} if real else dict(times)
    )
    return _Query(Wanted(marks=tuple(marks), **bounds), params)


def _instant(option: str, text: str) -> datetime:
    from scenarios.assertions import instant

    try:
        return instant(text).astimezone(UTC)
    except (WrongUseError, OverflowError) as error:
        raise WrongUseError(f"{option}: {error}") from None


def _about(
    marks: Sequence[str] | None,
    certificate: str | None,
    emaid: str | None,
    pcid: str | None,
    session: str | None,
) -> list[str]:
    from services.common.marks import MarkError, mark, parse_mark

    found = []
    for option, make, text in (
        *(("--mark", parse_mark, text) for text in marks or ()),
        *(
            (f"--{kind}", lambda value, kind=kind: mark(kind, value), text)
            for kind, text in (
                ("certificate", certificate and _fingerprint("--certificate", certificate)),
                ("emaid", emaid),
                ("pcid", pcid),
                ("session", session),
            )
            if text is not None
        ),
    ):
        try:
            found.append(make(text))
        except MarkError as error:
            raise WrongUseError(f"{option}: {error}") from None
    return list(dict.fromkeys(found))


def _fingerprint(option: str, text: str) -> str:
    """The SHA-256 of the certificate in the file of this name, or ``text`` where there is none."""
    import hashlib

    der = _certificate_file(option, text)
    return text if der is None else hashlib.sha256(der).hexdigest()


def _certificate_file(option: str, text: str) -> bytes | None:
    """The (first) certificate in the file of this name, DER; None: there is no such file."""
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import Encoding

    try:
        if not Path(text).is_file():
            return None
        content = Path(text).read_bytes()
        if b"-----BEGIN" in content:
            certificate = x509.load_pem_x509_certificates(content)[0]
        else:
            certificate = x509.load_der_x509_certificate(content)
    except (OSError, ValueError) as error:
        raise WrongUseError(f"{option}: {text}: no certificate can be read ({error})") from None
    return certificate.public_bytes(Encoding.DER)


def _parties(ecosystem: Ecosystem, names: Sequence[str] | None) -> list[str]:
    return [ecosystem.party(name).name for name in names or ecosystem.parties]


def _count(count: int | None, never: bool, at_least: int | None, at_most: int | None) -> Count:
    from scenarios.assertions import Count

    if sum((count is not None, never, at_least is not None or at_most is not None)) > 1:
        raise WrongUseError("--count, --never and --at-least/--at-most exclude each other")
    if never or count is not None:
        return Count(count or 0, count or 0)
    if at_most is not None:
        if (at_least or 0) > at_most:
            raise WrongUseError(f"--at-least {at_least} is more than --at-most {at_most}")
        return Count(at_least or 0, at_most)
    return Count(at_least or 1)


# ------------------------------------------------------------------------- where it is found


async def _collect(
    ecosystem: Ecosystem,
    parties: Sequence[str],
    query: _Query,
    newest: int | None,
    *,
    quiet: bool,
) -> list[Event]:
    """Events of the parties that answer, and from the databases of those that do not.

    NotAsExpectedError when nothing can be had from any.
    """
    from scenarios.lab import Lab, LabError
    from scenarios.streams import in_order, kept

    async with Lab(ecosystem) as lab:

        async def part(name: str) -> list[Event] | NotAsExpectedError:
            try:
                return await lab.events_of(name, newest=newest, **query.params)
            except LabError as error:
                if error.status != 0:
                    raise
            try:
                return await asyncio.to_thread(
                    kept, ecosystem.party(name), query.wanted, newest=newest
                )
            except NotAsExpectedError as error:
                return error

        parts = dict(zip(parties, await asyncio.gather(*map(part, parties)), strict=True))
    missing = {name: found for name, found in parts.items() if isinstance(found, Exception)}
    if len(missing) == len(parties):
        raise next(iter(missing.values()))
    if missing and not quiet:
        err.print(f"[yellow]Nothing can be had from {', '.join(missing)}.[/]")
    found = in_order(
        event for part_ in parts.values() if not isinstance(part_, Exception) for event in part_
    )
    return found if newest is None else found[-newest:]


async def _follow(
    ecosystem: Ecosystem,
    parties: Sequence[str],
    query: _Query,
    limit: int,
    show: Callable[[Event], None],
) -> None:
    """Show the newest events, and each that comes, in order, until Ctrl-C."""
    from scenarios.lab import Lab
    from scenarios.streams import in_order

    arrived: list[tuple[float, Event]] = []
    async with Lab(ecosystem) as lab:

        async def gather(name: str) -> None:
            stream = lab.follow(name, last=min(limit, 1000), wait=True, **query.params)
            async for event in stream:
                arrived.append((time.monotonic(), event))  # noqa: PERF401 - it has no end

        async def tell() -> None:
            first = True
            while True:
                await asyncio.sleep(PATIENCE / 4)
                ripe = time.monotonic() - PATIENCE
                if not any(at <= ripe for at, _event in arrived):
                    continue
                # With an event goes what is earlier, however short it has been here.
                last = max(event.began for at, event in arrived if at <= ripe)
                due = [event for at, event in arrived if at <= ripe or event.began <= last]
                told = {event.id for event in due}
                arrived[:] = [one for one in arrived if one[1].id not in told]
                for event in in_order(due)[-limit if first and limit else 0 :]:
                    show(event)
                first = False

        await _someone_is_up(lab, parties)
        await asyncio.gather(tell(), *map(gather, parties))


async def _someone_is_up(lab: Lab, parties: Sequence[str]) -> None:
    """NotAsExpectedError when none of the parties answers; says which do not."""
    from scenarios.lab import LabError

    async def trouble(name: str) -> LabError | None:
        try:
            await lab.healthy(name)
        except LabError as error:
            return error if error.status == 0 else None
        return None

    troubles = dict(zip(parties, await asyncio.gather(*map(trouble, parties)), strict=True))
    away = [name for name, error in troubles.items() if error is not None]
    if len(away) == len(parties):
        raise NotAsExpectedError(f"there is nobody to follow: {troubles[away[0]]}")
    if away:
        err.print(f"[yellow]Waiting for {', '.join(away)}.[/]")


# --------------------------------------------------------------------------- the question


@dataclass(frozen=True)
class _Question:
    """What ``assert`` asks, as on the command line."""

    message: str | None
    equal: Mapping[str, str | None]
    sender: str | None
    receiver: str | None
    code: str | None
    marks: Sequence[str]
    signed_by: str | None
    before: str | None
    after: str | None
    count: Count

    @property
    def called(self) -> str | None:
        """What the events that may be meant are called; a response lies with its request."""
        if self.message is None:
            return self.equal["name"]
        return re.sub("Res$", "Req", self.message)

    def put_to(self, expectation: Expectation) -> Expectation:
        """The expectation with all criteria; WrongUseError where there is none."""
        found = expectation
        if self.message is not None:
            found = found.message(self.message)
        steps: tuple[tuple[str | None, str], ...] = (
            (self.equal["name"], "name"),
            (self.equal["kind"], "kind"),
            (self.equal["run"], "in_run"),
            (self.sender, "sent_by"),
            (self.receiver, "received_by"),
            (self.equal["outcome"], "outcome"),
            (self.code, "answered"),
            *((one, "about") for one in self.marks),
            (self.after, "after"),
            (self.before, "before"),
        )
        for value, step in steps:
            if value is not None:
                found = getattr(found, step)(value)
        if self.signed_by is not None:
            certificate = _certificate_file("--signed-by", self.signed_by)
            found = found.signed_by(self.signed_by if certificate is None else certificate)
        if not found.criteria:
            raise WrongUseError("nothing is asked: --message, --name, --kind, --from ... say what")
        return found


async def _asked(
    ecosystem: Ecosystem, parties: Sequence[str], question: _Question, within: float
) -> Answer:
    """The answer, as soon as nothing can change it any more."""
    from scenarios.assertions import expect

    question.put_to(expect(()))  # what makes no sense is said at once
    until = time.monotonic() + within
    quiet = False
    while True:
        over = time.monotonic() >= until
        evidence = await _evidence(ecosystem, parties, question, quiet=quiet)
        answer = question.put_to(expect(evidence)).answer(question.count)
        decided = answer.holds and question.count.most is None
        if over or decided or question.count.exceeded(len(answer.matched)):
            return answer
        quiet = True
        await asyncio.sleep(min(LOOK_EVERY, max(0.01, until - time.monotonic())))


async def _evidence(
    ecosystem: Ecosystem, parties: Sequence[str], question: _Question, *, quiet: bool
) -> Evidence:
    """The events that may be meant, and those that say whose a certificate is."""
    from scenarios.assertions import Evidence
    from services.common.marks import MarkError, mark

    async def some(query: _Query, where: Sequence[str], newest: int | None) -> tuple[Event, ...]:
        return tuple(await _collect(ecosystem, where, query, newest, quiet=quiet))

    kind = None if question.called else question.equal["kind"]
    found = await some(_query({"name": question.called, "kind": kind}, ()), parties, None)
    if not found:  # then it helps to know what there is
        found = await some(_query({}, ()), parties, MOST_BESIDE)
    beside: tuple[Event, ...] = ()
    if question.signed_by is not None:
        everybody = list(ecosystem.parties)
        beside = await some(_query({"kind": "issued"}, ()), everybody, MOST_BESIDE)
        for kind_ in ("certificate", "emaid"):
            with contextlib.suppress(MarkError):
                about = [mark(kind_, question.signed_by)]
                for told in ("issued", "verdict"):
                    beside += await some(_query({"kind": told}, about), everybody, None)
    return Evidence(found, beside)


# -------------------------------------------------------------------------------- showing


class _Shown:
    """Shows an event: a line for people, or a line of JSON."""

    def __init__(self, json: bool) -> None:
        self._json = json

    def __call__(self, event: Event) -> None:
        if self._json:
            print_json(event.as_dict())
        else:
            out.print(_line(event))


def _line(event: Event) -> Text:
    from scenarios.assertions import plain

    colour = _COLOURS.get(event.outcome, "red")
    line = Text()
    if (at := event.began_at) is not None:
        line.append(f"{at:%F %T}.{at.microsecond // 1000:03d}  ", "dim")
    line.append(plain(event.sender))
    if event.receiver != event.sender:
        line.append(f" -> {plain(event.receiver)}")
    line.append(f"  {plain(event.name)}", "bold")
    line.append(f"  {plain(event.outcome)}", colour)
    fault = event.data.get("fault")
    if isinstance(fault, Mapping):
        line.append(f"  under the fault {plain(str(fault.get('kind')))}", "bold magenta")
    if event.summary:
        line.append(f"  {plain(event.summary)}")
    return line
