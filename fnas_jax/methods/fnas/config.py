"""The sections `fnas`, `uac` and `aeb`: what is trained, predicted, imagined and replayed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from fnas_jax.core.config import key
from fnas_jax.methods.rl.config import Ppo

UNCERTAINTIES = ("gp", "ensemble", "residual")


@dataclass(frozen=True)
class Fnas:
    """Acquired architectures, imagination, and what other tasks teach."""

    verify: int = key(1, "most promising architectures trained per time", 0, 65536)
    verify_every: int = key(1, "iterations between two such times", 1, 10**6)
    optimism: float = key(0.5, "networks: mean weight of U when these are chosen", 0.0, 100.0)
    pool: int = key(
        384, "candidates among which they are looked for, in spaces of more than 20,000", 32, 10**6
    )
    imagination: int = key(2, "controller updates on predictions alone per iteration", 0, 1000)
    kl_max: float = key(0.1, "nats that these may move the controller", 0.0, 100.0)
    transfer: bool = key(True, "start the critic from other tasks in the knowledge store")
    foreign_rows: int = key(500, "rows of other tasks used at most", 20, 10**4)
    shift: float = key(
        0.3, "networks: variance of what sets tasks apart, over that of one", 1e-3, 1e3
    )
    rank: float = key(1.0, "networks: weight of the errors of differences in a warm fit", 0.0, 1e3)


@dataclass(frozen=True)
class Uac:
    """The uncertainty-aware critic and the decision that rests on it."""

    enabled: bool = key(True, "predict what the critic is sure of instead of training it")
    uncertainty: str = key(
        "gp",
        "deviation of Gaussian processes, of an ensemble of networks, or a network of errors",
        choices=UNCERTAINTIES,
    )
    members: int = key(8, "networks of the ensemble", 2, 100)
    hidden: int = key(64, "units of each of their two layers", 8, 4096)
    gain: float = key(0.3, "scale of their inputs: how far from linear they are", 1e-3, 100.0)
    prior: float = key(0.4, "standard deviation of a network's random prior function", 0.0, 10.0)
    noise: float = key(0.02, "variance of noise over that of a network", 1e-4, 100.0)
    bootstrap: bool = key(False, "weigh samples by Poisson(1), anew for each network")
    steps: int = key(1, "Gauss-Newton steps of each fit", 1, 1000)
    rows: int = key(128, "samples of a fit, half the best and half the newest", 16, 4096)
    tau: float = key(10.0, "train above this uncertainty, in deviations of scores", 0.0, 100.0)
    tau_points: float = key(0.0, "the same in points of the reward; above 0: instead", 0.0, 100.0)
    warmup: int = key(8, "architectures trained before predictions count", 2, 10**6)
    explore: float = key(0.01, "share of confident proposals that are trained anyway", 0.0, 1.0)


@dataclass(frozen=True)
class Aeb:
    """The architecture experience buffer."""

    enabled: bool = key(True, "replay trained samples to the controller")
    capacity: int = key(1024, "samples kept", 8, 65536)
    truncate: float = key(1.0, "largest importance ratio of a replayed sample", 0.01, 1e6)
    min_ratio: float = key(1e-3, "samples of smaller ratio are skipped", 0.0, 1.0)
    max_age: int = key(10**6, "iterations after which samples are skipped", 1, 10**9)
    recency: float = key(
        0.0, "the newest sample is exp(this) times as likely as the oldest", 0.0, 20.0
    )


class Config(NamedTuple):
    """All numbers of a search."""

    batch: int  # N, architectures per iteration
    fnas: Fnas = Fnas()
    uac: Uac = Uac()
    aeb: Aeb = Aeb()
    ppo: Ppo = Ppo()
