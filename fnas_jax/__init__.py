"""Fast neural architecture search in JAX."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

# Before anything loads LAPACK: on small matrices the threads of OpenBLAS mostly wait for each
# other (twenty times slower on two busy cores), and may wait for ever beside those of XLA.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
__all__ = [
    "Model",
    "Result",
    "UserError",
    "__version__",
    "categorical",
    "from_function",
    "interfaces",
    "layered",
    "load",
    "plots",
    "resume",
    "search",
]

if TYPE_CHECKING:
    from fnas_jax import interfaces, plots
    from fnas_jax.api import resume, search
    from fnas_jax.core.types import UserError
    from fnas_jax.results import Result
    from fnas_jax.ship.model import Model, load
    from fnas_jax.spaces import layered
    from fnas_jax.spaces.categorical import choices as categorical
    from fnas_jax.tasks.function import from_function

# Names of the public interface, and where they are; all else may change.
_PUBLIC = {
    "search": "fnas_jax.api:search",
    "resume": "fnas_jax.api:resume",
    "Result": "fnas_jax.results:Result",
    "load": "fnas_jax.ship.model:load",
    "Model": "fnas_jax.ship.model:Model",
    "UserError": "fnas_jax.core.types:UserError",
    "categorical": "fnas_jax.spaces.categorical:choices",
    "layered": "fnas_jax.spaces.layered:",
    "interfaces": "fnas_jax.interfaces:",
    "plots": "fnas_jax.plots:",
    "from_function": "fnas_jax.tasks.function:from_function",
}


def __getattr__(name: str) -> Any:
    """The public names, imported when they are first used, so that `--help` is quick."""
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, _, attribute = _PUBLIC[name].partition(":")
    found = importlib.import_module(module)
    return getattr(found, attribute) if attribute else found


def __dir__() -> list[str]:
    return __all__
