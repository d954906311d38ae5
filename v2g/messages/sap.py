"""supportedAppProtocol: vehicle and charger agree on an edition (ISO 15118-2, 8.2).

The schema is shared by all editions. Its local elements stand in no namespace.
"""

from __future__ import annotations

from enum import StrEnum

from v2g.exi.schema import ComplexType, Namespace, Schema, element, elements
from v2g.exi.simple import UNSIGNED_INT, Enumeration, Integer, String

APP_PROTOCOL = Namespace("urn:iso:15118:2:2010:AppProtocol", "v2gci_p", qualified=False)


class ResponseCode(StrEnum):
    OK_SuccessfulNegotiation = "OK_SuccessfulNegotiation"
    OK_SuccessfulNegotiationWithMinorDeviation = "OK_SuccessfulNegotiationWithMinorDeviation"
    Failed_NoNegotiation = "Failed_NoNegotiation"


_id = APP_PROTOCOL.simple(Integer("idType", low=0, high=255))
APP_PROTOCOL.simple(String("protocolNameType", max_length=30))  # declared there, used nowhere
_protocol_namespace = APP_PROTOCOL.simple(
    String("protocolNamespaceType", max_length=100, collapse=True)
)
_priority = APP_PROTOCOL.simple(Integer("priorityType", low=1, high=20))
_response_code = APP_PROTOCOL.simple(Enumeration("responseCodeType", ResponseCode))


class AppProtocol(ComplexType, ns=APP_PROTOCOL):
    """One protocol that the vehicle speaks; priority 1 is the highest."""

    ProtocolNamespace: str = element(_protocol_namespace)
    VersionNumberMajor: int = element(UNSIGNED_INT)
    VersionNumberMinor: int = element(UNSIGNED_INT)
    SchemaID: int = element(_id)
    Priority: int = element(_priority)


class supportedAppProtocolReq(ComplexType, ns=APP_PROTOCOL, anonymous=True, element=True):
    AppProtocol: tuple[AppProtocol, ...] = elements(AppProtocol, max=20)


class supportedAppProtocolRes(ComplexType, ns=APP_PROTOCOL, anonymous=True, element=True):
    """SchemaID names the entry of the request that was chosen; absent on failure."""

    ResponseCode: ResponseCode = element(_response_code)
    SchemaID: int | None = element(_id, default=None)


SCHEMA = Schema("sap", (APP_PROTOCOL,))
