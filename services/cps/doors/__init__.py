"""The provisioning service's interfaces."""
