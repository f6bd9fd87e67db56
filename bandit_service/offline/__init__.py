"""Policies on recordings and on logs, without a service: simulation, off-policy estimates."""
