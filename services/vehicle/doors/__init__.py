"""The vehicles' interfaces."""
