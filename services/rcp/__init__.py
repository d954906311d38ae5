"""The root certificate pool: which roots there are, for whom to decide whom to trust."""
