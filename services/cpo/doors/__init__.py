"""The charge point operator's interfaces."""
