"""Josev reads what ``pnclab pki export --layout josev`` wrote, by its own paths and code."""

import asyncio
import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from josev import JosevMissingError, find_python

from pki.profiles import STYLES
from scenarios.exporting import Wanted, gather
from scenarios.lab import Lab
from scenarios.layouts import LAYOUTS, write
from services.ecosystem import load
from services.serve import running

# Runs in Josev's environment: loads every key with its password, verifies the chains, and makes
# the TLS context of its charger.
READS = """
import json, logging, sys
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_der_x509_certificate
from iso15118.shared import settings
settings.load_shared_settings()
from iso15118.shared import security as s

def key(name, password):
    return s.load_priv_key(getattr(s.KeyPath, name), s.KeyEncoding.PEM,
                           getattr(s.KeyPasswordPath, password))

def cert(name):
    return s.load_cert(getattr(s.CertPath, name))

found = {}
for leaf, name, password, above, root in (
    ("SECC_LEAF_DER", "SECC_LEAF_PEM", "SECC_LEAF_KEY_PASSWORD",
     ("CPO_SUB_CA2_DER", "CPO_SUB_CA1_DER"), "V2G_ROOT_DER"),
    ("CONTRACT_LEAF_DER", "CONTRACT_LEAF_PEM", "CONTRACT_LEAF_KEY_PASSWORD",
     ("MO_SUB_CA2_DER", "MO_SUB_CA1_DER"), "MO_ROOT_DER"),
    ("OEM_LEAF_DER", "OEM_LEAF_PEM", "OEM_LEAF_KEY_PASSWORD",
     ("OEM_SUB_CA2_DER", "OEM_SUB_CA1_DER"), "OEM_ROOT_DER"),
    ("CPS_LEAF_DER", "CPS_LEAF_PEM", "CPS_LEAF_KEY_PASSWORD",
     ("CPS_SUB_CA2_DER", "CPS_SUB_CA1_DER"), "V2G_ROOT_DER"),
):
    s.verify_certs(cert(leaf), [cert(one) for one in above], cert(root))
    mine = load_der_x509_certificate(cert(leaf))
    found[leaf] = mine.public_key() == key(name, password).public_key()
found["emaid"] = s.get_cert_cn(cert("CONTRACT_LEAF_DER"))
found["tls"] = s.get_ssl_context(True) is not None
print(json.dumps(found))
"""


@pytest.mark.parametrize("style", STYLES)
def test_josev_loads_the_folder(tmp_path: Path, style: str) -> None:
    """With compact certificates too."""
    try:
        python = find_python()
    except JosevMissingError as missing:
        pytest.skip(str(missing))
    ecosystem = replace(load(data=tmp_path / "data").on_free_ports(), certificates=style)

    async def work():
        async with running(ecosystem), Lab(ecosystem) as lab:
            return await gather(lab, Wanted())

    bench = asyncio.run(work())
    write(bench, LAYOUTS["josev"], tmp_path / "pki", LAYOUTS["josev"].password)
    done = subprocess.run(
        [str(python), "-I", "-c", READS],
        env={"PKI_PATH": str(tmp_path / "pki"), "PATH": "/usr/bin:/bin"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found.pop("emaid").replace("-", "") == bench.facts["EMAID"]
    assert all(found.values()), found
