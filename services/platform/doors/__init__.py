"""The platform's interfaces."""
