"""ISO 15118-2:2014: the tables and the typed messages.

from v2g.messages import iso2
iso2.V2G_Message(
    Header=iso2.MessageHeader(SessionID=bytes(8)),
    Body=iso2.Body(iso2.AuthorizationReq(GenChallenge=challenge, Id="id1")),
)
"""

from v2g.messages.iso2.body import *  # noqa: F403
from v2g.messages.iso2.datatypes import *  # noqa: F403
from v2g.messages.iso2.message import *  # noqa: F403
