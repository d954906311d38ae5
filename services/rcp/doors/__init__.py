"""The root pool's interfaces."""
