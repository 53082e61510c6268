"""The section `tnas`: the kernel, how it is learnt from other tasks, the search that uses it."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from fnas_jax.core.config import key
from fnas_jax.core.types import UserError


@dataclass(frozen=True)
class Tnas:
    """Bayesian optimisation with a kernel meta-learnt on other tasks."""

    transfer: bool = key(True, "learn from other tasks in the knowledge store")
    meta: str = key("reptile", "how the kernel is learnt from them", choices=("reptile", "joint"))
    iterations: int = key(60, "iterations of this meta-learning", 1, 10**6)
    tasks: int = key(2, "tasks picked in each of them, at most as many as there are", 1, 1024)
    inner: int = key(5, "steps on each of these", 1, 1000)
    batch: int = key(48, "rows of each step", 4, 4096)
    outer: float = key(0.5, "reptile: fraction of the way taken at first; falls to 0", 1e-4, 1.0)
    lr: float = key(1e-3, "learning rate of encoders and fusion", 1e-7, 1.0)
    lr_hyper: float = key(1e-2, "learning rate of the kernel's hyper-parameters", 1e-7, 1.0)
    support: int = key(512, "rows of other tasks that predictions are conditioned on", 16, 8192)
    hidden: int = key(32, "units of the encoders, a multiple of 4", 4, 4096)
    code: int = key(16, "numbers of an architecture's and of a data set's code", 2, 1024)
    fusion: tuple[int, ...] = key(
        (128, 128, 64), "units of the layers that join both codes", 1, 4096
    )
    film: bool = key(False, "the data set modulates these layers instead of standing beside")
    graph_encoder: bool = key(True, "encode graphs; False: one-hot decisions")
    data_encoder: bool = key(True, "tell tasks apart by their data")
    deep: bool = key(True, "learnt part of the kernel; False: Hamming distance of the nodes")
    features: str = key(
        "random_conv", "what the data set encoder sees", choices=("random_conv", "pixels")
    )
    images: int = key(20, "images of each class that it sees", 1, 20)
    task_vector: str = key(
        "", "numbers that describe a task without images, joined by commas; kept for later searches"
    )
    target: str = key(
        "rank", "scores: of ranks, or standardised rewards", choices=("rank", "standard")
    )
    start: int = key(5, "architectures before the model is asked, without a history", 1, 10**4)
    start_warm: int = key(1, "the same with a history", 1, 10**4)
    design: str = key(
        "rank", "these: the best of other tasks, or random", choices=("rank", "random")
    )
    acquisition: str = key("ei", "log expected improvement or upper bound", choices=("ei", "ucb"))
    beta: float = key(1.0, "weight of the standard deviation in the upper bound", 0.0, 100.0)
    adapt: str = key(
        "gp",
        "fitted to the task's own rows: nothing, hyper-parameters, all weights",
        choices=("none", "gp", "all"),
    )
    adapt_steps: int = key(5, "steps of adapting all weights", 1, 1000)
    trust: float = key(0.9, "probability, before any evaluation, that history helps", 0.01, 0.99)
    pool: int = key(512, "candidates in spaces too large to list", 32, 10**6)


def check(config: Tnas) -> None:
    """Raises UserError for an unknown option."""
    for field in dataclasses.fields(config):
        value, allowed = getattr(config, field.name), field.metadata["key"].choices
        if allowed and value not in allowed:
            raise UserError(f"{field.name} {value!r} is none of {', '.join(allowed)}")
