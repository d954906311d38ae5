"""The frame of every ISO 15118-2:2014 message: V2G_Message with Header and Body, and the schema."""

from __future__ import annotations

from v2g.exi.schema import ComplexType, Namespace, Schema, element, ref
from v2g.messages import xmldsig
from v2g.messages.iso2.body import MSG_BODY, Body
from v2g.messages.iso2.datatypes import MSG_DATA_TYPES, Notification, session_id

MSG_HEADER = Namespace("urn:iso:15118:2:2013:MsgHeader", "v2gci_h", attributes_qualified=True)
MSG_DEF = Namespace("urn:iso:15118:2:2013:MsgDef", "v2gci_d", attributes_qualified=True)


class MessageHeader(ComplexType, ns=MSG_HEADER):
    """SessionID is one zero octet (or all zeros) before a session has been given out."""

    SessionID: bytes = element(session_id)
    Notification: Notification | None = element(Notification, default=None)
    Signature: xmldsig.Signature | None = element(ref(xmldsig.Signature), default=None)


class V2G_Message(ComplexType, ns=MSG_DEF, anonymous=True, element=True):
    Header: MessageHeader = element(MessageHeader)
    Body: Body = element(Body)


SCHEMA = Schema("iso2", (MSG_DEF, MSG_HEADER, MSG_BODY, MSG_DATA_TYPES, xmldsig.XMLDSIG))
