"""The V2G root operator's interfaces."""
