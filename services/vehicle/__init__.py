"""Vehicles: the EVCC on the cable, keys and contracts in the car, a driver's controls."""
