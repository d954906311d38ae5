"""The chain walker: every rule broken once, beside the same chain unbroken, and what must pass.

Each case of `SPOILED` names the rule it breaks and gives the arguments of `judge` in which one
thing is changed; `test_the_twin_is_accepted` shows that without the change all is well.
"""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID as Purpose
from cryptography.x509.oid import ObjectIdentifier
from hypothesis import given, settings
from hypothesis import strategies as st

from pki import codes
from pki.algorithms import ECDSA_P521_SHA512
from pki.chain import RevocationPolicy, certificates_to_check, find_path, judge, judge_der
from pki.edition import ISO2
from pki.findings import RULES, Severity, Verdict
from pki.identifiers import EMAID, PCID
from pki.issuing import Authority, key_usage, sealed
from pki.keys import SoftwareKey
from pki.profiles import KeyUsage, Role
from pki.trust import OPERATOR_ROOTS, SINGLE_ROOT, Anchor

LEAVES = [Role.CONTRACT, Role.SECC, Role.CPS, Role.OEM_PROVISIONING]


def asked(world: Any, role: Role = Role.CONTRACT, **changes: Any) -> dict[str, Any]:
    """The arguments of `judge` for a chain that is right."""
    arguments = {
        "role": role,
        "edition": ISO2,
        "at": world.now + timedelta(days=1),
        "trust": world.model,
        "revocation_policy": RevocationPolicy.IGNORE,
    } | changes
    if "leaf" not in changes:
        arguments["leaf"] = world.leaf(role)
    if "intermediates" not in changes:
        arguments["intermediates"] = world.chain(role)
    if "anchors" not in changes:
        arguments["anchors"] = [Anchor(world.root(role), world.model.root_of(role))]
    return arguments


def verdict_of(arguments: dict[str, Any]) -> Verdict:
    rest = dict(arguments)
    return judge(rest.pop("leaf"), rest.pop("intermediates"), rest.pop("anchors"), **rest)


def rules_of(verdict: Verdict) -> list[str]:
    return [f.rule for f in verdict.findings]


@pytest.mark.parametrize("role", LEAVES)
@pytest.mark.parametrize("model", [OPERATOR_ROOTS, SINGLE_ROOT], ids=str)
def test_the_twin_is_accepted(make_world: Callable[..., Any], model: Any, role: Role) -> None:
    verdict = verdict_of(asked(make_world(model), role))
    assert verdict.accepted, verdict.reason
    assert verdict.findings == ()
    assert verdict.verifications == 3
    assert [s.label for s in verdict.path] == [role.label, "sub-CA 2", "sub-CA 1", "anchor"]
    assert codes.iso2_code(verdict) == "OK"
    assert codes.ocpp_status(verdict) == "Accepted"
    assert codes.opcp_error(verdict) is None


# ------------------------------------------------------------- one thing spoiled at a time

SPOILED: list[tuple[str, str, Callable[[Any], dict[str, Any]]]] = []


def breaks(rule: str, *, because: str = "") -> Callable[[Any], Any]:
    """Registers a case that must be refused with `rule` as the first finding."""

    def register(make: Callable[[Any], dict[str, Any]]) -> Any:
        SPOILED.append((rule, make.__name__, make))
        return make

    return register


def contract(world: Any, **changes: Any) -> x509.Certificate:
    return world.spoiled(world.leaf(Role.CONTRACT), world.authorities[Role.MO_SUB2], **changes)


def sub(world: Any, role: Role, **changes: Any) -> x509.Certificate:
    """A sub-CA again with changes, its key kept, so that what it issued stays as it is."""
    authority = world.authorities[world.model.issuer(role)]
    return world.spoiled(world.authorities[role].certificate, authority, **changes)


@breaks("chain.expired")
def expired_leaf(world: Any) -> dict[str, Any]:
    return asked(world, leaf=contract(world, not_after=world.now + timedelta(hours=1)))


@breaks("chain.expired")
def expired_sub2(world: Any) -> dict[str, Any]:
    old = sub(world, Role.MO_SUB2, not_after=world.now + timedelta(hours=1))
    return asked(world, intermediates=[old, world.chain(Role.CONTRACT)[1]])


@breaks("chain.expired")
def expired_sub1(world: Any) -> dict[str, Any]:
    old = sub(world, Role.MO_SUB1, not_after=world.now + timedelta(hours=1))
    return asked(world, intermediates=[world.chain(Role.CONTRACT)[0], old])


@breaks("chain.expired")
def expired_root(world: Any) -> dict[str, Any]:
    root = world.authorities[Role.MO_ROOT]
    old = world.spoiled(root.certificate, root, not_after=world.now + timedelta(hours=1))
    return asked(world, anchors=[old])


@breaks("chain.not-yet-valid")
def leaf_not_yet_valid(world: Any) -> dict[str, Any]:
    return asked(world, leaf=contract(world, not_before=world.now + timedelta(days=2)))


@breaks("chain.not-yet-valid")
def ca_not_yet_valid(world: Any) -> dict[str, Any]:
    early = sub(world, Role.MO_SUB1, not_before=world.now + timedelta(days=2))
    return asked(world, intermediates=[world.chain(Role.CONTRACT)[0], early])


@breaks("chain.signature")
def bad_leaf_signature(world: Any) -> dict[str, Any]:
    forger = world.key("forger")
    return asked(world, leaf=contract(world, sign=lambda tbs: sealed(tbs, forger)))


@breaks("chain.signature")
def bad_ca_signature(world: Any) -> dict[str, Any]:
    forger = world.key("forger")
    bad = sub(world, Role.MO_SUB1, sign=lambda tbs: sealed(tbs, forger))
    return asked(world, intermediates=[world.chain(Role.CONTRACT)[0], bad])


@breaks("chain.incomplete")
def missing_sub1(world: Any) -> dict[str, Any]:
    return asked(world, intermediates=world.chain(Role.CONTRACT)[:1])


@breaks("chain.incomplete")
def missing_sub2(world: Any) -> dict[str, Any]:
    return asked(world, intermediates=world.chain(Role.CONTRACT)[1:])


@breaks("chain.incomplete")
def missing_everything(world: Any) -> dict[str, Any]:
    return asked(world, intermediates=[])


@breaks("chain.no-anchors")
def no_anchors(world: Any) -> dict[str, Any]:
    return asked(world, anchors=[])


@breaks("chain.unknown-anchor")
def root_of_somebody_else(world: Any) -> dict[str, Any]:
    return asked(world, anchors=[world.root(Role.OEM_PROVISIONING)])


@breaks("chain.unknown-anchor")
def root_of_somebody_else_with_the_own_root_along(world: Any) -> dict[str, Any]:
    return asked(
        world,
        intermediates=[*world.chain(Role.CONTRACT), world.root(Role.CONTRACT)],
        anchors=[world.root(Role.OEM_PROVISIONING)],
    )


@breaks("chain.decoy-anchor")
def same_name_decoy_root(world: Any) -> dict[str, Any]:
    """A chain under a root that bears the trusted one's name, by another key."""
    decoy = world.make_ca(Role.MO_ROOT, label="decoy")
    return asked(world, anchors=[decoy.certificate])


@breaks("chain.decoy-anchor")
def same_name_decoy_root_along(world: Any) -> dict[str, Any]:
    decoy = world.make_ca(Role.MO_ROOT, label="decoy")
    intermediates = [*world.chain(Role.CONTRACT), world.root(Role.CONTRACT)]
    return asked(world, intermediates=intermediates, anchors=[decoy.certificate])


@breaks("chain.anchor-role")
def anchor_of_another_role(world: Any) -> dict[str, Any]:
    """The operator's root was installed as a manufacturer's."""
    return asked(world, anchors=[Anchor(world.root(Role.CONTRACT), Role.OEM_ROOT)])


@breaks("chain.self-signed-leaf")
def self_signed_leaf(world: Any) -> dict[str, Any]:
    own = Authority(world.leaf(Role.CONTRACT), world.key("contract leaf"))
    leaf = world.spoiled(own.certificate, own, issuer=own.certificate.subject)
    return asked(world, leaf=leaf)


@breaks("chain.self-signed-leaf")
def self_signed_leaf_that_is_an_anchor(world: Any) -> dict[str, Any]:
    arguments = self_signed_leaf(world)
    ca = (x509.BasicConstraints(ca=False, path_length=None), True)
    own = Authority(arguments["leaf"], world.key("contract leaf"))
    leaf = world.spoiled(arguments["leaf"], own, extensions=(ca,))
    return arguments | {"leaf": leaf, "anchors": [leaf]}


@breaks("chain.root-issued-leaf")
def root_issued_leaf(world: Any) -> dict[str, Any]:
    root = world.authorities[Role.MO_ROOT]
    leaf = world.spoiled(
        world.leaf(Role.CONTRACT),
        root,
        issuer=root.certificate.subject,
        without=(x509.AuthorityKeyIdentifier,),
    )
    return asked(world, leaf=leaf, intermediates=[])


@breaks("chain.issuer-name")
def issuer_name_that_is_not_the_issuers(world: Any) -> dict[str, Any]:
    leaf = contract(world, issuer=world.name(Role.MO_SUB2, "Somebody Else"))
    return asked(world, leaf=leaf)


@breaks("chain.not-a-ca")
def ca_without_ca_true(world: Any) -> dict[str, Any]:
    plain = sub(
        world,
        Role.MO_SUB2,
        extensions=((x509.BasicConstraints(ca=False, path_length=None), True),),
    )
    return asked(world, intermediates=[plain, world.chain(Role.CONTRACT)[1]])


@breaks("chain.not-a-ca")
def ca_without_basic_constraints(world: Any) -> dict[str, Any]:
    plain = sub(world, Role.MO_SUB2, without=(x509.BasicConstraints,))
    return asked(world, intermediates=[plain, world.chain(Role.CONTRACT)[1]])


@breaks("chain.no-cert-sign")
def ca_without_cert_sign(world: Any) -> dict[str, Any]:
    usage = (key_usage(frozenset({KeyUsage.DIGITAL_SIGNATURE, KeyUsage.CRL_SIGN})), True)
    plain = sub(world, Role.MO_SUB2, extensions=(usage,))
    return asked(world, intermediates=[plain, world.chain(Role.CONTRACT)[1]])


@breaks("chain.no-cert-sign")
def ca_without_key_usage(world: Any) -> dict[str, Any]:
    plain = sub(world, Role.MO_SUB2, without=(x509.KeyUsage,))
    return asked(world, intermediates=[plain, world.chain(Role.CONTRACT)[1]])


@breaks("chain.path-length")
def path_length_0_on_sub1(world: Any) -> dict[str, Any]:
    short = sub(
        world, Role.MO_SUB1, extensions=((x509.BasicConstraints(ca=True, path_length=0), True),)
    )
    return asked(world, intermediates=[world.chain(Role.CONTRACT)[0], short])


@breaks("chain.path-length")
def a_third_sub_ca_below_the_second(world: Any) -> dict[str, Any]:
    """Four certificates that are not self-signed break two rules; the first is told first."""
    key = world.key("sub3")
    above = world.authorities[Role.MO_SUB2]
    third = world.spoiled(
        above.certificate,
        above,
        subject=world.name(Role.MO_SUB2, "sub-CA 3"),
        issuer=above.certificate.subject,
        public_key=key.public_key,
        extensions=(
            (x509.BasicConstraints(ca=True, path_length=0), True),
            (x509.SubjectKeyIdentifier(key.ski()), False),
            (x509.AuthorityKeyIdentifier(above.signer.ski(), None, None), False),
        ),
        serial=99,
    )
    leaf = world.spoiled(
        world.leaf(Role.CONTRACT),
        Authority(third, key),
        issuer=third.subject,
        extensions=((x509.AuthorityKeyIdentifier(key.ski(), None, None), False),),
    )
    return asked(world, leaf=leaf, intermediates=[third, *world.chain(Role.CONTRACT)])


@breaks("chain.too-long")
def four_certificates_that_all_allow_it(world: Any) -> dict[str, Any]:
    """The same with path lengths that would allow it: the edition does not [V2G2-009]."""
    arguments = a_third_sub_ca_below_the_second(world)
    third, sub2, sub1 = arguments["intermediates"]
    wide = [
        (x509.BasicConstraints(ca=True, path_length=None), True),
    ]
    sub2 = sub(world, Role.MO_SUB2, extensions=tuple(wide))
    sub1 = sub(world, Role.MO_SUB1, extensions=tuple(wide))
    return arguments | {"intermediates": [third, sub2, sub1]}


@breaks("chain.order")
def reordered_where_order_is_asked(world: Any) -> dict[str, Any]:
    return asked(world, intermediates=world.chain(Role.CONTRACT)[::-1], strict_order=True)


@breaks("chain.too-many-candidates")
def too_many_certificates(world: Any) -> dict[str, Any]:
    more = [world.leaf(Role.SECC, name=f"DEPNCE{n}") for n in range(20)]
    return asked(world, intermediates=[*world.chain(Role.CONTRACT), *more])


@breaks("certificate.size")
def eight_hundred_and_one_bytes(world: Any) -> dict[str, Any]:
    return asked(world, leaf=of_size(world, 801))


def of_size(world: Any, size: int) -> x509.Certificate:
    """A contract certificate of exactly so many bytes, by the length of its OCSP address."""
    from cryptography.x509.oid import AuthorityInformationAccessOID as Access

    for length in range(1, 400):
        for _ in range(8):  # a signature varies by some bytes
            location = x509.UniformResourceIdentifier("http://h/" + "x" * length)
            access = x509.AuthorityInformationAccess(
                [x509.AccessDescription(Access.OCSP, location)]
            )
            leaf = contract(world, extensions=((access, False),), serial=world.serial())
            if len(leaf.public_bytes(Encoding.DER)) == size:
                return leaf
    raise AssertionError(f"no certificate of {size} bytes was found")


@breaks("certificate.unknown-critical-extension")
def unknown_critical_extension(world: Any) -> dict[str, Any]:
    odd = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    return asked(world, leaf=contract(world, extensions=((odd, True),)))


@breaks("certificate.unknown-critical-extension")
def critical_name_constraints_on_a_ca(world: Any) -> dict[str, Any]:
    limits = x509.NameConstraints([x509.DNSName("example.org")], None)
    narrow = sub(world, Role.MO_SUB2, extensions=((limits, True),))
    return asked(world, intermediates=[narrow, world.chain(Role.CONTRACT)[1]])


@breaks("certificate.public-key")
def key_of_another_curve(world: Any) -> dict[str, Any]:
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    return asked(world, leaf=contract(world, public_key=key))


@breaks("certificate.public-key")
def rsa_key(world: Any) -> dict[str, Any]:
    key = rsa.generate_private_key(65537, 1024).public_key()
    return asked(world, leaf=contract(world, public_key=key))


@breaks("certificate.public-key")
def ca_of_another_curve(world: Any) -> dict[str, Any]:
    key = SoftwareKey.derive(b"x", "p521", ECDSA_P521_SHA512)
    other = sub(world, Role.MO_SUB2, public_key=key.public_key)
    leaf = contract(world, algorithm=ECDSA_P521_SHA512, sign=lambda tbs: sealed(tbs, key))
    return asked(world, leaf=leaf, intermediates=[other, world.chain(Role.CONTRACT)[1]])


@breaks("certificate.public-key")
def compressed_point(world: Any) -> dict[str, Any]:
    """The same key, encoded as 02 or 03 || X; the lengths around it are put right by hand."""
    from pki import der

    leaf = world.leaf(Role.CONTRACT)
    tbs = leaf.tbs_certificate_bytes
    x = leaf.public_key().public_numbers().x.to_bytes(32, "big")
    fields = list(der.Reader(tbs).next(der.SEQUENCE).children())
    algorithm = next(iter(fields[6].children())).encoded
    spki = der.sequence(algorithm, der.bit_string(b"\x02" + x))
    parts = [spki if n == 6 else f.encoded for n, f in enumerate(fields)]
    signer = world.authorities[Role.MO_SUB2].signer
    encoded = sealed(der.sequence(*parts), signer)
    return asked(world, leaf=x509.load_der_x509_certificate(encoded))


@breaks("certificate.signature-algorithm")
def signed_with_sha512(world: Any) -> dict[str, Any]:
    return asked(world, leaf=signed_with(world, hashes.SHA512()))


def signed_with(world: Any, algorithm: Any) -> x509.Certificate:
    original = world.leaf(Role.CONTRACT)
    builder = (
        x509.CertificateBuilder()
        .subject_name(original.subject)
        .issuer_name(original.issuer)
        .public_key(original.public_key())
        .serial_number(5)
        .not_valid_before(original.not_valid_before_utc)
        .not_valid_after(original.not_valid_after_utc)
    )
    for extension in original.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    return builder.sign(world.authorities[Role.MO_SUB2].signer._private, algorithm)


@breaks("certificate.signature-algorithm")
def signed_with_sha1(world: Any) -> dict[str, Any]:
    """The algorithm is named in two places; the signature itself is right."""
    from pki import der

    authority = world.authorities[Role.MO_SUB2]
    tbs = world.leaf(Role.CONTRACT).tbs_certificate_bytes
    weak = der.oid("1.2.840.10045.4.1")
    fields = list(der.Reader(tbs).next(der.SEQUENCE).children())
    parts = [der.sequence(weak) if n == 2 else f.encoded for n, f in enumerate(fields)]
    tbs = der.sequence(*parts)
    signature = authority.signer._private.sign(tbs, ec.ECDSA(hashes.SHA1()))
    encoded = der.sequence(tbs, der.sequence(weak), der.bit_string(signature))
    return asked(world, leaf=x509.load_der_x509_certificate(encoded))


@breaks("certificate.version")
def version_1(world: Any) -> dict[str, Any]:
    from pki import der

    signer = world.authorities[Role.MO_SUB2].signer
    tbs = world.leaf(Role.CONTRACT).tbs_certificate_bytes
    fields = list(der.Reader(tbs).next(der.SEQUENCE).children())
    encoded = sealed(der.sequence(*(f.encoded for f in fields[1:-1])), signer)
    return asked(world, leaf=x509.load_der_x509_certificate(encoded))


@breaks("certificate.extension-malformed")
def extension_that_is_no_der(world: Any) -> dict[str, Any]:
    leaf = contract(world)
    broken = leaf.tbs_certificate_bytes.replace(
        bytes.fromhex("0603551d0f0101ff0404"), bytes.fromhex("0603551d0f0101ff0404")
    )
    at = broken.index(bytes.fromhex("0603551d0f0101ff0404")) + 10
    broken = broken[:at] + b"\x09" + broken[at + 1 :]
    signer = world.authorities[Role.MO_SUB2].signer
    return asked(world, leaf=x509.load_der_x509_certificate(sealed(broken, signer)))


@breaks("profile.basic-constraints")
def leaf_that_is_a_ca(world: Any) -> dict[str, Any]:
    ca = (x509.BasicConstraints(ca=True, path_length=None), True)
    return asked(world, leaf=contract(world, extensions=(ca,)))


@breaks("profile.key-usage")
def contract_without_non_repudiation(world: Any) -> dict[str, Any]:
    usage = (key_usage(frozenset({KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_AGREEMENT})), True)
    return asked(world, leaf=contract(world, extensions=(usage,)))


@breaks("profile.key-usage")
def leaf_without_key_usage(world: Any) -> dict[str, Any]:
    return asked(world, leaf=contract(world, without=(x509.KeyUsage,)))


@breaks("profile.key-usage")
def provisioning_without_key_agreement(world: Any) -> dict[str, Any]:
    usage = (key_usage(frozenset({KeyUsage.DIGITAL_SIGNATURE, KeyUsage.KEY_ENCIPHERMENT})), True)
    leaf = world.spoiled(
        world.leaf(Role.OEM_PROVISIONING),
        world.authorities[Role.OEM_SUB2],
        extensions=(usage,),
    )
    return asked(world, Role.OEM_PROVISIONING, leaf=leaf)


@breaks("profile.extended-key-usage")
def station_with_client_auth_only(world: Any) -> dict[str, Any]:
    leaf = world.spoiled(
        world.leaf(Role.SECC),
        world.authorities[Role.CPO_SUB2],
        extensions=((x509.ExtendedKeyUsage([Purpose.CLIENT_AUTH]), False),),
    )
    return asked(world, Role.SECC, leaf=leaf)


@breaks("profile.extended-key-usage")
def ocsp_signer_without_its_purpose(world: Any) -> dict[str, Any]:
    signer = world.leaf(Role.OCSP_SIGNER, by=Role.CPO_SUB2)
    leaf = world.spoiled(signer, world.authorities[Role.CPO_SUB2], without=(x509.ExtendedKeyUsage,))
    return asked(
        world,
        Role.OCSP_SIGNER,
        leaf=leaf,
        intermediates=world.chain(Role.SECC),
        anchors=[world.root(Role.SECC)],
    )


def station(world: Any, dc: tuple[str, ...]) -> dict[str, Any]:
    leaf = world.spoiled(
        world.leaf(Role.SECC),
        world.authorities[Role.CPO_SUB2],
        subject=world.name(Role.SECC, dc=dc),
    )
    return asked(world, Role.SECC, leaf=leaf)


@breaks("profile.domain-component")
def station_without_dc(world: Any) -> dict[str, Any]:
    return station(world, ())


@breaks("profile.domain-component")
def station_with_a_provisioning_services_dc(world: Any) -> dict[str, Any]:
    return station(world, ("CPS",))


@breaks("profile.domain-component")
def station_with_two_dcs(world: Any) -> dict[str, Any]:
    return station(world, ("CPO", "CPS"))


@breaks("profile.domain-component")
def station_shown_as_provisioning_service(world: Any) -> dict[str, Any]:
    """The right root, the right algorithm, another role: only the DC tells."""
    return asked(world, Role.CPS, leaf=world.leaf(Role.SECC), intermediates=world.chain(Role.SECC))


@breaks("profile.domain-component")
def contract_with_a_stations_dc(world: Any) -> dict[str, Any]:
    return asked(world, leaf=contract(world, subject=world.name(Role.CONTRACT, dc=("CPO",))))


@breaks("identifier.invalid")
def emaid_with_a_wrong_check_digit(world: Any) -> dict[str, Any]:
    return asked(world, leaf=world.leaf(Role.CONTRACT, name="DEABCC12345678A"))


@breaks("identifier.invalid")
def emaid_of_no_country(world: Any) -> dict[str, Any]:
    return asked(world, leaf=world.leaf(Role.CONTRACT, name="UKSWI1234567915"))


@breaks("identifier.invalid")
def name_that_is_no_emaid(world: Any) -> dict[str, Any]:
    leaf = contract(world, subject=world.name(Role.CONTRACT, "DEABCC1234567"))
    return asked(world, leaf=leaf, identifiers_strict=False)


@breaks("identifier.invalid")
def two_common_names(world: Any) -> dict[str, Any]:
    name = x509.Name(
        [*world.name(Role.CONTRACT), *x509.Name.from_rfc4514_string("CN=DEXYZC123456788")]
    )
    return asked(world, leaf=contract(world, subject=name))


@breaks("identifier.invalid")
def pcid_with_letters_that_are_barred(world: Any) -> dict[str, Any]:
    leaf = world.leaf(Role.OEM_PROVISIONING, name="WOQC1234567890123")
    return asked(world, Role.OEM_PROVISIONING, leaf=leaf)


@breaks("identifier.mismatch")
def another_emaid(world: Any) -> dict[str, Any]:
    return asked(world, identifier=EMAID.parse("DEABCC12345679"))


@breaks("identifier.mismatch")
def another_pcid(world: Any) -> dict[str, Any]:
    return asked(world, Role.OEM_PROVISIONING, identifier="WPNC1234567890124")


@breaks("chain.other-domain")
def issued_below_another_domain(world: Any) -> dict[str, Any]:
    """A mobility operator's sub-CA 2 (whoever certified it) issues as a vehicle maker's."""
    sub2 = sub(world, Role.OEM_SUB2, subject=world.name(Role.OEM_SUB2, dc=("mo",)))
    leaf = world.spoiled(
        world.leaf(Role.OEM_PROVISIONING),
        world.authorities[Role.OEM_SUB2],
        issuer=sub2.subject,
    )
    chain = [sub2, world.chain(Role.OEM_PROVISIONING)[1]]
    return asked(world, Role.OEM_PROVISIONING, leaf=leaf, intermediates=chain)


@pytest.mark.parametrize(("rule", "name", "make"), SPOILED, ids=[n for _, n, _ in SPOILED])
def test_each_rule_refuses(
    world: Any, rule: str, name: str, make: Callable[[Any], dict[str, Any]]
) -> None:
    verdict = verdict_of(make(world))
    assert not verdict.accepted
    assert rules_of(verdict)[0] == rule, [f.sentence for f in verdict.findings]
    assert verdict.reason == verdict.findings[0].sentence
    assert verdict.findings[0].rule in verdict.reason
    assert verdict.findings[0].seen or rule == "certificate.version"
    for table in (codes.ISO15118_2, codes.ISO15118_20, codes.OCPP):
        assert table[rule]


def test_every_rule_of_the_walker_has_a_case_here() -> None:
    refusing = {
        code
        for code, rule in RULES.items()
        if rule.severity is Severity.ERROR
        and code.split(".")[0] in {"chain", "certificate", "profile", "identifier"}
    }
    # Bytes that are no certificate have tests of their own below.
    assert refusing - {rule for rule, _, _ in SPOILED} == {"certificate.unreadable"}


# ----------------------------------------------------------------------- what must be let pass


def accepted(verdict: Verdict, *warnings: str) -> None:
    assert verdict.accepted, verdict.reason
    assert rules_of(verdict) == list(warnings)


def test_reordered_sub_cas_pass_with_a_warning(world: Any) -> None:
    arguments = asked(world, intermediates=world.chain(Role.CONTRACT)[::-1])
    accepted(verdict_of(arguments), "chain.order")


def test_a_certificate_twice_passes_with_a_warning(world: Any) -> None:
    sub2, sub1 = world.chain(Role.CONTRACT)
    accepted(verdict_of(asked(world, intermediates=[sub2, sub2, sub1])), "chain.duplicate")


def test_the_leaf_among_the_others_passes_with_a_warning(world: Any) -> None:
    leaf = world.leaf(Role.CONTRACT)
    arguments = asked(world, leaf=leaf, intermediates=[leaf, *world.chain(Role.CONTRACT)])
    accepted(verdict_of(arguments), "chain.duplicate")


def test_the_root_among_the_others_passes_with_a_warning(world: Any) -> None:
    given_ = [*world.chain(Role.CONTRACT), world.root(Role.CONTRACT)]
    accepted(verdict_of(asked(world, intermediates=given_)), "chain.root-included")


def test_a_certificate_that_is_not_needed_passes_with_a_warning(world: Any) -> None:
    given_ = [*world.chain(Role.CONTRACT), world.chain(Role.SECC)[0]]
    accepted(verdict_of(asked(world, intermediates=given_)), "chain.unused")


def test_a_renewed_root_with_the_same_key_passes(world: Any) -> None:
    root = world.authorities[Role.MO_ROOT]
    renewed = world.spoiled(
        root.certificate, root, serial=4711, not_after=world.now + timedelta(days=20000)
    )
    accepted(verdict_of(asked(world, anchors=[renewed])))
    old = world.spoiled(root.certificate, root, not_after=world.now + timedelta(hours=1))
    accepted(verdict_of(asked(world, anchors=[old, renewed])))


def test_an_operators_chain_under_the_v2g_root_passes(make_world: Callable[..., Any]) -> None:
    """In both models: an operator with roots of its own does not keep others from the V2G root."""
    single = make_world(SINGLE_ROOT)
    for model in (SINGLE_ROOT, OPERATOR_ROOTS):
        accepted(verdict_of(asked(single, trust=model)))


def test_the_operators_root_does_not_vouch_where_one_root_does(world: Any) -> None:
    verdict = verdict_of(asked(world, trust=SINGLE_ROOT))
    assert rules_of(verdict) == ["chain.anchor-role"]


@pytest.mark.parametrize("role", LEAVES)
@pytest.mark.parametrize("by", LEAVES)
def test_below_one_root_each_domain_issues_its_own_leaves(
    make_world: Callable[..., Any], role: Role, by: Role
) -> None:
    """Whatever a sub-CA 2 writes into a leaf: its domain says what its leaves may be."""
    single = make_world(SINGLE_ROOT)
    leaf = single.leaf(role, by=single.issuer(by))
    verdict = verdict_of(asked(single, role, leaf=leaf, intermediates=single.chain(by)))
    same = single.model.root_of(role) is single.model.root_of(by)
    if role is by:
        accepted(verdict)
    elif same:
        rules = [f.rule for f in verdict.errors]
        # Both of its sub-CAs say it.
        assert rules == ["chain.other-domain"] * 2, verdict.reason
        assert verdict.findings[0].field == "subject.DC"


def test_sub_cas_without_a_known_domain_pass(world: Any) -> None:
    """Published sub-CAs carry none, or what their owners like."""
    for dc in ((), ("example", "com")):
        sub2 = sub(world, Role.MO_SUB2, subject=world.name(Role.MO_SUB2, dc=dc))
        leaf = contract(world, issuer=sub2.subject)
        chain = [sub2, world.chain(Role.CONTRACT)[1]]
        accepted(verdict_of(asked(world, leaf=leaf, intermediates=chain)))


def test_one_sub_ca_passes_with_a_notice(world: Any) -> None:
    sub1 = world.authorities[Role.MO_SUB1]
    leaf = world.spoiled(
        world.leaf(Role.CONTRACT),
        sub1,
        issuer=sub1.certificate.subject,
        extensions=((x509.AuthorityKeyIdentifier(sub1.signer.ski(), None, None), False),),
    )
    verdict = verdict_of(asked(world, leaf=leaf, intermediates=[sub1.certificate]))
    accepted(verdict, "profile.path-length", "chain.one-sub-ca")


def test_a_leaf_without_basic_constraints_is_no_ca_and_passes(world: Any) -> None:
    leaf = contract(world, without=(x509.BasicConstraints,))
    accepted(verdict_of(asked(world, leaf=leaf)), "profile.basic-constraints-absent")


def test_extensions_that_are_not_critical_pass_with_a_warning(world: Any) -> None:
    leaf = world.leaf(Role.CONTRACT)
    usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    accepted(
        verdict_of(asked(world, leaf=contract(world, extensions=((usage, False),)))),
        "profile.not-critical",
    )


def test_a_contract_with_a_purpose_passes_with_a_warning(world: Any) -> None:
    purposes = (x509.ExtendedKeyUsage([Purpose.CLIENT_AUTH]), False)
    verdict = verdict_of(asked(world, leaf=contract(world, extensions=(purposes,))))
    accepted(verdict, "profile.extended-key-usage")


def test_a_root_with_a_purpose_passes(world: Any) -> None:
    """A published V2G root carries OCSPSigning."""
    root = world.authorities[Role.V2G_ROOT]
    odd = world.spoiled(
        root.certificate,
        root,
        extensions=((x509.ExtendedKeyUsage([Purpose.OCSP_SIGNING]), False),),
    )
    accepted(verdict_of(asked(world, Role.SECC, anchors=[odd])))


@pytest.mark.parametrize("purpose", [Purpose.SERVER_AUTH, Purpose.ANY_EXTENDED_KEY_USAGE])
def test_a_station_with_server_auth_passes(world: Any, purpose: Any) -> None:
    leaf = world.spoiled(
        world.leaf(Role.SECC),
        world.authorities[Role.CPO_SUB2],
        extensions=((x509.ExtendedKeyUsage([purpose]), False),),
    )
    accepted(verdict_of(asked(world, Role.SECC, leaf=leaf)))


@pytest.mark.parametrize("role", [Role.CONTRACT, Role.OEM_PROVISIONING])
def test_dc_is_optional_on_contract_and_provisioning(world: Any, role: Role) -> None:
    authority = world.authorities[world.issuer(role)]
    leaf = world.spoiled(world.leaf(role), authority, subject=world.name(role, dc=()))
    accepted(verdict_of(asked(world, role, leaf=leaf)))


def test_unknown_extensions_that_are_not_critical_pass(world: Any) -> None:
    odd = x509.UnrecognizedExtension(ObjectIdentifier("1.3.6.1.4.1.99999.1"), b"\x05\x00")
    accepted(verdict_of(asked(world, leaf=contract(world, extensions=((odd, False),)))))


def test_eight_hundred_bytes_pass(world: Any) -> None:
    accepted(verdict_of(asked(world, leaf=of_size(world, 800))))


def test_wrong_identifiers_pass_where_they_may(world: Any) -> None:
    leaf = world.leaf(Role.CONTRACT, name="UKSWI123456791A")
    accepted(verdict_of(asked(world, leaf=leaf, identifiers_strict=False)))


def test_the_identifier_is_compared_by_its_normal_form(world: Any) -> None:
    for wanted in ("DE-ABC-C12345678-8", EMAID.parse("deabcc12345678")):
        accepted(verdict_of(asked(world, identifier=wanted)))
    car = PCID.parse("wpnc1234567890123")
    accepted(verdict_of(asked(world, Role.OEM_PROVISIONING, identifier=car)))


def test_what_expires_soon_is_said_and_passes(world: Any) -> None:
    leaf = contract(world, not_after=world.now + timedelta(days=22))
    verdict = verdict_of(asked(world, leaf=leaf))
    accepted(verdict, "chain.expires-soon")
    assert codes.iso2_code(verdict) == "OK_CertificateExpiresSoon"
    assert codes.ocpp_status(verdict) == "Accepted"
    later = contract(world, not_after=world.now + timedelta(days=22, seconds=1))
    accepted(verdict_of(asked(world, leaf=later)))


@pytest.mark.parametrize(("offset", "rule"), [(0, None), (1, "chain.expired")])
def test_the_last_second_is_valid(world: Any, offset: int, rule: str | None) -> None:
    leaf = contract(world)
    at = leaf.not_valid_after_utc + timedelta(seconds=offset)
    verdict = verdict_of(asked(world, leaf=leaf, at=at))
    assert [f.rule for f in verdict.errors] == ([] if rule is None else [rule])


@pytest.mark.parametrize(("offset", "rule"), [(0, None), (-1, "chain.not-yet-valid")])
def test_the_first_second_is_valid(world: Any, offset: int, rule: str | None) -> None:
    leaf = contract(world, not_before=world.now + timedelta(days=1))
    at = leaf.not_valid_before_utc + timedelta(seconds=offset)
    verdict = verdict_of(asked(world, leaf=leaf, at=at))
    assert [f.rule for f in verdict.errors] == ([] if rule is None else [rule])


def test_a_cross_certificate_leads_to_the_other_root(world: Any, make_world: Any) -> None:
    """Sub-CA 2 below root A; A's key certified by root B; the judge trusts B only."""
    ours, theirs = world.authorities[Role.MO_ROOT], make_world(SINGLE_ROOT)
    other = theirs.make_ca(Role.V2G_ROOT, label="root B", name="Root B")
    cross = world.spoiled(
        ours.certificate,
        other,
        issuer=other.certificate.subject,
        extensions=((x509.AuthorityKeyIdentifier(other.signer.ski(), None, None), False),),
        serial=5,
    )
    chain = world.chain(Role.CONTRACT)
    anchored = [Anchor(other.certificate, Role.V2G_ROOT)]
    verdict = verdict_of(asked(world, intermediates=[*chain, cross], anchors=anchored))
    assert [f.rule for f in verdict.errors] == ["chain.too-long"]
    # Both roots trusted: the short path is taken, whatever else came along.
    both = [*anchored, world.root(Role.CONTRACT)]
    verdict = verdict_of(asked(world, intermediates=[*chain, cross], anchors=both))
    accepted(verdict, "chain.unused")
    # An expired cross-certificate beside a good path does no harm either.
    old = world.spoiled(cross, other, not_after=world.now + timedelta(hours=1))
    accepted(verdict_of(asked(world, intermediates=[*chain, old], anchors=both)), "chain.unused")


def test_a_loop_of_cross_certificates_ends(world: Any) -> None:
    a, b = world.key("loop a"), world.key("loop b")
    ca = world.authorities[Role.MO_SUB1].certificate
    names = {key: world.name(Role.MO_SUB1, f"loop {n}") for n, key in enumerate((a, b))}

    def crossed(subject: SoftwareKey, issuer: SoftwareKey) -> x509.Certificate:
        return world.spoiled(
            ca,
            world.authorities[Role.MO_SUB1],
            subject=names[subject],
            issuer=names[issuer],
            public_key=subject.public_key,
            without=(x509.AuthorityKeyIdentifier,),
            sign=lambda tbs: sealed(tbs, issuer),
        )

    leaf = contract(world, issuer=names[a], sign=lambda tbs: sealed(tbs, a))
    verdict = verdict_of(asked(world, leaf=leaf, intermediates=[crossed(a, b), crossed(b, a)]))
    assert not verdict.accepted
    assert verdict.verifications < 40


def test_many_keys_of_one_name_cost_a_bounded_number_of_verifications(world: Any) -> None:
    """Twelve self-similar CAs that all verify: without bounds there would be millions of paths."""
    key = world.key("many")
    ca = world.authorities[Role.MO_SUB1].certificate
    name = world.name(Role.MO_SUB1, "many")
    other = world.name(Role.MO_SUB1, "many more")
    many = [
        world.spoiled(
            ca,
            world.authorities[Role.MO_SUB1],
            subject=name,
            issuer=name if n % 2 else other,
            public_key=key.public_key,
            serial=n + 1,
            sign=lambda tbs: sealed(tbs, key),
        )
        for n in range(12)
    ]
    leaf = contract(world, issuer=name, sign=lambda tbs: sealed(tbs, key))
    verdict = verdict_of(asked(world, leaf=leaf, intermediates=many))
    assert not verdict.accepted
    assert verdict.verifications <= 300


# ------------------------------------------------------------------------------- the verdict


def test_all_findings_are_told_in_their_order(world: Any) -> None:
    leaf = contract(
        world,
        not_after=world.now + timedelta(hours=1),
        subject=world.name(Role.CONTRACT, "DEABCC12345678A", dc=("CPO",)),
        without=(x509.KeyUsage,),
    )
    expired = sub(world, Role.MO_SUB2, not_after=world.now + timedelta(hours=1))
    verdict = verdict_of(
        asked(world, leaf=leaf, intermediates=[expired, world.chain(Role.CONTRACT)[1]])
    )
    assert rules_of(verdict) == [
        "chain.expired",
        "chain.expired",
        "profile.key-usage",
        "profile.domain-component",
        "identifier.invalid",
    ]
    assert [f.certificate.label for f in verdict.findings[:2] if f.certificate] == [
        "contract certificate",
        "sub-CA 2",
    ]
    assert codes.iso2_code(verdict) == "FAILED_CertificateExpired"


def test_expired_is_told_before_not_yet_valid(world: Any) -> None:
    early = sub(world, Role.MO_SUB2, not_before=world.now + timedelta(days=2))
    leaf = contract(world, not_after=world.now + timedelta(hours=1))
    verdict = verdict_of(
        asked(world, leaf=leaf, intermediates=[early, world.chain(Role.CONTRACT)[1]])
    )
    assert rules_of(verdict) == ["chain.expired", "chain.not-yet-valid"]


def test_a_verdict_goes_into_json(world: Any) -> None:
    import json

    verdict = verdict_of(expired_leaf(world))
    told = json.loads(json.dumps(verdict.as_dict()))
    assert told["accepted"] is False
    assert told["findings"][0]["rule"] == "chain.expired"
    assert told["findings"][0]["certificate"]["fingerprint"] == told["path"][0]["fingerprint"]
    assert [step["label"] for step in told["path"]][-1] == "anchor"


@pytest.mark.parametrize(
    ("case", "iso2", "iso20", "ocpp"),
    [
        (
            expired_leaf,
            "FAILED_CertificateExpired",
            "WARNING_CertificateExpired",
            "CertificateExpired",
        ),
        (
            leaf_not_yet_valid,
            "FAILED_CertificateExpired",
            "WARNING_CertificateNotYetValid",
            "CertificateExpired",
        ),
        (
            root_of_somebody_else,
            "FAILED_CertificateNotAllowedAtThisEVSE",
            "WARNING_eMSPUnknown",
            "CertChainError",
        ),
        (
            no_anchors,
            "FAILED_NoCertificateAvailable",
            "WARNING_eMSPUnknown",
            "NoCertificateAvailable",
        ),
        (
            missing_sub1,
            "FAILED_CertChainError",
            "WARNING_CertificateValidationError",
            "CertChainError",
        ),
        (
            another_emaid,
            "FAILED_CertChainError",
            "WARNING_CertificateValidationError",
            "CertChainError",
        ),
        (
            bad_leaf_signature,
            "FAILED_CertChainError",
            "WARNING_CertificateValidationError",
            "SignatureError",
        ),
    ],
)
def test_codes(world: Any, case: Any, iso2: str, iso20: str, ocpp: str) -> None:
    verdict = verdict_of(case(world))
    assert codes.iso2_code(verdict) == iso2
    assert codes.iso20_code(verdict) == iso20
    assert codes.ocpp_status(verdict) == ocpp
    error = codes.opcp_error(verdict)
    assert error is not None
    assert error.status == 400
    assert verdict.reason in error.message


def test_every_rule_that_refuses_has_a_code_in_every_protocol() -> None:
    refusing = {code for code, rule in RULES.items() if rule.severity is Severity.ERROR}
    for table in (codes.ISO15118_2, codes.ISO15118_20, codes.OCPP, codes.ISO15118_2_RISE_V2G):
        assert refusing <= set(table)


def test_ca_and_root_roles_are_judged_too(world: Any) -> None:
    sub2, sub1 = world.chain(Role.CONTRACT)
    accepted(verdict_of(asked(world, Role.MO_SUB2, leaf=sub2, intermediates=[sub1])))
    accepted(verdict_of(asked(world, Role.MO_SUB1, leaf=sub1, intermediates=[])))
    root = world.root(Role.CONTRACT)
    accepted(verdict_of(asked(world, Role.MO_ROOT, leaf=root, intermediates=[], anchors=[root])))
    stranger = verdict_of(
        asked(
            world,
            Role.MO_ROOT,
            leaf=root,
            intermediates=[],
            anchors=[world.root(Role.OEM_PROVISIONING)],
        )
    )
    assert rules_of(stranger) == ["chain.unknown-anchor"]
    not_root = verdict_of(asked(world, Role.MO_ROOT, leaf=sub1, intermediates=[]))
    assert rules_of(not_root)[0] == "chain.unknown-anchor"


def test_helpers_find_paths_and_what_to_ask(world: Any) -> None:
    leaf, (sub2, sub1) = world.leaf(Role.CONTRACT), world.chain(Role.CONTRACT)
    root = world.root(Role.CONTRACT)
    assert find_path(leaf, [sub1, sub2], [root]) == (leaf, sub2, sub1, root)
    assert find_path(leaf, [sub1], [root]) is None
    asked_ = certificates_to_check((leaf, sub2, sub1, root))
    assert [(c, i) for c, i, _ in asked_] == [(leaf, sub2), (sub2, sub1), (sub1, root)]
    assert {url for _, _, url in asked_} == {"http://127.0.0.1:8080/ocsp"}
    verdict = verdict_of(asked(world, leaf=leaf))
    assert certificates_to_check(verdict.path) == asked_


# -------------------------------------------------------------------- what others have made


def test_a_foreign_stacks_provisioning_chain_is_accepted(josev_oem: Path) -> None:
    """Its CN is OEMProvCert, which is no PCID: only the strict judge minds."""
    from datetime import UTC, datetime

    def load(name: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((josev_oem / f"{name}.pem").read_bytes())

    arguments: dict[str, Any] = {
        "leaf": load("oemLeafCert"),
        "intermediates": [load("oemSubCA2Cert"), load("oemSubCA1Cert")],
        "anchors": [Anchor(load("oemRootCACert"), Role.OEM_ROOT)],
        "role": Role.OEM_PROVISIONING,
        "edition": ISO2,
        "at": datetime(2026, 11, 22, 14, 30, tzinfo=UTC),
        "trust": OPERATOR_ROOTS,
        "identifier": "OEMProvCert",
    }
    accepted(verdict_of(arguments | {"identifiers_strict": False}))
    assert rules_of(verdict_of(arguments)) == ["identifier.invalid"]


# ------------------------------------------------------------------------- hostile bytes


def in_der(world: Any) -> list[bytes]:
    """Leaf, sub-CAs and root, the same at every call."""
    if not world.kept:
        role = Role.CONTRACT
        certificates = [world.leaf(role), *world.chain(role), world.root(role)]
        world.kept += [c.public_bytes(Encoding.DER) for c in certificates]
    return list(world.kept)


def judged(world: Any, chain: list[bytes], **more: Any) -> Verdict:
    leaf, *subs, root = chain
    return judge_der(
        leaf,
        subs,
        [root],
        role=Role.CONTRACT,
        edition=ISO2,
        at=world.now + timedelta(days=1),
        **more,
    )


def test_der_is_judged_like_certificates(world: Any) -> None:
    accepted(judged(world, in_der(world)))


@pytest.mark.parametrize("which", [0, 1, 2, 3])
@pytest.mark.parametrize("content", [b"", b"\x30\x00", b"\x30\x82", b"not a certificate"])
def test_bytes_that_are_no_certificate_are_a_finding(
    world: Any, which: int, content: bytes
) -> None:
    chain = in_der(world)
    chain[which] = content
    verdict = judged(world, chain)
    assert not verdict.accepted
    assert "certificate.unreadable" in rules_of(verdict)


@settings(max_examples=300)
@given(st.data())
def test_no_change_of_bytes_makes_the_walker_raise_or_accept(world: Any, data: Any) -> None:
    """One byte of one certificate below the anchor changed: never an exception, and never
    accepted, since a signature covers every byte. (An ECDSA signature of other bytes could be
    the same one only with its numbers encoded otherwise, which DER forbids.)
    """
    chain = in_der(world)
    which = data.draw(st.integers(0, 2))
    at = data.draw(st.integers(0, len(chain[which]) - 1))
    bit = data.draw(st.integers(1, 255))
    changed = bytearray(chain[which])
    changed[at] ^= bit
    chain[which] = bytes(changed)
    assert not judged(world, chain).accepted


@settings(max_examples=150)
@given(st.data())
def test_forged_contents_under_a_right_signature_do_not_make_it_raise(
    world: Any, data: Any
) -> None:
    """A CA that signs anything: bytes of the to-be-signed part changed before it signs."""
    tbs = bytearray(x509.load_der_x509_certificate(in_der(world)[0]).tbs_certificate_bytes)
    for _ in range(data.draw(st.integers(1, 4))):
        tbs[data.draw(st.integers(0, len(tbs) - 1))] = data.draw(st.integers(0, 255))
    signer = world.authorities[Role.MO_SUB2].signer
    chain = in_der(world)
    chain[0] = sealed(bytes(tbs), signer)
    verdict = judged(world, chain)
    assert verdict.accepted is not any(f.severity is Severity.ERROR for f in verdict.findings)
    assert verdict.as_dict()["reason"]


@given(st.lists(st.binary(max_size=60), min_size=2, max_size=4), st.lists(st.binary(max_size=40)))
def test_any_bytes_are_judged(world: Any, chain: list[bytes], evidence: list[bytes]) -> None:
    assert not judged(world, chain, revocation=evidence).accepted
