"""The parties of the ecosystem, one FastAPI application each."""
