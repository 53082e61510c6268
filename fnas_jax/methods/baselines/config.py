"""The sections of the baselines that have any numbers: one dataclass each."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key

ACQUISITIONS = ("ei", "ucb")


@dataclass(frozen=True)
class Evolution:
    """Regularised evolution."""

    population: int = key(30, "architectures alive", 2, 10**6)
    sample: int = key(10, "candidates of each tournament", 1, 10**6)


@dataclass(frozen=True)
class Gp:
    """Bayesian optimisation with a Gaussian process."""

    acquisition: str = key("ei", "expected improvement or upper bound", choices=ACQUISITIONS)
    start: int = key(10, "random architectures before the model is asked", 1, 10**6)
    noise: float = key(0.05, "variance of noise over that of the function", 1e-4, 10.0)
    beta: float = key(1.0, "weight of the standard deviation in the upper bound", 0.0, 100.0)


@dataclass(frozen=True)
class Tpe:
    """Tree-structured Parzen estimators, of all decisions together; the defaults are BOHB's."""

    good: float = key(0.15, "share of the evaluated networks that are good ones", 0.01, 0.99)
    random: float = key(1 / 3, "share of proposals that are random", 0.0, 1.0)
    samples: int = key(64, "candidates of each proposal, drawn near good networks", 1, 10**5)
    widen: float = key(3.0, "how much wider than the density these are drawn", 1.0, 100.0)


@dataclass(frozen=True)
class Bananas:
    """An ensemble of networks with Thompson sampling."""

    start: int = key(10, "random architectures before the ensemble is asked", 1, 10**6)
    members: int = key(5, "networks of the ensemble", 2, 100)
    hidden: int = key(64, "units of each of their two layers", 4, 4096)
    steps: int = key(150, "steps of Adam in which they are trained for each batch", 1, 10**5)
    lr: float = key(0.01, "learning rate of these", 1e-6, 1.0)
    pool: int = key(768, "candidates among which it chooses", 32, 10**6)
