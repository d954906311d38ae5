"""What a user can mend, as two kinds of exceptions; the command line turns them into one line.

Nothing heavy is imported here, so that every module can name its errors by these.
"""


class WrongUseError(Exception):
    """The user asked for something that makes no sense (exit code 2)."""


class NotAsExpectedError(Exception):
    """What was asked for did not come out as it should (exit code 1)."""


class StartError(NotAsExpectedError):
    """A party could not start; the message says which and why."""
