"""The picture: a whole run as one HTML page, from its events alone.

:func:`render` is all there is. The page needs nothing but itself: styles, drawings and
the few lines of script are in it, nothing is loaded, and it can be read without script.

Theory of operation: :mod:`.hops` makes a tree of a step's events, :mod:`.sequence` draws
it; :mod:`.cast`, :mod:`.chains`, :mod:`.visits` and :mod:`.invoice` make the other views,
:mod:`.decoded` opens messages up; :mod:`.page` puts all views together. Those modules
compute values; the templates only place them. Everything from an event is escaped there.
"""

from .page import render

__all__ = ["render"]
