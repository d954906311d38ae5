"""The platform: one address and one token for the doors of the pools and CAs."""
