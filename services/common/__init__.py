"""The plumbing of every party: database, clock, keys, tokens, errors, events."""
