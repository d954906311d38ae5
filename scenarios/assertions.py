"""Questions to the event stream that have an answer: did my product send this, and when?

    expect(events).message("AuthorizationReq").sent_by("garage").signed_by(emaid).once()

:func:`expect` takes events (of :meth:`.lab.Lab.events`, of a report, of a database). Each call
adds a criterion, the last one says how many events must meet them all; when that is not so,
:class:`UnmetExpectation` shows the events that came nearest, and what each of them lacked.

Whether a message was *signed by* a contract is found out from the recorded bytes: the EXI
document is decoded again and its signature verified with the key of the certificate. No
label in the event is believed. An EMAID stands for the contract certificates of that EMAID
that are among the events because an operator issued them or a party accepted them.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import difflib
import hashlib
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import Any, Self, TypeVar

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from pki.edition import ISO2, Edition
from pki.identifiers import EMAID, IdentifierError
from services.common.events import MAX_PAYLOAD, Event
from services.common.marks import MAX_DER, MIN_DER, MarkError, mark, parse_mark
from services.common.problems import NotAsExpectedError, WrongUseError
from v2g import exi
from v2g.certificate_installation import signed_elements
from v2g.messages import iso2, sap
from v2g.signature import SignatureError, Signed, verify

from .lab import Lab

T = TypeVar("T")

MOST_SHOWN = 5
# Seconds between two looks at what has happened.
LOOK_EVERY = 0.5


class UnmetExpectation(AssertionError, NotAsExpectedError):
    """Not so many events as expected meet all criteria; the text shows the nearest."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(str(answer))
        self.answer = answer


@dataclass(frozen=True)
class Criterion:
    """One thing that is asked of an event: ``lacking`` says what is there instead of ``text``,
    None where the event meets it."""

    text: str
    lacking: Callable[[Event], str | None]


@dataclass(frozen=True)
class Count:
    """How many events there must be."""

    least: int = 1
    most: int | None = None

    def __str__(self) -> str:
        if self.most is None:
            return f"at least {_times(self.least)}"
        if self.most == 0:
            return "never"
        if self.least == self.most:
            return _times(self.least)
        return f"{self.least} to {_times(self.most)}" if self.least else f"at most {self.most}"

    def holds(self, number: int) -> bool:
        return number >= self.least and not self.exceeded(number)

    def exceeded(self, number: int) -> bool:
        return self.most is not None and number > self.most


def _times(number: int) -> str:
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


@dataclass(frozen=True)
class Near:
    """An event that lacks something: for each criterion that it does not meet, what was seen."""

    event: Event
    lacking: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """What became of a question."""

    asked: tuple[str, ...]
    count: Count
    matched: tuple[Event, ...]
    nearest: tuple[Near, ...]
    hint: str = ""

    @property
    def holds(self) -> bool:
        return self.count.holds(len(self.matched))

    def as_dict(self) -> dict[str, Any]:
        """JSON; events in short."""
        return {
            "holds": self.holds,
            "asked": list(self.asked),
            "expected": str(self.count),
            "seen": len(self.matched),
            "matched": [_short(event) for event in self.matched],
            "nearest": [
                {**_short(near.event), "lacking": dict(near.lacking)} for near in self.nearest
            ],
            "hint": self.hint or None,
        }

    def __str__(self) -> str:
        lines = [f"expected {self.count}: {', '.join(self.asked) or 'an event'}"]
        lines.append(f"seen {_times(len(self.matched)) if self.matched else 'never'}")
        lines += [f"  {line_of(event)}" for event in self.matched[:MOST_SHOWN]]
        if len(self.matched) > MOST_SHOWN:
            lines.append(f"  and {len(self.matched) - MOST_SHOWN} more")
        if not self.holds and not self.count.exceeded(len(self.matched)):
            for near in self.nearest:
                lines.append(f"nearly: {line_of(near.event)}")
                lines += [f"  not {text}: {seen}" for text, seen in near.lacking.items()]
            if self.hint:
                lines.append(self.hint)
        return "\n".join(lines)


def line_of(event: Event) -> str:
    """An event in a line, without anything that a terminal would act upon."""
    text = f"{_at(event)} {event.sender} -> {event.receiver} {event.name}: {event.outcome}"
    return plain(text + (f", {event.summary}" if event.summary else ""))


def plain(text: str) -> str:
    """``text`` with what cannot be printed shown as an escape."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape").decode() for one in text
    )


def _short(event: Event) -> dict[str, Any]:
    names = ("id", "party", "run", "kind", "name", "sender", "receiver", "outcome", "summary")
    return {
        **{name: getattr(event, name) for name in names},
        "at": event.at.isoformat() if event.at else None,
        "marks": list(event.marks),
    }


# ------------------------------------------------------------------------- the expectation


Who = x509.Certificate | bytes | str


@dataclass(frozen=True)
class Expectation:
    """Criteria over events; each method gives a new one with a criterion more."""

    events: Evidence
    criteria: tuple[Criterion, ...] = ()
    response: bool = False
    edition: Edition = ISO2

    # What it is.

    def message(self, name: str) -> Self:
        """The message ``name``, on the cable or passed on, as its bytes say; a response may be
        asked for too."""
        if self.criteria:
            raise WrongUseError("message() comes first: who sends it depends on what it is")
        response = name.endswith("Res")

        def lacking(event: Event) -> str | None:
            raw = _message_bytes(event, response)
            seen = _message_name(raw) if raw else f"{event.name}, which carries no message"
            return None if seen == name else seen

        return replace(self._with(f"the message {name}", lacking), response=response)

    def name(self, name: str) -> Self:
        return self._equal(f"called {name}", "name", name)

    def kind(self, kind: str) -> Self:
        return self._equal(f"of kind {kind}", "kind", kind)

    # Who with whom.

    def sent_by(self, name: str) -> Self:
        return self._equal(f"sent by {name}", "receiver" if self.response else "sender", name)

    def received_by(self, name: str) -> Self:
        return self._equal(f"received by {name}", "sender" if self.response else "receiver", name)

    def told_by(self, party: str) -> Self:
        """In the stream of ``party``."""
        return self._equal(f"told by {party}", "party", party)

    def in_run(self, run: str) -> Self:
        return self._equal(f"in run {run}", "run", run)

    # How it went.

    def outcome(self, outcome: str) -> Self:
        return self._equal(f"with outcome {outcome}", "outcome", outcome)

    def answered(self, code: str) -> Self:
        """With this code: a ResponseCode, an HTTP status, a verdict's code."""

        def lacking(event: Event) -> str | None:
            seen = [event.data[key] for key in ("code", "status") if key in event.data]
            return None if code in map(str, seen) else ", ".join(map(str, seen)) or "no code"

        return self._with(f"answered {code}", lacking)

    # What it is about.

    def about(self, *marks: str) -> Self:
        """With all of these marks: ``emaid:...``, ``certificate:<SHA-256>``, ``pcid:...``."""
        found = self
        for text in marks:
            try:
                wanted = parse_mark(text)
            except MarkError as error:
                raise WrongUseError(f"{text[:80]!r} is no mark: {error}") from None
            kind = wanted.partition(":")[0] + ":"

            def lacking(event: Event, wanted: str = wanted, kind: str = kind) -> str | None:
                if wanted in event.marks:
                    return None
                same = [one for one in event.marks if one.startswith(kind)]
                return f"about {', '.join(same)}" if same else f"it names no {kind[:-1]}"

            found = found._with(f"about {wanted}", lacking)
        return found

    # When.

    def before(self, when: datetime | str) -> Self:
        """Begun before this instant of ecosystem time (without a zone: UTC)."""
        limit = instant(when)
        return self._with(
            f"before {limit:%F %T}Z",
            lambda event: None if event.at and _began(event) < limit else f"at {_at(event)}",
        )

    def after(self, when: datetime | str) -> Self:
        """Begun at this instant of ecosystem time or later."""
        limit = instant(when)
        return self._with(
            f"after {limit:%F %T}Z",
            lambda event: None if event.at and _began(event) >= limit else f"at {_at(event)}",
        )

    # By whose key.

    def signed_by(self, who: Who) -> Self:
        """Whose XML signature was made by the key of a certificate: itself, DER, PEM, the SHA-256
        of one that is among the events, or an EMAID. Verified from the recorded bytes."""
        text, signers = self.events.signers(who)

        def lacking(event: Event) -> str | None:
            if not signers:
                return "no certificate of it is among the events"
            try:
                message = read_message(event, response=self.response)
            except (SignatureError, exi.EXIError) as error:
                return str(error)
            reason = ""
            for one in signers:
                try:
                    check_signature(message, _key(one), self.edition)
                    return None
                except SignatureError as error:
                    reason = error.reason
            other = self.events.signer_of(message, self.edition)
            return f"{reason}; it was made by {_named(other)}" if other is not None else reason

        return self._with(text, lacking)

    def where(self, text: str, holds: Callable[[Event], bool]) -> Self:
        """A criterion of one's own; ``text`` says what is wanted."""
        return self._with(text, lambda event: None if holds(event) else "it does not")

    # How often.

    def once(self) -> tuple[Event, ...]:
        return self.exactly(1)

    def never(self) -> tuple[Event, ...]:
        return self.exactly(0)

    def exactly(self, number: int) -> tuple[Event, ...]:
        return self.must(Count(number, number))

    def at_least(self, number: int) -> tuple[Event, ...]:
        return self.must(Count(number))

    def at_most(self, number: int) -> tuple[Event, ...]:
        return self.must(Count(0, number))

    def must(self, count: Count) -> tuple[Event, ...]:
        """The events that meet all criteria. UnmetExpectation when they are not so many."""
        answer = self.answer(count)
        if not answer.holds:
            raise UnmetExpectation(answer)
        return answer.matched

    def answer(self, count: Count | None = None) -> Answer:
        """What there is, without judging it."""
        count = count or Count()
        matched: list[Event] = []
        near: list[tuple[int, int, Near]] = []
        for place, event in enumerate(self.events):
            lacking: dict[str, str] = {}
            for position, criterion in enumerate(self.criteria):
                seen = criterion.lacking(event)
                if seen is not None:
                    lacking[criterion.text] = plain(seen)[:300]
                    if position == 0:
                        break  # another thing altogether
            if not lacking:
                matched.append(event)
            elif self.criteria[0].text not in lacking or len(self.criteria) == 1:
                near.append((len(lacking), -place, Near(event, lacking)))
        near.sort(key=lambda one: one[:2])
        nearest = tuple(one for _, _, one in near[:MOST_SHOWN])
        if len(self.criteria) == 1:
            nearest = ()  # what lacks the only criterion is not near
        return Answer(
            tuple(criterion.text for criterion in self.criteria),
            count,
            tuple(matched),
            nearest,
            self._hint(matched, nearest),
        )

    def _hint(self, matched: Sequence[Event], nearest: Sequence[Near]) -> str:
        if matched or nearest or not self.criteria:
            return ""
        if not self.events:
            return "there are no events at all"
        wanted = self.criteria[0].text.rpartition(" ")[2]
        names = sorted({event.name for event in self.events})
        close = difflib.get_close_matches(wanted, names, 3, 0.6)
        if close:
            return f"there is none; the nearest names among the events: {plain(', '.join(close))}"
        return f"there is none among {len(self.events)} events"

    def _equal(self, text: str, field_: str, wanted: str) -> Self:
        def lacking(event: Event) -> str | None:
            seen = getattr(event, field_)
            return None if seen == wanted else str(seen)

        return self._with(text, lacking)

    def _with(self, text: str, lacking: Callable[[Event], str | None]) -> Self:
        return replace(self, criteria=(*self.criteria, Criterion(text, lacking)))


def expect(events: Iterable[Event]) -> Expectation:
    """A question about ``events``."""
    return Expectation(events if isinstance(events, Evidence) else Evidence(tuple(events)))


async def eventually(
    lab: Lab,
    check: Callable[[Expectation], T],
    *,
    within: float = 10.0,
    **filters: str | Sequence[str],
) -> T:
    """``check`` with all that has happened, until it holds or ``within`` seconds are over; then
    what it raises. ``filters`` are those of :meth:`.lab.Lab.events`."""
    clock = asyncio.get_running_loop().time
    until = clock() + within
    while True:
        found = await lab.events(**filters)  # type: ignore[arg-type]
        try:
            return check(expect(found))
        except UnmetExpectation:
            if clock() >= until:
                raise
        await asyncio.sleep(LOOK_EVERY)


def instant(when: datetime | str) -> datetime:
    """An instant, UTC where no zone is said. WrongUseError for a text that is none."""
    if isinstance(when, str):
        text = when
        try:
            when = datetime.fromisoformat(text)
        except ValueError:
            raise WrongUseError(
                f"{text[:64]!r} is not an instant such as 2027-01-31T12:00Z"
            ) from None
    return when if when.tzinfo else when.replace(tzinfo=UTC)


def _began(event: Event) -> datetime:
    assert event.began_at is not None
    return event.began_at


def _at(event: Event) -> str:
    at = event.began_at
    return f"{at:%F %T}.{at.microsecond // 1000:03d}Z" if at else "no known time"


# ------------------------------------------------------------------- messages, signatures


def read_message(event: Event, *, response: bool = False) -> iso2.V2G_Message:
    """The ISO 15118-2 message that an event has recorded: the cable's bytes, or what a call
    carried in base64. SignatureError or EXIError where there is none."""
    raw = _message_bytes(event, response)
    if raw is None:
        raise SignatureError("no-message", "it carries no message of the cable")
    if len(raw) >= MAX_PAYLOAD:
        raise SignatureError("cut", "its bytes are more than an event keeps")
    message = exi.decode(iso2.SCHEMA, raw)
    if not isinstance(message, iso2.V2G_Message):
        raise SignatureError("no-message", "it carries no message of the cable")
    return message


def _message_bytes(event: Event, response: bool) -> bytes | None:
    if event.kind == "cable":
        return event.response if response else event.request
    body = event.data.get("response" if response else "request")
    if event.kind == "http" and isinstance(body, Mapping):
        for key, value in body.items():
            if key.endswith("_res" if response else "_req") and isinstance(value, str):
                try:
                    return base64.b64decode(value, validate=True)
                except (binascii.Error, ValueError):
                    return None
    return None


@lru_cache(maxsize=8192)
def _message_name(raw: bytes) -> str:
    """What the bytes are."""
    if len(raw) >= MAX_PAYLOAD:
        return "bytes that are more than an event keeps"
    for schema in (iso2.SCHEMA, sap.SCHEMA):
        with contextlib.suppress(exi.EXIError):
            return exi.message_name(exi.decode(schema, raw))
    return "bytes that are no message"


# A message that is signed -> its signed elements. All others carry no signature.
_BODY = (
    "AuthorizationReq",
    "MeteringReceiptReq",
    "CertificateInstallationReq",
    "CertificateUpdateReq",
)
_CONTRACT_DATA = ("CertificateInstallationRes", "CertificateUpdateRes")


def check_signature(
    message: iso2.V2G_Message, key: ec.EllipticCurvePublicKey, edition: Edition = ISO2
) -> None:
    """SignatureError unless the message's signature covers what it must and was made by ``key``."""
    body: Any = message.Body.BodyElement
    name = type(body).__name__
    elements: Sequence[Signed]
    if name in _BODY:
        elements = [(name, body)]
    elif name in _CONTRACT_DATA:
        elements = signed_elements(body)
    else:
        raise SignatureError("unsigned", f"a {name} is never signed")
    verify(iso2.SCHEMA, message.Header.Signature, elements, key, edition)


# --------------------------------------------------------------------- certificates


_IN_TEXT = re.compile(r"MI[A-Za-z0-9+/]{132,}={0,2}")


@dataclass(frozen=True)
class Evidence:
    """Events, and the certificates that are among them."""

    all: tuple[Event, ...]
    # Events that are not judged, but may tell whose a certificate is.
    beside: tuple[Event, ...] = field(default=())

    def __iter__(self) -> Iterator[Event]:
        return iter(self.all)

    def __len__(self) -> int:
        return len(self.all)

    def signers(self, who: Who) -> tuple[str, list[bytes]]:
        """How ``who`` is called, and the certificates (DER) that it stands for."""
        if isinstance(who, x509.Certificate):
            who = who.public_bytes(Encoding.DER)
        if isinstance(who, str) and "-----BEGIN" in who:
            try:
                who = x509.load_pem_x509_certificate(who.encode()).public_bytes(Encoding.DER)
            except ValueError as error:
                raise WrongUseError(f"signed by: not a certificate ({error})") from None
        if isinstance(who, bytes):
            if _name(who) is None:
                raise WrongUseError("signed by: not an X.509 certificate in DER")
            return f"signed by {_named(who)}", [who]
        try:
            print_ = mark("certificate", who).partition(":")[2]
        except MarkError:
            pass
        else:
            found = self._known.get(print_)
            return f"signed by certificate {print_[:16]}…", [found] if found else []
        try:
            emaid = EMAID.parse(who, strict=False)
        except IdentifierError:
            raise WrongUseError(
                f"signed by {who[:80]!r}: a certificate, the SHA-256 of one, or an EMAID is wanted"
            ) from None
        return f"signed by the contract {emaid.normal}", self._contracts.get(emaid.normal, [])

    def signer_of(self, message: iso2.V2G_Message, edition: Edition) -> bytes | None:
        """The certificate among the events whose key made the message's signature."""
        for der in {*self._known.values(), *(d for ders in self._contracts.values() for d in ders)}:
            try:
                check_signature(message, _key(der), edition)
            except (SignatureError, WrongUseError):
                continue
            return der
        return None

    @cached_property
    def _known(self) -> dict[str, bytes]:
        """SHA-256 -> certificate: all that were shown."""
        found: dict[str, bytes] = {}
        for event in (*self.all, *self.beside):
            for der in (*_vouched(event), *_shown(event)):
                found[hashlib.sha256(der).hexdigest()] = der
        return found

    @cached_property
    def _contracts(self) -> dict[str, list[bytes]]:
        """EMAID -> contract certificates: only those that somebody issued or accepted."""
        found: dict[str, list[bytes]] = {}
        for event in (*self.all, *self.beside):
            for der in _vouched(event)[:1]:
                try:
                    emaid = EMAID.parse(_name(der) or "", strict=False).normal
                except IdentifierError:
                    continue
                if der not in found.setdefault(emaid, []):
                    found[emaid].append(der)
        return found


def _vouched(event: Event) -> list[bytes]:
    """The certificates of an issuing or an accepting event, leaf first."""
    if event.kind not in ("issued", "verdict") or event.outcome != "ok" or not event.response:
        return []
    found, rest = [], event.response
    while len(rest) > 4 and rest[:2] == b"\x30\x82":
        end = 4 + int.from_bytes(rest[2:4])
        found.append(rest[:end])
        rest = rest[end:]
    return [der for der in found if MIN_DER <= len(der) <= MAX_DER and _name(der) is not None]


def _shown(event: Event) -> Iterator[bytes]:
    for text in _IN_TEXT.findall(json.dumps(dict(event.data), default=str)):
        try:
            der = base64.b64decode(text)
        except ValueError:
            continue
        if len(der) <= MAX_DER and _name(der) is not None:
            yield der


@lru_cache(maxsize=4096)
def _name(der: bytes) -> str | None:
    """The CN of a certificate with an elliptic-curve key, None where it is no such thing."""
    try:
        certificate = x509.load_der_x509_certificate(der)
        if not isinstance(certificate.public_key(), ec.EllipticCurvePublicKey):
            return None
        names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
        return str(names[0].value) if names else ""
    except Exception:  # the library documents no common type
        return None


def _named(der: bytes) -> str:
    return plain(f"{_name(der)} ({hashlib.sha256(der).hexdigest()[:16]}…)")


@lru_cache(maxsize=1024)
def _key(der: bytes) -> ec.EllipticCurvePublicKey:
    key = x509.load_der_x509_certificate(der).public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise WrongUseError("a certificate with an elliptic-curve key is wanted")
    return key
