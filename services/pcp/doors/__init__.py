"""The provisioning certificate pool's interfaces."""
