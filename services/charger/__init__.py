"""A charger: the SECC on the cable, a client of its operator behind."""
