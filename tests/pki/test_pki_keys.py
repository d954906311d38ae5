"""Keys: what comes out of them and what never does; DER; trust models as values."""

import copy
from datetime import UTC, datetime, timedelta, timezone

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from pki import der
from pki.edition import ISO2
from pki.keys import (
    KeyFormatError,
    SoftwareKey,
    der_signature,
    public_key_of,
    raw_signature,
)
from pki.profiles import Role
from pki.trust import (
    OPERATOR_ROOTS,
    SINGLE_ROOT,
    TRUST_MODELS,
    Anchor,
    Holder,
    TrustStore,
    hierarchy,
)


def test_a_key_comes_back_from_every_form() -> None:
    key = SoftwareKey.generate(ISO2, "a reference")
    scalar = key.scalar()
    forms = [
        SoftwareKey.from_pkcs8(key.pkcs8()),
        SoftwareKey.from_pkcs8(key.pkcs8(b"secret"), b"secret"),
        SoftwareKey.from_pem(key.pem()),
        SoftwareKey.from_pem(key.pem(b"secret"), b"secret"),
        SoftwareKey.from_scalar(int.from_bytes(scalar, "big"), ISO2),
    ]
    assert {form.scalar() for form in forms} == {scalar}
    assert {form.public_der for form in forms} == {key.public_der}
    assert len(scalar) == 32
    assert len(key.ski()) == 20


def test_sec1_is_read_as_well() -> None:
    private = ec.generate_private_key(ec.SECP256R1())
    for encoding in (Encoding.DER, Encoding.PEM):
        text = private.private_bytes(encoding, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        read = (
            SoftwareKey.from_pem(text)
            if encoding is Encoding.PEM
            else (SoftwareKey.from_pkcs8(text))
        )
        assert read.public_key == private.public_key()


def test_what_is_no_key_of_ours_is_refused() -> None:
    other = ed25519.Ed25519PrivateKey.generate().private_bytes(
        Encoding.DER, PrivateFormat.PKCS8, NoEncryption()
    )
    for wrong, password in (
        (b"", None),
        (b"nothing", None),
        (other, None),
        (SoftwareKey.generate(ISO2).pkcs8(b"secret"), b"guess"),
        (SoftwareKey.generate(ISO2).pkcs8(b"secret"), None),
    ):
        with pytest.raises(KeyFormatError):
            SoftwareKey.from_pkcs8(wrong, password)
    with pytest.raises(KeyFormatError, match="secp384r1"):
        SoftwareKey(ec.generate_private_key(ec.SECP384R1()))
    with pytest.raises(KeyFormatError):
        SoftwareKey.from_pem("-----BEGIN PRIVATE KEY-----")


def test_nothing_shows_the_private_half() -> None:
    key = SoftwareKey.derive(b"seed", "label", ISO2)
    shown = f"{key!r} {key} {key.public_key!r}"
    scalar = key.scalar()
    assert scalar.hex() not in shown
    assert str(int.from_bytes(scalar, "big")) not in shown
    assert "label" in shown


def test_derived_keys_follow_from_seed_and_label_and_sign_deterministically() -> None:
    key, again = (SoftwareKey.derive(b"seed", "a", ISO2) for _ in range(2))
    assert key.scalar() == again.scalar()
    assert key.sign(b"data") == again.sign(b"data")
    others = [SoftwareKey.derive(b"seed", "b", ISO2), SoftwareKey.derive(b"other", "a", ISO2)]
    assert len({key.scalar(), *(other.scalar() for other in others)}) == 3
    fresh = SoftwareKey.generate(ISO2)
    assert fresh.sign(b"data") != fresh.sign(b"data")


def test_the_two_forms_of_a_signature() -> None:
    key = SoftwareKey.derive(b"seed", "signs", ISO2)
    signature = key.sign(b"data")
    raw = raw_signature(signature, ISO2)
    assert len(raw) == 64
    assert der_signature(raw) == signature
    assert key.algorithm.verifies(key.public_key, der_signature(raw), b"data")
    for wrong in (b"", b"\x30\x00", raw):
        with pytest.raises(KeyFormatError):
            raw_signature(wrong, ISO2)
    for wrong in (b"", b"123"):
        with pytest.raises(KeyFormatError):
            der_signature(wrong)


@given(st.integers(0, 2**256 - 1), st.integers(0, 2**256 - 1))
def test_small_numbers_keep_their_length(r: int, s: int) -> None:
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert raw_signature(der_signature(raw), ISO2) == raw


def test_numbers_that_are_too_large_are_refused() -> None:
    with pytest.raises(KeyFormatError):
        raw_signature(der_signature(b"\xff" * 66), ISO2)


def test_both_sides_agree() -> None:
    a, b = SoftwareKey.generate(ISO2), SoftwareKey.generate(ISO2)
    assert a.agree(b.public_key) == b.agree(a.public_key)
    assert len(a.agree(b.public_key)) == 32


def test_points() -> None:
    key = SoftwareKey.derive(b"seed", "point", ISO2)
    numbers = key.public_key.public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    assert public_key_of(b"\x04" + x + y, ISO2) == key.public_key
    for wrong in (b"", b"\x04", b"\x02" + x, b"\x04" + x + x, b"\x03" + x + y):
        with pytest.raises(KeyFormatError):
            public_key_of(wrong, ISO2)


# -------------------------------------------------------------------------------------- DER


@given(st.binary(max_size=300), st.integers(-(2**80), 2**80))
def test_what_is_written_is_read(content: bytes, number: int) -> None:
    encoded = der.sequence(der.octet_string(content), der.integer(number), der.oid("2.5.29.15"))
    reader = der.Reader(encoded)
    fields = reader.next(der.SEQUENCE).children()
    assert fields.next(der.OCTET_STRING).content == content
    assert fields.next(der.INTEGER).as_integer() == number
    assert fields.next(der.OBJECT_IDENTIFIER).as_oid() == "2.5.29.15"
    fields.finish()
    reader.finish()


@pytest.mark.parametrize("dotted", ["1.2.840.10045.4.3.2", "2.999.1", "0.9.2342", "1.3.14.3.2.26"])
def test_object_identifiers(dotted: str) -> None:
    assert der.Reader(der.oid(dotted)).next().as_oid() == dotted


@pytest.mark.parametrize(
    "encoded",
    [
        b"",
        b"\x30",
        b"\x30\x01",
        b"\x30\x80\x00\x00",
        b"\x30\x81\x01\x00",
        b"\x30\x82\x00\x01\x00",
        b"\x30\x85\x00\x00\x00\x00\x00",
        b"\x30\x84\xff\xff\xff\xff",
        b"\x1f\x81\x00",
    ],
)
def test_what_is_not_der_is_refused_where_it_is(encoded: bytes) -> None:
    with pytest.raises(der.DerError, match="at byte 0"):
        der.Reader(encoded).next()


def test_times() -> None:
    cet = timezone(timedelta(hours=1))
    assert der.time(datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)).endswith(b"491231235959Z")
    assert der.time(datetime(2050, 1, 1, 0, 59, 59, tzinfo=cet)).endswith(b"\x0d491231235959Z")
    assert der.time(datetime(2050, 1, 1, tzinfo=UTC)).endswith(b"\x0f20500101000000Z")
    with pytest.raises(ValueError, match="no time zone"):
        der.time(datetime(2026, 1, 1))  # noqa: DTZ001


# ------------------------------------------------------------------------------ trust models


def test_who_issues_whom() -> None:
    assert OPERATOR_ROOTS.issuer(Role.MO_SUB1) is Role.MO_ROOT
    assert SINGLE_ROOT.issuer(Role.MO_SUB1) is Role.V2G_ROOT
    for model in TRUST_MODELS.values():
        assert model.issuer(Role.CONTRACT) is Role.MO_SUB2
        assert model.issuer(Role.V2G_ROOT) is None
        assert model.root_of(Role.OEM_PROVISIONING) is Role.OEM_ROOT
        assert model.says
        with pytest.raises(KeyError, match="does not say"):
            model.issuer(Role.OCSP_SIGNER)
    with pytest.raises(KeyError, match="does not say"):
        SINGLE_ROOT.issuer(Role.MO_ROOT)


def test_who_holds_which_anchors() -> None:
    for model in TRUST_MODELS.values():
        assert model.anchors(Holder.VEHICLE, Role.SECC) == {Role.V2G_ROOT}
        assert model.anchors("vehicle", Role.CPS) == {Role.V2G_ROOT}
        assert model.anchors(Holder.VEHICLE, Role.OEM_PROVISIONING) == set()
        assert model.anchors(Holder.POOL, Role.OEM_PROVISIONING) == {Role.OEM_ROOT}
        assert model.anchor_roles(Role.OCSP_SIGNER) == model.roots
    assert SINGLE_ROOT.anchors(Holder.CHARGER, Role.CONTRACT) == {Role.V2G_ROOT}
    wanted = {Role.MO_ROOT, Role.V2G_ROOT}
    assert OPERATOR_ROOTS.anchors(Holder.CHARGER, Role.CONTRACT) == wanted


def test_hierarchies_hold_exactly_the_cas_of_the_model() -> None:
    cas = {role for role in Role if role.is_ca}
    assert set(hierarchy(OPERATOR_ROOTS, ISO2)) == cas
    assert set(hierarchy(SINGLE_ROOT, ISO2)) == cas - {Role.MO_ROOT}


def test_a_store_counts_its_versions(world) -> None:  # type: ignore[no-untyped-def]
    root = Anchor(world.root(Role.SECC), Role.V2G_ROOT)
    operator = Anchor(world.root(Role.CONTRACT), Role.MO_ROOT)
    empty = TrustStore(Holder.CHARGER)
    store = empty.adding([root, operator], source="ecosystem")
    assert (store.version, store.source, len(store.anchors)) == (1, "ecosystem", 2)
    assert store.adding([root]) is store
    assert store.for_role(Role.SECC, OPERATOR_ROOTS) == (root,)
    assert store.for_role(Role.CONTRACT, OPERATOR_ROOTS) == (root, operator)
    assert store.for_role(Role.CONTRACT, SINGLE_ROOT) == (root,)
    fewer = store.removing(operator.certificate)
    assert (fewer.version, fewer.anchors) == (2, (root,))
    assert fewer.removing(operator.certificate) is fewer
    assert copy.copy(store) == store
