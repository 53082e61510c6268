"""Benchmarks; see each module's own text."""

import fnas_jax  # noqa: F401  # settings of the process, which have to come before JAX loads
