"""What can go wrong on purpose: every kind of fault, in one table.

A kind says which parties have it, at which point of their work it acts, by what it can be
aimed, which parameters it takes, what it does, and what that brings about at whoever meets
it. :mod:`.faults` keeps the faults that were set and finds the one that is due at a point;
the party's own code does what the kind says just before the bytes leave, and leaves
everything else right. `docs/faults.md` shows this table.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.ecosystem import KINDS as PARTY_KINDS

TARGETS: Mapping[str, str] = {
    "pcid": "the car's provisioning certificate identifier",
    "emaid": "the contract's identifier, with or without hyphens and check digit",
    "charger": "the charger's name in the ecosystem",
    "caller": "the client whose token the request carries; on the cable, the vehicle party",
    "path": "the request's path or the beginning of it, a method before it where that matters",
}

ANY_PARTY = tuple(PARTY_KINDS)
CAS = ("v2g-root", "oem", "mo", "cps")
EST = ("v2g-root", "oem", "mo")

# The longest that an answer is held back, seconds.
MAX_SECONDS = 120.0
MAX_TEXT = 4000

# What a car says on the cable, in the order in which it comes.
REQUESTS = (
    "SessionSetupReq",
    "ServiceDiscoveryReq",
    "ServiceDetailReq",
    "PaymentServiceSelectionReq",
    "CertificateInstallationReq",
    "CertificateUpdateReq",
    "PaymentDetailsReq",
    "AuthorizationReq",
    "ChargeParameterDiscoveryReq",
    "PowerDeliveryReq",
    "ChargingStatusReq",
    "MeteringReceiptReq",
    "SessionStopReq",
)


@dataclass(frozen=True)
class Parameter:
    """A value that a kind takes: its default, and its bounds or choices.

    A default that is a ``float`` wants a number, an ``int`` a whole number, a ``str`` text.
    """

    default: float | int | str
    meaning: str
    least: float = 0
    most: float = MAX_TEXT
    choices: tuple[str, ...] = ()

    @property
    def wanted(self) -> str:
        """What a value must be, in words."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        if isinstance(self.default, str):
            return f"text of at most {int(self.most)} characters"
        number = "a number" if isinstance(self.default, float) else "a whole number"
        return f"{number}, {self.least:g} to {self.most:.15g}"

    def read(self, value: object) -> float | int | str:
        """``value`` where it is what is wanted; ValueError with what is."""
        if isinstance(self.default, str):
            if isinstance(value, str) and self._is_text(value):
                return value
        elif isinstance(value, int | float) and not isinstance(value, bool):
            whole = isinstance(value, int) or (math.isfinite(value) and value == int(value))
            if self.least <= value <= self.most and (whole or isinstance(self.default, float)):
                return float(value) if isinstance(self.default, float) else int(value)
        raise ValueError(f"{_shown(value)} is not {self.wanted}")

    def _is_text(self, value: str) -> bool:
        if self.choices:
            return value in self.choices
        return len(value) <= self.most and _can_be_written(value)

    def parse(self, text: str) -> float | int | str:
        """The same from the text of a command line."""
        if isinstance(self.default, str):
            return self.read(text)
        try:
            return self.read(json.loads(text))
        except ValueError:
            raise ValueError(f"{text!r} is not {self.wanted}") from None


def _can_be_written(text: str) -> bool:
    return "\x00" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def _shown(value: object) -> str:
    shown = ascii(value)
    return shown if len(shown) <= 60 else f"{shown[:60]}…"


@dataclass(frozen=True)
class Kind:
    """One kind of fault."""

    parties: tuple[str, ...]
    """The kinds of party that have it."""
    point: str
    """Where in their work it acts: the name by which the code asks for it."""
    does: str
    """What happens, in a line."""
    provokes: str
    """What whoever meets it says, if it keeps the rules: response code, finding, outcome."""
    targets: tuple[str, ...] = ()
    """What is known at the point, so that it can be aimed at one of them."""
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    def read(self, given: Mapping[str, object]) -> dict[str, float | int | str]:
        """All parameters, the defaults where none is given; ValueError names the wrong one."""
        for name in given:
            if name not in self.parameters:
                raise ValueError(
                    f"parameters: there is no {_shown(name)}; "
                    f"there are: {', '.join(self.parameters) or 'none'}"
                )
        values = {}
        for name, parameter in self.parameters.items():
            try:
                values[name] = parameter.read(given.get(name, parameter.default))
            except ValueError as error:
                raise ValueError(f"parameters.{name}: {error}") from None
        return values


_HTTP = ("pcid", "emaid", "charger", "caller", "path")
_CONTRACT = ("pcid", "emaid")
_VISIT = ("pcid", "emaid", "charger")
_ON_THE_CABLE = ("emaid", "caller")


def _seconds(default: float, meaning: str) -> Mapping[str, Parameter]:
    return {"seconds": Parameter(default, meaning, 0, MAX_SECONDS)}


def _choice(choices: Sequence[str], meaning: str) -> Parameter:
    return Parameter(choices[0], meaning, choices=tuple(choices))


KINDS: Mapping[str, Kind] = {
    # ----------------------------------------------------- any party, on HTTP
    "delay": Kind(
        ANY_PARTY,
        "answer",
        "does the work and answers some seconds later",
        "the caller's timeout where it is shorter (party_too_slow); a car gives a "
        "CertificateInstallationRes 5 s, its charger asks for 4.5 s",
        _HTTP,
        _seconds(5.0, "how long the answer is held back"),
    ),
    "hang": Kind(
        ANY_PARTY,
        "request",
        "does nothing for some seconds, then the work; for a caller that went away none",
        "the caller's timeout (party_too_slow); nothing was done",
        _HTTP,
        _seconds(30.0, "how long nothing happens"),
    ),
    "error": Kind(
        ANY_PARTY,
        "request",
        "answers with an HTTP status and a body of choice and does not do the work",
        "the caller's handling of that status; parties pass a 4xx on and make 502 of the rest",
        _HTTP,
        {
            "status": Parameter(503, "the HTTP status", 400, 599),
            "body": Parameter(
                '{"code": "fault", "message": "this party was told to fail"}',
                "the body; sent as application/json where it is JSON, else as text/plain",
            ),
        },
    ),
    "drop": Kind(
        ANY_PARTY,
        "request",
        "closes the connection without an answer and without doing the work",
        "party_unreachable; parties ask once more on a new connection, so two calls are one "
        "failure",
        _HTTP,
    ),
    "garbage": Kind(
        ANY_PARTY,
        "answer",
        "does the work and answers 200 with bytes that are not JSON, EXI or DER",
        "unexpected_answer at a party that reads JSON; ocsp.unreadable where it was OCSP",
        _HTTP,
    ),
    "oversize": Kind(
        ANY_PARTY,
        "answer",
        "does the work and pads the answer with blanks",
        "party_unreachable, its answer has more than 8388608 bytes",
        _HTTP,
        {
            "bytes": Parameter(
                8 * 1024 * 1024 + 1, "how large the answer becomes", 1, 64 * 1024 * 1024
            )
        },
    ),
    "lose-answer": Kind(
        ANY_PARTY,
        "answer",
        "does the work, and the caller does not hear of it",
        "a caller that asks again gets the answer to the same work; nothing is done twice",
        _HTTP,
        {
            "status": Parameter(
                503, "the HTTP status instead, or 0: the connection is closed without one", 0, 599
            )
        },
    ),
    "contract-not-found": Kind(
        ("ccp",),
        "request",
        "answers a CertificateInstallationReq on the platforms' doors (OPCP, OPNC) with 404 and "
        "errorMessages, without EXI, and does not do the work",
        "whatever a backend makes of a 404 that holds nothing for the car",
        _HTTP,
    ),
    "root-list-broken": Kind(
        ("rcp",),
        "answer",
        "one certificate in a list of roots cannot be read; the others are as they are",
        "a client that reads all or nothing has no roots (MaEVe); unexpected_answer at a party",
        _HTTP,
        {
            "entry": _choice(("last", "first"), "which entry of the list"),
            "how": _choice(
                ("cut-off", "not-base64", "empty"), "what the certificate is like instead"
            ),
        },
    ),
    "expired-token": Kind(
        ANY_PARTY,
        "token",
        "the token endpoint issues a token that expired a second ago",
        "401 expired_token at this party with the next call; parties log in again once",
        ("caller",),
    ),
    # ------------------------------------------------------------------- CAs
    "ocsp-try-later": Kind(
        CAS,
        "ocsp",
        "the responder answers tryLater",
        "ocsp.not-successful; FAILED_CertChainError where an answer is required",
        _CONTRACT,
    ),
    "ocsp-not-successful": Kind(
        CAS,
        "ocsp",
        "the responder answers with another status than successful",
        "ocsp.not-successful; FAILED_CertChainError where an answer is required",
        _CONTRACT,
        {
            "status": _choice(
                ("internalError", "malformedRequest", "sigRequired", "unauthorized"),
                "the responseStatus (RFC 6960 section 4.2.1)",
            )
        },
    ),
    "ocsp-unknown": Kind(
        CAS,
        "ocsp",
        "says, properly signed, that it does not know the certificate",
        "revocation.unknown; FAILED_CertChainError",
        _CONTRACT,
    ),
    "ocsp-revoked": Kind(
        CAS,
        "ocsp",
        "says, properly signed, of a good certificate that it was revoked",
        "revocation.revoked; FAILED_CertificateRevoked",
        _CONTRACT,
        {
            "reason": _choice(
                ("keyCompromise", "cessationOfOperation", "superseded", "unspecified"),
                "the reason (RFC 5280 section 5.3.1)",
            )
        },
    ),
    "ocsp-stale": Kind(
        CAS,
        "ocsp",
        "an answer that was right once: its nextUpdate is past",
        "ocsp.stale; FAILED_CertChainError where an answer is required",
        _CONTRACT,
        {"hours": Parameter(24.0, "for how long it has been out of date", 0.001, 24 * 365 * 10)},
    ),
    "ocsp-wrong-signer": Kind(
        CAS,
        "ocsp",
        "signed by an OCSP signer of the same house that another CA certified",
        "ocsp.unauthorised-responder; FAILED_CertChainError where an answer is required",
        _CONTRACT,
    ),
    "ocsp-no-nonce": Kind(
        CAS,
        "ocsp",
        "answers a request with a nonce, properly signed, without it or with another one",
        "a client that wants its nonce back refuses the answer (openssl: Nonce Verify error, "
        "where it is another one)",
        _CONTRACT,
        {"nonce": _choice(("left-out", "another"), "what becomes of the nonce")},
    ),
    "certificate-without-aia": Kind(
        CAS,
        "certificate",
        "issues a leaf that names no OCSP responder; it stays like that",
        "revocation.unavailable where an answer is required: FAILED_CertChainError; CitrineOS: "
        "CertChainError",
        (*_CONTRACT, "charger"),
    ),
    "certificate-wrong-dc": Kind(
        CAS,
        "certificate",
        "issues a leaf with another domain component in its subject, or with none; it stays like "
        "that",
        "profile.domain-component: a provisioning service's leaf is refused "
        "(FAILED_CertChainError at a car); a contract's or a car's is a warning",
        (*_CONTRACT, "charger"),
        {"dc": Parameter("WRONG", "the domain component, or nothing", most=63)},
    ),
    "est-reordered": Kind(
        EST,
        "pkcs7",
        "EST: the certificates of cacerts stand in another order",
        "a client that takes the last one for the root, or the chain as it stands (CitrineOS), "
        "sends a chain that does not verify",
        ("caller",),
        {
            "order": _choice(
                ("sorted", "reversed", "root-second"),
                "by their bytes as DER sorts a set, from the root downwards, or the root in "
                "the middle",
            )
        },
    ),
    "est-truncated": Kind(
        EST,
        "pkcs7",
        "EST: the last bytes of the PKCS#7 in an answer are missing",
        "a client that cannot read it has no certificate; the same request again gets it",
        ("caller",),
        {"bytes": Parameter(40, "how many are missing", 1, 4000)},
    ),
    # -------------------------------------------------------------- contracts
    "key-does-not-match": Kind(
        ("mo",),
        "contract-key",
        "encrypts another key to the car than the contract certificate's, before the "
        "provisioning service signs; the contract stays like that",
        "refused by the car: contract key",
        _CONTRACT,
    ),
    "bundle-for-another-car": Kind(
        ("mo",),
        "contract-key",
        "encrypts the contract key to another car's public key, before the provisioning "
        "service signs; the contract stays like that",
        "refused by the car: contract key",
        _CONTRACT,
    ),
    "refuse-authorization": Kind(
        ("mo",),
        "authorization",
        "says no to a contract that may charge",
        "the AuthorizationRes of the code: FAILED, FAILED_ContractCanceled",
        (*_CONTRACT, "caller"),
        {
            "code": _choice(
                (
                    "account_blocked",
                    "no_credit",
                    "contract_cancelled",
                    "contract_revoked",
                    "contract_ended",
                    "unknown_contract",
                ),
                "the rule by which it says no",
            )
        },
    ),
    "bundle-tampered": Kind(
        ("ccp",),
        "bundle",
        "one of the four signed elements differs in one bit from what was signed",
        "refused by the car: signature of the contract data",
        _CONTRACT,
        {
            "element": _choice(
                (
                    "ContractSignatureEncryptedPrivateKey",
                    "DHpublickey",
                    "ContractSignatureCertChain",
                    "eMAID",
                ),
                "which one",
            )
        },
    ),
    "bundle-wrong-signature": Kind(
        ("ccp",),
        "bundle",
        "signed with another key than that of the provisioning certificate sent along",
        "refused by the car: signature of the contract data",
        _CONTRACT,
    ),
    "bundle-wrong-role": Kind(
        ("ccp",),
        "bundle",
        "signed, properly, under a charger's certificate from the same V2G root",
        "refused by the car: provisioning service's chain",
        _CONTRACT,
    ),
    "bundle-wrong-emaid": Kind(
        ("ccp",),
        "bundle",
        "the signed eMAID is not the contract certificate's; signed by a provisioning "
        "service that the V2G root certified",
        "refused by the car: eMAID and CN differ",
        _CONTRACT,
    ),
    "chain-reordered": Kind(
        ("ccp",),
        "bundle",
        "the provisioning service's chain stands in another order (it is not signed)",
        "reversed: refused by the car; sub-cas: accepted with the warning chain.order",
        _CONTRACT,
        {"order": _choice(("reversed", "sub-cas"), "all turned round, or the two sub-CAs swapped")},
    ),
    "bundle-oversize": Kind(
        ("ccp",),
        "bundle",
        "two more CA certificates stand in the provisioning service's chain (it is not signed)",
        "an exiResponse that outgrows the 5600 and 7500 characters of many stacks; a car may "
        "accept it",
        _CONTRACT,
    ),
    "installation-failed": Kind(
        ("ccp",),
        "installation",
        "answers a good request for a contract with a refusal in EXI; on the platforms' doors "
        "with status 404",
        "the CertificateInstallationRes of the code",
        ("pcid",),
        {
            "code": _choice(
                (
                    "FAILED_NoCertificateAvailable",
                    "FAILED_CertChainError",
                    "FAILED_SignatureError",
                    "FAILED_ContractCanceled",
                    "FAILED",
                ),
                "the ResponseCode",
            )
        },
    ),
    # --------------------------------------------------------------- chargers
    "old-challenge": Kind(
        ("charger",),
        "challenge",
        "gives out, and expects, the GenChallenge of the session before",
        "no honest car notices; who recorded an AuthorizationReq of then is let in with it",
        _ON_THE_CABLE,
    ),
    "wrong-challenge-given": Kind(
        ("charger",),
        "challenge",
        "gives the car one GenChallenge and expects another",
        "FAILED_ChallengeInvalid for an honest car",
        _ON_THE_CABLE,
    ),
    "no-receipt-required": Kind(
        ("charger",),
        "receipt",
        "asks for no receipt for its meter readings (a call is a reading)",
        "the mobility operator disputes the record: no receipt",
        _ON_THE_CABLE,
    ),
    "session-id-changes": Kind(
        ("charger",),
        "cable-answer",
        "the answer to a message carries another SessionID",
        "the car ends the session: FAILED_UnknownSession",
        _ON_THE_CABLE,
        {"message": _choice(("AuthorizationReq", *REQUESTS[1:7], *REQUESTS[8:]), "which one")},
    ),
    "slow-charger": Kind(
        ("charger",),
        "cable-answer",
        "answers a message on the cable some seconds late",
        "the car gives up after its message timeout, 2 s or 5 s",
        _ON_THE_CABLE,
        {
            "message": _choice(("AuthorizationReq", *REQUESTS[:7], *REQUESTS[8:]), "which one"),
            "seconds": Parameter(3.0, "how late", 0, MAX_SECONDS),
        },
    ),
    # --------------------------------------------------------------- vehicles
    "wrong-challenge": Kind(
        ("vehicle",),
        "AuthorizationReq",
        "signs another GenChallenge than it was given",
        "FAILED_ChallengeInvalid",
        _VISIT,
    ),
    "replayed-challenge": Kind(
        ("vehicle",),
        "AuthorizationReq",
        "sends the GenChallenge and the signature of its former session (of this process)",
        "FAILED_ChallengeInvalid",
        _VISIT,
    ),
    "bad-signature": Kind(
        ("vehicle",),
        "AuthorizationReq",
        "one bit of the signature is another one",
        "FAILED_SignatureError",
        _VISIT,
    ),
    "signature-by-other-key": Kind(
        ("vehicle",),
        "AuthorizationReq",
        "signs with a key that is not the contract certificate's",
        "FAILED_SignatureError",
        _VISIT,
    ),
    "other-emaid": Kind(
        ("vehicle",),
        "PaymentDetailsReq",
        "names another eMAID (with a good check digit) than its certificate does",
        "FAILED_CertChainError",
        _VISIT,
    ),
    "wrong-chain": Kind(
        ("vehicle",),
        "PaymentDetailsReq",
        "shows its contract certificate under the sub-CAs of its maker",
        "FAILED_CertChainError",
        _VISIT,
    ),
    "receipt-tampered": Kind(
        ("vehicle",),
        "MeteringReceiptReq",
        "signs, properly, for another meter reading than it was shown",
        "FAILED_MeteringSignatureNotValid",
        _VISIT,
        {"wh": Parameter(-500, "by how much the reading differs", -100_000, 100_000)},
    ),
    "receipt-unsigned": Kind(
        ("vehicle",),
        "MeteringReceiptReq",
        "sends the receipt without a signature",
        "FAILED_MeteringSignatureNotValid",
        _VISIT,
    ),
    "unplug-at": Kind(
        ("vehicle",),
        "unplug",
        "disappears from the cable when it should send a message",
        "the charger bills what was signed for until then",
        _VISIT,
        {"message": _choice(("ChargingStatusReq", *REQUESTS[:10], *REQUESTS[11:]), "which one")},
    ),
    # -------------------------------------------------- charge point operators
    "cdr-inflated": Kind(
        ("cpo",),
        "cdr",
        "asks, at the agreed price, for more energy than the receipts vouch for",
        "the mobility operator disputes the record and pays nothing",
        ("emaid", "charger"),
        {"wh": Parameter(5000, "by how much", 1, 1_000_000)},
    ),
}
