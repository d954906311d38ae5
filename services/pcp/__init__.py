"""The provisioning certificate pool: which car has which provisioning certificate."""
