"""The methods of the benchmark `transfer`, as they run there: the only place for their numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from experiments.benchmarks.sample_efficiency import FNAS
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.baselines import bananas, evolution, gp, random
from fnas_jax.methods.baselines.config import Bananas, Evolution, Gp
from fnas_jax.methods.fnas import method as fnas
from fnas_jax.methods.tnas.config import Tnas

EVALUATIONS = 50
# TNAS by the product's defaults, and with one part changed; where none is named, the first two run.
VARIANTS = {
    "tnas": Tnas(),
    "tnas_joint": Tnas(meta="joint"),
    "tnas_untrained": Tnas(lr=0.0, lr_hyper=0.0),
    "tnas_one_hot": Tnas(graph_encoder=False),
    "tnas_shallow": Tnas(deep=False),
    "tnas_film": Tnas(film=True),
    "tnas_random_design": Tnas(design="random", start_warm=5),
    "tnas_design_of_5": Tnas(start_warm=5),
    "tnas_ucb": Tnas(acquisition="ucb"),
    "tnas_adapt_none": Tnas(adapt="none"),
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
