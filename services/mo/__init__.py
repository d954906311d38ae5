"""A mobility operator: contracts and their certificates, drivers' accounts, invoices."""
