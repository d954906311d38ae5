"""The OCSP responder of a party: what its authorities say of what they issued (RFC 6960).

An answer to a request without a nonce is kept, and given again to the same request while it
is true: until the database says something else of a certificate in it or of who signed it, the
clock leaves the first half of its life, or an authority is made or lost. Whether the database
changed at all is asked with every request (:mod:`services.common.glance`), so nothing is stale
after a revocation, whichever process it was made in. A request with a nonce is signed for.

What is no request gets OCSP's own error; why it is none is the *diagnosis*, which travels in a
header and in the events, not in the answer.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import logging
import re
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.x509 import ocsp
from sqlalchemy.orm import Session

from pki import der
from pki.issuing import Authority
from pki.revocation import (
    CertId,
    CertificateStatus,
    OcspAnswer,
    OcspRequestError,
    RevocationReason,
    Revoked,
    issuer_hashes,
    ocsp_error_response,
    ocsp_response,
    read_ocsp_request,
)
from services.common.errors import DatabaseUnavailable, Refusal
from services.common.faults import Fault

from . import faults, store
from .service import CertificateAuthority, OpenAuthority

log = logging.getLogger("pnclab")

OCSP_LIFE = timedelta(hours=12)
# Answers that are kept at a time.
MAX_KEPT = 4096
OCSP_REQUEST = "application/ocsp-request"

Mark = tuple[int, str]
"""An authority's id and a serial number, as the store writes it."""

Entry = tuple[str, Any, str | None]
"""What the books say of a certificate: common name, revoked since when (None: not), why."""


@dataclass(frozen=True)
class Said:
    """An answer (DER), and since when and until when it holds where it may be kept."""

    encoded: bytes
    diagnosis: str = ""
    this_update: datetime | None = None
    next_update: datetime | None = None


@dataclass
class _Kept:
    """An answer that is given again while the books say ``entries``."""

    said: Said
    until: datetime
    entries: dict[Mark, Entry | None]
    seen: int | None
    """The state of the database in which this was true last; None where that is not known."""
    moves: int
    """The clock's, when it was said."""


@dataclass(frozen=True)
class _Draft:
    """What is said in one second of certificates, to be signed with a nonce, and by whom."""

    at: datetime
    seen: int
    moves: int
    answers: Sequence[OcspAnswer]
    signer: Authority


class Responder:
    """Answers for the authorities of one party."""

    def __init__(self, ca: CertificateAuthority) -> None:
        self.ca = ca
        self.party = ca.party
        self.lenient = self.party.config.policy["ocsp_input"] == "lenient"
        self._glance = self.party.database.glance
        self._kept: dict[bytes, _Kept] = {}
        self._drafts: dict[tuple[CertId, ...], _Draft] = {}
        self._issuers: dict[tuple[str, bytes, bytes], int] = {}
        self._known: Sequence[OpenAuthority] = ()
        # The state of the database in which the authorities were looked at last.
        self._looked: int | None = None

    async def answer(self, request: bytes) -> Said:
        """The answer to a request (DER); never raises on bad input."""
        try:
            fault = await self._may_fail()
            kept = None if fault else self._kept.get(request)
            if kept is not None and await self._is_true(kept):
                return kept.said
            return await self._answer(request)
        except DatabaseUnavailable as error:
            log.info("%s: no OCSP answer for now: %s", self.party.config.name, error)
            return Said(ocsp_error_response("tryLater"), "the party's database does not answer")

    def said_before(self, request: bytes) -> Said | None:
        """What was said to the same request, where nothing at all was committed since and no
        fault is to be looked out for; else ask :meth:`answer`."""
        kept = self._kept.get(request)
        if kept is None or kept.seen is None or self.party.faults.enabled:
            return None
        return kept.said if self._is_in_time(kept) and self._state() == kept.seen else None

    async def _may_fail(self) -> bool:
        return self.party.faults.enabled and bool(await self.party.faults.due("ocsp"))

    # ------------------------------------------------------------ what was said before

    async def _is_true(self, kept: _Kept) -> bool:
        """Whether an answer may be given again."""
        if not self._is_in_time(kept):
            return False
        seen = self._state()
        if seen is not None and seen == kept.seen:
            return True
        await self._look(seen)
        if await self._entries(list(kept.entries)) != kept.entries:
            return False
        kept.seen = seen
        return True

    def _is_in_time(self, kept: _Kept) -> bool:
        clock = self.party.clock
        now = clock.now()
        assert kept.said.this_update is not None
        return kept.moves == clock.moves and kept.said.this_update <= now < kept.until

    def _keep(self, request: bytes, kept: _Kept) -> None:
        if len(self._kept) >= MAX_KEPT:
            self._kept.pop(next(iter(self._kept)))
        self._kept[request] = kept

    # --------------------------------------------------------------------- the books

    def _state(self) -> int | None:
        """The state of the database; None where only its rows tell what has changed."""
        try:
            return self._glance.state() if self._glance is not None else None
        except sqlite3.Error:
            return None

    async def _entries(self, marks: Sequence[Mark]) -> dict[Mark, Entry | None]:
        """What the books say now of certificates."""
        if self._glance is not None:
            with contextlib.suppress(sqlite3.Error):
                return {mark: _entry(self._glance.row(_QUERY, *mark)) for mark in marks}
        row = self.ca.tables.certificate

        def entries(session: Session) -> dict[Mark, Entry | None]:
            found = {mark: session.get(row, mark) for mark in marks}
            return {
                mark: (one.common_name, one.revoked_at, one.reason) if one else None
                for mark, one in found.items()
            }

        return await self.party.database.read(entries)

    async def _look(self, seen: int | None) -> None:
        """Take over what another process did to the authorities."""
        if seen is None or seen != self._looked:
            await self.ca.look()
            self._looked = seen
        if self._known is not self.ca.authorities():
            self._known = self.ca.authorities()
            self._issuers.clear()
            self._kept.clear()

    # ----------------------------------------------------------------- a new answer

    async def _answer(self, request: bytes) -> Said:
        try:
            asked = read_ocsp_request(request)
        except OcspRequestError as error:
            return Said(ocsp_error_response("malformedRequest"), _why(request, str(error)))
        party = self.party
        seen = self._state()
        at = party.clock.now().replace(microsecond=0)
        draft = self._drafts.get(asked.cert_ids)
        if draft is not None and not party.faults.enabled:
            if (draft.at, draft.seen, draft.moves) == (at, seen, party.clock.moves):
                return Said(
                    ocsp_response(draft.answers, draft.signer, produced_at=at, nonce=asked.nonce)
                )
            del self._drafts[asked.cert_ids]
        await self._look(seen)
        if not self._known:
            return Said(ocsp_error_response("tryLater"), "this party is still starting")
        moves, now = party.clock.moves, party.clock.now().replace(microsecond=0)
        ids = [self._issuer(cert_id) for cert_id in asked.cert_ids]
        if ids[0] is None:
            return Said(
                ocsp_error_response("unauthorized"),
                "the issuer that the request names (its name's and key's hash) is none of this "
                "party's authorities",
            )
        if any(one != ids[0] for one in ids):
            # One signature cannot speak for two issuers: a delegated responder is authorised
            # by the issuer of the certificates in question (4.2.2.2).
            return Said(
                ocsp_error_response("unauthorized"),
                "certificates of several issuers in one request: ask about each issuer's apart",
            )
        responder = next(own for own in self._known if own.id == ids[0])
        marks = [(responder.id, store.serial_text(one.serial)) for one in asked.cert_ids]
        entries = await self._entries(marks)
        until = now + OCSP_LIFE
        answers = [
            OcspAnswer(cert_id, _status(entries[mark], now), this_update=now, next_update=until)
            for cert_id, mark in zip(asked.cert_ids, marks, strict=True)
        ]
        names = [entry[0] for entry in entries.values() if entry is not None]
        fault = await party.faults.at("ocsp", pcid=names, emaid=names)
        try:
            if fault is not None:
                return await self._spoilt(fault, answers, responder, now, asked.nonce)
            signer = await self._signer(responder)
        except Refusal as reason:
            # Nobody is left who could sign for this issuer (RFC 5019, 2.2.3).
            log.info("%s: no OCSP answer: %s", party.config.name, reason.message)
            return Said(ocsp_error_response("unauthorized"), reason.message)
        encoded = ocsp_response(answers, signer, produced_at=now, nonce=asked.nonce)
        if asked.nonce is not None:
            if seen is not None and not party.entropy.seeded:
                if len(self._drafts) >= MAX_KEPT:
                    self._drafts.clear()
                self._drafts[asked.cert_ids] = _Draft(now, seen, moves, answers, signer)
            return Said(encoded)
        said = Said(encoded, this_update=now, next_update=until)
        # Under a seed the bytes must not depend on what was asked before.
        if not party.entropy.seeded:
            if signer.certificate is not responder.certificate:
                own = (responder.id, store.serial_text(signer.certificate.serial_number))
                entries |= await self._entries([own])
            half = min(now + OCSP_LIFE / 2, signer.certificate.not_valid_after_utc)
            self._keep(request, _Kept(said, half, entries, seen, moves))
        return said

    async def _spoilt(
        self,
        fault: Fault,
        answers: Sequence[OcspAnswer],
        responder: OpenAuthority,
        now: datetime,
        nonce: bytes | None,
    ) -> Said:
        if fault.kind == "ocsp-wrong-signer":
            responder = self._another(responder)
        signer = await self._signer(responder)
        return Said(faults.ocsp(fault, answers, signer, produced_at=now, nonce=nonce))

    async def _signer(self, authority: OpenAuthority) -> Authority:
        """Who signs answers about what ``authority`` issued. Refusal: nobody can."""
        if not authority.has_delegated_responder:
            return authority.authority
        if not authority.valid_at(self.party.clock.now()) and not authority.lost:
            return authority.authority  # nobody can be delegated beyond its end
        return await self.ca.ocsp_signer(authority)

    def _another(self, authority: OpenAuthority) -> OpenAuthority:
        """An authority of this party that has an OCSP signer, and is not ``authority``."""
        others = [own for own in self._known if own.has_delegated_responder]
        return next(own for own in others if own.id != authority.id)

    def _issuer(self, cert_id: CertId) -> int | None:
        """The id of the authority that a request means."""
        mark = (cert_id.hash_algorithm, cert_id.issuer_name_hash, cert_id.issuer_key_hash)
        if mark not in self._issuers:
            for own in self._known:
                name, key = issuer_hashes(own.certificate, cert_id.hash_algorithm)
                self._issuers[cert_id.hash_algorithm, name, key] = own.id
        return self._issuers.get(mark)

    # ------------------------------------------------------------ what comes over HTTP

    def read_post(self, content_type: str, body: bytes) -> tuple[bytes, str, bool]:
        """What a POST asks: the request (DER) and "", or what is wrong with it; and whether it
        came as hex text, so that it is answered in hex."""
        if self.lenient:
            return _as_der(body)
        kind = content_type.partition(";")[0].strip().lower()
        if body[:1] == b"\x30" and kind not in ("", OCSP_REQUEST):
            return b"", f"Content-Type is {kind[:60]!a}, wanted is {OCSP_REQUEST}", False
        return body, "", False

    def read_get(self, encoded: str) -> tuple[bytes, str]:
        """What a GET asks: the request (DER) and "", or what is wrong with it."""
        text = encoded.replace("-", "+").replace("_", "/") if self.lenient else encoded
        try:
            return base64.b64decode(text, validate=True), ""
        except (binascii.Error, ValueError) as error:
            if re.search("[-_]", encoded):
                return b"", "the path has base64 of the URL alphabet; wanted is + and /, escaped"
            return b"", f"the path behind /ocsp/ is not base64: {error}"


_QUERY = "SELECT common_name, revoked_at, reason FROM certificates WHERE authority=? AND serial=?"


def _entry(row: tuple[Any, ...] | None) -> Entry | None:
    """A row of SQLite, which keeps instants as text without their zone."""
    if row is None:
        return None
    name, revoked_at, reason = row
    since = datetime.fromisoformat(revoked_at).replace(tzinfo=UTC) if revoked_at else None
    return name, since, reason


def _status(entry: Entry | None, now: datetime) -> CertificateStatus | Revoked:
    if entry is None:
        return CertificateStatus.UNKNOWN
    _, revoked_at, reason = entry
    if revoked_at is None:
        return CertificateStatus.GOOD
    # Revoked stays revoked where the clock went backwards; not since a time to come, though.
    return Revoked(min(revoked_at, now), RevocationReason(reason or "unspecified"))


def _as_der(body: bytes) -> tuple[bytes, str, bool]:
    """The DER in a body that may be hex or base64 text."""
    if body[:1] == b"\x30":
        return body, "", False
    text = b"".join(body.split())
    if _HEX.fullmatch(text):
        return bytes.fromhex(text.decode()), "", True
    try:
        return base64.b64decode(text, validate=True), "", False
    except (binascii.Error, ValueError):
        return body, "", False


# ------------------------------------------------------------------------------ diagnosis

_HEX = re.compile(rb"(?:[0-9a-fA-F]{2})+")
_LENIENT = "the policy ocsp_input = lenient of this party reads it"


def _why(body: bytes, error: str) -> str:
    """What a body is that is no OCSP request, as far as that can be seen."""
    if not body:
        return "the body is empty; wanted is the DER of an OCSPRequest"
    text = b"".join(body.split())
    if body.lstrip().startswith(b"-----BEGIN"):
        return "the body is PEM; wanted is the DER inside of it"
    if _HEX.fullmatch(text):
        return f"the body is hex text ({len(text)} characters), wanted are its bytes; {_LENIENT}"
    if text[:1] in (b"{", b"[", b'"'):
        try:
            json.loads(body)
        except (ValueError, RecursionError):
            pass
        else:
            return "the body is JSON; wanted is the DER of an OCSPRequest"
    try:
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    else:
        return f"the body is base64 text, wanted are its bytes; {_LENIENT}"
    return _other_der(body) or error


def _other_der(body: bytes) -> str:
    """What a DER structure is that is no request, "" where it is none that is known."""
    for what, load in (
        ("a certificate", x509.load_der_x509_certificate),
        ("a certificate request", x509.load_der_x509_csr),
        ("an OCSPResponse", ocsp.load_der_ocsp_response),
    ):
        try:
            load(body)
        except Exception:  # noqa: S112 - the library documents no common type
            continue
        return f"the body is {what}; wanted is the DER of an OCSPRequest"
    try:
        inside = der.Reader(body).next(der.SEQUENCE).children()
        for _ in ("CertID", "Request"):
            first = inside.next(der.SEQUENCE)
            if inside.peek() == der.OCTET_STRING:
                return "the body is a CertID or Request; wanted is the OCSPRequest around it"
            inside = first.children()
    except der.DerError:
        pass
    return ""
