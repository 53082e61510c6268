"""The methods of the benchmark `transfer`, as they run there: the only place for their numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from experiments.benchmarks.sample_efficiency import FNAS
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.baselines import bananas, evolution, gp, random
from fnas_jax.methods.baselines.config import Bananas, Evolution, Gp
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.tnas import meta, networks
from fnas_jax.methods.tnas import method as tnas

EVALUATIONS = 50
NET = networks.Config(hidden=32)
META = meta.Config(iterations=60, tasks=1)
TNAS = tnas.Config(capacity=EVALUATIONS, net=NET, meta=META)


def changed(net: dict[str, Any] | None = None, **fields: Any) -> tnas.Config:
    """TNAS with other numbers."""
    config = TNAS._replace(**fields)
    return config._replace(net=config.net._replace(**(net or {})))


# TNAS, and with one part changed; only the first two are run where none is named.
VARIANTS = {
    "tnas": TNAS,
    "tnas_joint": changed(meta=META._replace(method="joint")),
    "tnas_untrained": changed(meta=META._replace(lr=0.0, lr_hyper=0.0)),
    "tnas_one_hot": changed({"graph": False}),
    "tnas_shallow": changed({"deep": False}),
    "tnas_film": changed({"film": True}),
    "tnas_random_design": changed(design="random", start_warm=5),
    "tnas_design_of_5": changed(start_warm=5),
    "tnas_ucb": changed(acquisition="ucb"),
    "tnas_adapt_none": changed(adapt="none"),
}


class Baseline(NamedTuple):
    """A method that needs no meta-learning."""

    make: Callable[..., SearchMethod]  # of the space, and of samples of a source task where `warm`
    iterations: int
    warm: bool = False


BASELINES = {
    "gp_ei": Baseline(lambda space: gp.make(space, Gp(), batch=1, capacity=150), 150),
    "fnas_warm": Baseline(lambda space, rows: fnas.make(space, FNAS, rows), 60, warm=True),
    "evolution": Baseline(lambda space: evolution.make(space, Evolution(), batch=1), 400),
    "random": Baseline(lambda space: random.make(space, batch=10), 200),
    "bananas": Baseline(lambda space: bananas.make(space, Bananas(), batch=1, capacity=100), 100),
}
DEFAULT = ("tnas", "tnas_joint", "gp_ei", "fnas_warm", "evolution", "random")
