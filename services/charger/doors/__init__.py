"""The charger's interfaces."""
