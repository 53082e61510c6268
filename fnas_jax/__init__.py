"""Fast neural architecture search in JAX."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Before anything loads LAPACK: on small matrices the threads of OpenBLAS mostly wait for each
# other (twenty times slower on two busy cores), and may wait for ever beside those of XLA.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
__all__ = ["Model", "Result", "UserError", "__version__", "load", "resume", "search"]

if TYPE_CHECKING:
    from fnas_jax.api import resume, search
    from fnas_jax.core.types import UserError
    from fnas_jax.results import Result
    from fnas_jax.ship.model import Model, load

# Names of the public interface, and the modules that have them; all else may change.
_PUBLIC = {
    "search": "fnas_jax.api",
    "resume": "fnas_jax.api",
    "Result": "fnas_jax.results",
    "load": "fnas_jax.ship.model",
    "Model": "fnas_jax.ship.model",
    "UserError": "fnas_jax.core.types",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used, so that `--help` is quick."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
