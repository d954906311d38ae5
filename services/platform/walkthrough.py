"""A first walk through the doors, as a shell script: curl, openssl, and nothing else but one
CertificateInstallationReq, which ``pnclab exi`` signs in the place of a car."""

from __future__ import annotations

from dataclasses import dataclass

from services.ecosystem import Client


@dataclass(frozen=True)
class Walk:
    """At which address, and as whom."""

    base: str
    cpo: Client
    oem: Client
    mo: Client
    ca: str | None = None


def walkthrough(walk: Walk) -> str:
    """The script. It works in a new folder, which it names, and ends at the first failure."""
    curl = "curl -sS --fail-with-body" + (f" --cacert '{walk.ca}'" if walk.ca else "")
    return _SCRIPT.format(
        base=walk.base,
        curl=curl,
        cpo=walk.cpo.id,
        cpo_secret=walk.cpo.secret,
        oem=walk.oem.id,
        oem_secret=walk.oem.secret,
        mo=walk.mo.id,
        mo_secret=walk.mo.secret,
        operator=walk.cpo.scope_id,
        wmi=walk.oem.scope_id,
        provider=walk.mo.scope_id,
    )


_SCRIPT = r"""#!/bin/sh
# A first walk through the doors of {base}
set -eu
BASE={base}
cd "$(mktemp -d)" && echo "Files: $PWD"

call() {{ if {curl} -o answer "$@"; then cat answer; else cat answer >&2; exit 1; fi; }}
# token CLIENT SECRET
token() {{ call $BASE/oauth/token -d grant_type=client_credentials \
    -d client_id=$1 -d client_secret=$2 |
    sed 's/.*"access_token":"\([^"]*\)".*/\1/'; }}
# field NAME: the text of that field in JSON
field() {{ tr -d '\n' | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }}
pem() {{ base64 -d | openssl x509 -inform DER; }}
OPERATOR="Authorization: Bearer $(token {cpo} {cpo_secret})"
MAKER="Authorization: Bearer $(token {oem} {oem_secret})"
PROVIDER="Authorization: Bearer $(token {mo} {mo_secret})"
NOW=$(date +%s)

echo "1. The V2G root"
call "$BASE/v1/root/rootCerts?rootType=v2g" -H "$OPERATOR" |
    field caCertificate | pem > v2g-root.pem
openssl x509 -in v2g-root.pem -noout -subject

echo "2. A charger's certificate, by EST"
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout secc.key \
    -subj "/CN={operator}E$NOW" -outform DER 2> /dev/null | base64 > secc.csr
call $BASE/.well-known/est/cpo/simpleenroll/ISO15118-2 -H "$OPERATOR" \
    -H 'Content-Type: application/pkcs10' --data-binary @secc.csr |
    base64 -d | openssl pkcs7 -inform DER -print_certs > secc.pem
call $BASE/.well-known/est/cpo/cacerts -H "$OPERATOR" |
    base64 -d | openssl pkcs7 -inform DER -print_certs > cpo-cas.pem
openssl verify -CAfile cpo-cas.pem secc.pem

echo "3. A car: its key, its provisioning certificate, its entry in the pool"
PCID={wmi}0WALK$NOW
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout car.key \
    -subj "/CN=$PCID" -outform DER 2> /dev/null | base64 > car.csr
call $BASE/.well-known/est/oem/simpleenroll/ISO15118-2 -H "$MAKER" \
    -H 'Content-Type: application/pkcs10' --data-binary @car.csr |
    base64 -d | openssl pkcs7 -inform DER -print_certs | openssl x509 > car.pem
call $BASE/.well-known/est/oem/cacerts -H "$MAKER" |
    base64 -d | openssl pkcs7 -inform DER -print_certs > oem-cas.pem
# nth FILE N: the N-th certificate of a file
nth() {{ awk -v n="$2" '/BEGIN CERT/ {{c++}} c == n' "$1" | openssl x509; }}
der() {{ openssl x509 -outform DER | base64 | tr -d '\n'; }}
ROOT_KEY=$(openssl x509 -in v2g-root.pem -noout -ext subjectKeyIdentifier | tail -1 | tr -d ' ')
cat > car.json << END
{{"vehicleCertificate": "$(der < car.pem)",
 "subCA2Certificate": "$(nth oem-cas.pem 1 | der)",
 "subCA1Certificate": "$(nth oem-cas.pem 2 | der)",
 "v2gRootAuthorityKeyIdentifiers": ["$ROOT_KEY"],
 "xsdMsgDefNamespace": "urn:iso:15118:2:2013:MsgDef"}}
END
call -X PUT $BASE/v1/oem/provCerts -H "$MAKER" -H 'Content-Type: application/json' \
    -d @car.json > /dev/null
call $BASE/v1/oem/provCerts/lookupVehicle/$PCID -H "$PROVIDER" > /dev/null
echo "$PCID is registered"

echo "4. A contract for it"
EMAID={provider}W$(echo $NOW | cut -c3-10)
cat > contract.json << END
{{"emaid": "$EMAID", "pcid": "$PCID",
 "contractBegins": "2020-01-01T00:00:00Z", "contractEnds": "2090-01-01T00:00:00Z",
 "xsdMsgDefNamespace": "urn:iso:15118:2:2013:MsgDef"}}
END
call -X PUT $BASE/v1/cps/generate/signedContractData -H "$PROVIDER" \
    -H 'Content-Type: application/json' -d @contract.json
echo "$EMAID is in the contract pool"

echo "5. Its bundle, for the car's CertificateInstallationReq"
${{PNCLAB:-pnclab}} exi installation-request --certificate car.pem --key car.key \
    --root v2g-root.pem --form base64 --out request.b64
cat > request.json << END
{{"certificateInstallationReq": "$(tr -d '\n' < request.b64)",
 "xsdMsgDefNamespace": "urn:iso:15118:2:2013:MsgDef"}}
END
call $BASE/v1/ccp/signedContractData -H "$OPERATOR" -H 'Content-Type: application/json' \
    -d @request.json > bundle.json
field certificateInstallationRes < bundle.json | base64 -d > response.exi
echo "$(wc -c < response.exi) bytes of EXI for $(field emaid < bundle.json)"

echo "6. Its status, by OCSP"
call $BASE/v1/ccp/lookupContract/$EMAID -H "$PROVIDER" |
    field contractCertificate | pem > contract.pem
call $BASE/.well-known/est/mo/cacerts -H "$PROVIDER" |
    base64 -d | openssl pkcs7 -inform DER -print_certs > mo-cas.pem
nth mo-cas.pem 1 > mo-issuer.pem
status() {{ openssl ocsp -issuer mo-issuer.pem -cert contract.pem -CAfile mo-cas.pem \
    -url "$(openssl x509 -in contract.pem -noout -ocsp_uri)"; }}
status

echo "7. The contract is revoked, and asked about again"
call -X DELETE $BASE/v1/ccp/signedContractData/$EMAID -H "$PROVIDER" > /dev/null
status
"""
