"""Statistics that may be looked at as often as one likes. Pure; only numbers go in and out."""
