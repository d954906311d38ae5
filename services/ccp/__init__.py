"""The contract certificate pool: signed contract data, waiting for cars."""
