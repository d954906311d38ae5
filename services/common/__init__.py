"""The plumbing that every party shares: settings, database, clock, authentication, errors, events."""
