"""The mobility operator's interfaces."""
