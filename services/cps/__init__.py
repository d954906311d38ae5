"""The certificate provisioning service: signs contract data so that cars can trust it."""
