"""A charge point operator: chargers, tariffs, sessions, charge detail records."""
