"""A vehicle maker: builds cars, gives each a provisioning certificate, registers it."""
