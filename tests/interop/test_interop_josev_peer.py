"""The bridge to Josev itself: it answers, it says what went wrong, and it leaves nothing behind.

The keys and certificates here are made by Josev's own scripts, so that these tests need nothing
of pnclab: what is proved is that the instrument measures, before anything is measured with it.
"""

import base64
import subprocess
from pathlib import Path

import pytest
from josev import JosevError, JosevMissingError, JosevPeer, find_python

PASSWORD = "12345"


class JosevFiles:
    """The certificates and keys that Josev's create_certs.sh wrote."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "iso15118_2"

    def certificate(self, name: str) -> bytes:
        return (self.folder / "certs" / f"{name}.der").read_bytes()

    def key_pem(self, name: str) -> str:
        """The key, decrypted."""
        command = ["openssl", "pkcs8", "-topk8", "-nocrypt", "-passin", f"pass:{PASSWORD}"]
        return subprocess.run(
            [*command, "-in", str(self.folder / "private_keys" / f"{name}.key")],
            check=True,
            capture_output=True,
            text=True,
        ).stdout


@pytest.fixture(scope="module")
def files(josev: JosevPeer, tmp_path_factory: pytest.TempPathFactory) -> JosevFiles:
    folder = tmp_path_factory.mktemp("josev")
    made = josev.create_certificates(folder, PASSWORD)
    assert len([f for f in made["files"] if f.endswith("Cert.pem")]) == 15
    return JosevFiles(folder)


def test_versions_are_the_pinned_ones(josev: JosevPeer) -> None:
    pins = (Path(__file__).parent / "josev-requirements.txt").read_text().splitlines()
    pinned = dict(line.split("==") for line in pins if "==" in line)
    versions = josev.versions()
    assert versions.pop("python")
    assert versions == {name: pinned[name] for name in versions}


def test_what_goes_wrong_is_said(josev: JosevPeer) -> None:
    with pytest.raises(JosevError, match="SAXParseException"):
        josev.encode("<not closed", "iso2")
    with pytest.raises(JosevError, match="Premature EOS"):
        josev.decode(b"\x80\x98", "iso2")
    with pytest.raises(JosevError, match="nonsense"):
        josev.ask("nonsense")
    with pytest.raises(JosevError, match="missing a required argument: 'xml'"):
        josev.ask("encode", schema="iso2")
    # and it still answers
    assert josev.versions()["iso15118"]


def test_timeout_ends_the_peer(josev: JosevPeer) -> None:
    with JosevPeer(josev.python) as peer:
        process = peer._process
        assert process is not None
        with pytest.raises(JosevError, match=r"no answer within 0\.01 s"):
            peer.ask("versions", timeout=0.01)
        assert process.poll() is not None
        with pytest.raises(JosevError, match="peer ended"):
            peer.versions()


def test_no_environment_says_how_to_make_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PNCLAB_JOSEV", "/nowhere/python")
    with pytest.raises(JosevMissingError, match="PNCLAB_JOSEV is /nowhere/python"):
        find_python()


def test_installation_request_is_signed_by_the_oem_key(josev: JosevPeer, files: JosevFiles) -> None:
    certificate = files.certificate("oemLeafCert")
    request = josev.certificate_installation_request(
        certificate,
        files.key_pem("oemLeaf"),
        [files.certificate("v2gRootCACert")],
        session_id="0102030405060708",
    )
    assert josev.verify(request, certificate)
    assert not josev.verify(request, files.certificate("contractLeafCert"))
    xml = josev.decode(request, "iso2")
    assert "0102030405060708" in xml
    assert ">12345<" in xml  # the serial number of the root that create_certs.sh makes


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def chain(files: JosevFiles, tag: str, attribute: str, *names: str) -> str:
    leaf, *subs = (f"<t:Certificate>{b64(files.certificate(n))}</t:Certificate>" for n in names)
    subs_xml = f"<t:SubCertificates>{''.join(subs)}</t:SubCertificates>"
    return f"<b:{tag}{attribute}>{leaf}{subs_xml}</b:{tag}>"


def installation_response(josev: JosevPeer, files: JosevFiles, code: str = "OK") -> bytes:
    """A CertificateInstallationRes as Josev's SECC makes it, before it is signed."""
    dh_public_key, encrypted = josev.encrypt_contract_key(
        files.certificate("oemLeafCert"), files.key_pem("contractLeaf")
    )
    cps = ("cpsLeafCert", "cpsSubCA2Cert", "cpsSubCA1Cert")
    contract = ("contractLeafCert", "moSubCA2Cert", "moSubCA1Cert")
    body = (
        f"<b:ResponseCode>{code}</b:ResponseCode>"
        + chain(files, "SAProvisioningCertificateChain", "", *cps)
        + chain(files, "ContractSignatureCertChain", ' t:Id="id1"', *contract)
        + '<b:ContractSignatureEncryptedPrivateKey t:Id="id2">'
        + b64(encrypted)
        + "</b:ContractSignatureEncryptedPrivateKey>"
        + f'<b:DHpublickey t:Id="id3">{b64(dh_public_key)}</b:DHpublickey>'
        + '<b:eMAID t:Id="id4">UKSWI123456791A</b:eMAID>'
    )
    return josev.encode(
        '<d:V2G_Message xmlns:d="urn:iso:15118:2:2013:MsgDef"'
        ' xmlns:h="urn:iso:15118:2:2013:MsgHeader" xmlns:b="urn:iso:15118:2:2013:MsgBody"'
        ' xmlns:t="urn:iso:15118:2:2013:MsgDataTypes">'
        "<d:Header><h:SessionID>01</h:SessionID></d:Header><d:Body>"
        f"<b:CertificateInstallationRes>{body}</b:CertificateInstallationRes>"
        "</d:Body></d:V2G_Message>",
        "iso2",
    )


def test_installation_response_of_its_own_is_accepted(josev: JosevPeer, files: JosevFiles) -> None:
    response = josev.sign(installation_response(josev, files), files.key_pem("cpsLeaf"))
    root = files.certificate("v2gRootCACert")
    result = josev.check_certificate_installation_response(response, files.key_pem("oemLeaf"), root)
    assert result["accepted"], result
    assert result["contract_cn"] == result["emaid"] == "UKSWI123456791A"
    assert result["contract_chain"][0] == files.certificate("contractLeafCert").hex()


def test_each_step_of_the_check_can_fail(josev: JosevPeer, files: JosevFiles) -> None:
    """A check that cannot say no proves nothing: one fault for each of its steps."""
    oem_key, cps_key = files.key_pem("oemLeaf"), files.key_pem("cpsLeaf")
    root = files.certificate("v2gRootCACert")
    check = josev.check_certificate_installation_response

    unsigned = installation_response(josev, files)
    result = check(unsigned, oem_key, root)
    assert not result["accepted"]
    assert (result["signature"], result["chain"]) == (False, True)

    foreign = josev.sign(unsigned, files.key_pem("moSubCA2"))
    result = check(foreign, oem_key, root)
    assert not result["accepted"]
    assert not result["signature"]

    signed = josev.sign(unsigned, cps_key)
    result = check(signed, oem_key, files.certificate("oemRootCACert"))
    assert not result["accepted"]
    assert not result["chain"]
    assert "CertSignatureError" in result["chain_error"]

    result = check(signed, files.key_pem("contractLeaf"), root)
    assert not result["accepted"]
    assert (result["signature"], result["key_matches_certificate"]) == (True, False)

    failed = josev.sign(installation_response(josev, files, code="FAILED"), cps_key)
    assert not check(failed, oem_key, root)["accepted"]
