"""Layers: what one is, its parameters, and the backends that compute it."""
