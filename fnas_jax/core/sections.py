"""The sections of the configuration that belong to no room of their own."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key
from fnas_jax.core.reward import CHOICES


@dataclass(frozen=True)
class Run:
    """Keys outside sections."""

    seed: int = key(0, "seed of everything random but the data split", 0, 2**31 - 1)


@dataclass(frozen=True)
class Reward:
    """reward = accuracy * (cost / target) ^ (alpha if cost <= target else beta).

    And * (work in training / training_mean) ^ training.
    """

    cost: str = key("none", "cost in the reward", choices=CHOICES)
    target: float = key(0.0, "target of the cost, in its unit; needed unless cost is none", 0.0)
    alpha: float = key(-0.07, "exponent at or below the target", -10.0, 0.0)
    beta: float = key(-0.07, "exponent above the target", -10.0, 0.0)
    training: float = key(
        0.0,
        "images: exponent of a network's work in training, so that what trains faster is worth"
        " more; 0: nothing (plans choose it)",
        -1.0,
        0.0,
    )
    training_mean: float = key(
        0.0, "with it, work of an image that counts as 1, in million multiply-adds", 0.0
    )
    training_moved: float = key(
        0.0, "with it, multiply-adds that a number counts for that a layer writes", 0.0
    )


@dataclass(frozen=True)
class Limits:
    """Hard limits: networks above one are neither trained nor named the winner."""

    latency_ms: float = key(0.0, "most milliseconds of a forward pass; 0: no limit", 0.0)
    mflops: float = key(0.0, "most million multiply-adds of an image; 0: no limit", 0.0)
    params_m: float = key(0.0, "most million parameters; 0: no limit", 0.0)


@dataclass(frozen=True)
class Latency:
    """Where the latency of a network comes from, and how it is measured."""

    source: str = key(
        "device",
        "device: timed on this one, where the reward or a limit asks; table:FILE, of `fnas-jax"
        " latency`: looked up for every child; python:MODULE:FUNCTION of your own",
    )
    batch_size: int = key(1, "images per timed pass", 1, 4096)
    repeats: int = key(
        30, "timed passes; of each 3 counts the median, of these the quantile 0.1", 1, 10000
    )


@dataclass(frozen=True)
class Features:
    """What methods that predict know of a network before it is trained, beside its decisions."""

    structure: bool = key(
        True, "how many layers of each kind, how deep and wide; of spaces that have networks"
    )
    costs: bool = key(
        True, "parameters and multiply-adds, latencies of a table of them, a table's own costs"
    )
    proxies: bool = key(
        False,
        "zero-cost proxies of untrained networks on a minibatch, of tasks with images; measured"
        " before the search",
    )


@dataclass(frozen=True)
class Search:
    """How much is searched."""

    budget: int = key(64, "stop once this many architectures were trained", 1, 10**7)
    max_proposals: int = key(
        0, "stop after this many proposals, known ones included; 0: 20 x budget", 0, 10**9
    )
    seconds: float = key(
        0.0,
        "stop after the iteration in which so many seconds of all starts together have passed;"
        " 0: no limit",
        0.0,
        1e9,
    )
    images: int = key(
        0,
        "stop after the iteration in which children have been trained on so many images, batch by"
        " batch, with the pool's fair rounds and the finals to come, unless the budget ends it"
        " before; 0: no limit",
        0,
        10**15,
    )
    simulated_seconds: float = key(
        0.0,
        "tables with training times: stop after the iteration in which so many of these seconds"
        " have been spent, unless the budget ends it before; 0: no limit",
        0.0,
        1e12,
    )
    batch: int = key(8, "architectures proposed per iteration", 1, 65536)
    plan: str = key(
        "none",
        "auto: space, steps, number of children and the like are planned, by the images, the"
        " devices and search.seconds",
        choices=("none", "auto"),
    )
    winner_share: float = key(
        0.0,
        "share of search.seconds that is left to the winner's training, which then has as many"
        " steps as fit, winner.steps at most",
        0.0,
        0.9,
    )


@dataclass(frozen=True)
class Knowledge:
    """What outlives a run."""

    dir: str = key("", "folder of the knowledge store; '' for <workdir>/knowledge")


@dataclass(frozen=True)
class Log:
    """What is shown and kept."""

    every: int = key(1, "iterations between two log entries", 1, 10**6)
    tensorboard: bool = key(True, "write TensorBoard events")
    wandb: str = key("", "Weights & Biases: PROJECT or ENTITY/PROJECT to log to; '' for none")
    mlflow: str = key("", "MLflow: tracking URI, http://HOST:PORT or a folder; '' for none")
    run_name: str = key("", "of the search there; '' for the name of the workdir")
    checkpoint_seconds: float = key(
        1.0,
        "least time between two checkpoints, more where these would take over a tenth of the time;"
        " 0: one after every iteration, however long it takes",
        0.0,
        86400.0,
    )


@dataclass(frozen=True)
class Jax:
    """Of JAX itself."""

    cache_dir: str = key("~/.cache/fnas_jax", "persistent compilation cache; '' for none")
