"""The contract pool's interfaces."""
