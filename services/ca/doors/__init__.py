"""The interfaces of the CA component."""
