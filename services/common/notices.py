"""What a pool has to tell the subscribers of a platform: facts, written with what they tell.

A notice is an event of the party's stream with the mark :data:`MARK`, written in the transaction
of the change itself, so that there is none without the other. A platform reads them in their
order by GET /notices (:mod:`.doors.notices`) and makes webhooks of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .events import Event

if TYPE_CHECKING:
    from .party import Party

MARK = "notice:webhook"


def notice(party: Party, fact: str, summary: str, **payload: Any) -> Event:
    """A stamped event for :meth:`~.database.Database.tell`; ``fact`` is a row of
    :data:`services.platform.webhooks.FACTS`."""
    return party.recorder.stamped(
        Event(
            kind="state",
            name=fact,
            sender=party.config.name,
            receiver="subscribers",
            summary=summary,
            data={"fact": fact, **payload},
            marks=(MARK,),
        )
    )
