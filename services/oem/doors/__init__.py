"""The vehicle maker's interfaces."""
