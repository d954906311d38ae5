"""EXI as ISO 15118 uses it."""

from v2g.exi.errors import EXIError
from v2g.exi.schema import Schema

__all__ = ["EXIError", "Schema"]
