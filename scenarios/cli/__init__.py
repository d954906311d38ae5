"""The command line, ``pnclab``.

One file per group of commands. Exit codes: 0 as expected, 1 not as expected, 2 wrong use.
Errors that a user can mend are one line on stderr, without a traceback.
"""

from .app import main

__all__ = ["main"]
