"""The methods of the benchmark `transfer`, as they run there."""

from __future__ import annotations

from experiments.benchmarks.presets import ABLATIONS, PRESETS, Preset
from fnas_jax.methods.baselines import bananas, random
from fnas_jax.methods.baselines.config import Bananas
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


BASELINES = {
    "gp_ei": PRESETS["gp_ei"],
    "gp_warm": PRESETS["gp_warm"],
    "gp_warm_own": PRESETS["gp_warm_own"],
    "gp_ei_no_features": ABLATIONS["gp_ei_no_features"],
    "gp_warm_features": ABLATIONS["gp_warm_features"],
    "gp_warm_own_features": ABLATIONS["gp_warm_own_features"],
    "fnas_warm_no_features": ABLATIONS["fnas_warm_no_features"],
    "fnas_warm": PRESETS["fnas_warm"],
    "evolution": PRESETS["evolution"]._replace(iterations=400),
    "random": Preset(lambda space: random.make(space, batch=10), 200),
    "bananas": Preset(lambda space: bananas.make(space, Bananas(), batch=1, capacity=100), 100),
}
DEFAULT = (
    *("tnas", "tnas_joint", "gp_ei", "gp_warm", "gp_warm_own", "fnas_warm"),
    *("evolution", "random"),
)
