"""What to write into the configuration of stacks that people have, to point them here."""

from __future__ import annotations

import json
from dataclasses import dataclass


@dataclass(frozen=True)
class Login:
    """The address, the client's id and secret, and the CA file of the address where it has one."""

    base: str
    client: str
    secret: str
    ca: str | None = None


def snippets(login: Login) -> list[tuple[str, str]]:
    """For whom, and the text."""
    return [
        ("MaEVe CSMS: config.toml of the manager", _maeve(login)),
        ("CitrineOS: the server's system configuration", _citrineos(login)),
        ("EVerest: certificates, EvseSecurity and EvseV2G", _everest(login)),
        ("Josev: certificates and .env", _josev(login)),
    ]


def _maeve(login: Login) -> str:
    def auth(indent: str) -> str:
        return "\n".join(
            f"{indent}{line}"
            for line in (
                'opcp.auth.type = "oauth2_token"',
                f'opcp.auth.oauth2_token.url = "{login.base}/oauth/token"',
                f'opcp.auth.oauth2_token.client_id = "{login.client}"',
                f'opcp.auth.oauth2_token.client_secret = "{login.secret}"',
            )
        )

    return f"""\
[contract_cert_validator]
type = "ocsp"
[contract_cert_validator.ocsp.root_certs]
type = "opcp"
opcp.url = "{login.base}"
opcp.ttl = "1h"
{auth("")}

[contract_cert_provider]
type = "opcp"
opcp.url = "{login.base}"
{auth("")}

[charge_station_cert_provider]
type = "opcp"
opcp.url = "{login.base}"
{auth("")}

# Its OCPP schemas take 5600 characters of exiResponse: `pnclab up --certificates compact`.
# Without a login, in place of the four lines of auth:
#   opcp.auth.type = "hubject_test_token"
#   opcp.auth.hubject_test_token.url = "{login.base}/test-token?client={login.client}"
"""


def _citrineos(login: Login) -> str:
    settings = {
        "baseUrl": login.base,
        "tokenUrl": f"{login.base}/oauth/token",
        "clientId": login.client,
        "clientSecret": login.secret,
    }
    name = "CITRINEOS_util_certificateAuthority_v2gCA_hubject"
    document = {
        "util": {"certificateAuthority": {"v2gCA": {"name": "hubject", "hubject": settings}}}
    }
    shown = json.dumps(document, indent=2)
    variables = "\n".join(f"{name}_{key}={value}" for key, value in settings.items())
    return (
        f"{shown}\n\nor by environment variables:\n\n{variables}\n\n"
        "Its OCPP schemas take 5600 characters of exiResponse: pnclab up --certificates compact\n"
    )


def _everest(login: Login) -> str:
    return f"""\
# Roots, sub-CAs, a charger's certificate with its key, a contract: in the names it reads.
pnclab pki export --layout everest out
cp -r out/ca out/client /path/to/everest/etc/everest/certs/

# Its V2G requests go to its CSMS by OCPP (SignCertificate, Get15118EVCertificate,
# GetCertificateStatus); point the CSMS here: {login.base}
# A real charger asks as its SeccId, cp001 for instance:
pnclab up --policy secc_names=free
"""


def _josev(login: Login) -> str:
    return f"""\
pnclab pki export --layout josev out
export PKI_PATH=$PWD/out
# The key password of the export is the one that Josev expects; out/README.md says what is where.
# The platform, for a backend behind it: {login.base}
"""
