"""Double precision for a while."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import jax
import jax.experimental


def float64() -> AbstractContextManager[Any]:
    """The context in which JAX has numbers of eight bytes."""
    place: Any = jax if hasattr(jax, "enable_x64") else jax.experimental  # JAX moved it
    found: AbstractContextManager[Any] = place.enable_x64(True)
    return found


def on_cpu() -> AbstractContextManager[Any]:
    """The context in which JAX computes on a CPU, where it has one: some devices lack float64."""
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names others alone
        return jax.default_device(None)
