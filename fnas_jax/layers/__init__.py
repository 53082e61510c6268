"""Layers: what one is, its parameters and cost, and the backends that compute it."""
