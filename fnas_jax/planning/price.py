"""What a network is worth that trains faster, where the winner's training ends by the clock.

Of two networks of equal accuracy after equal steps, the faster one gets more steps in the same time
and ends ahead. By how much follows from how the error falls with the steps: as a power of them.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import ml_collections

from fnas_jax.planning.schedule import Facts, Schedule, Size, Speed, most_winner_steps
from fnas_jax.planning.trial import Trial

# What is chosen, all or nothing
KEYS = ("reward.training", "reward.training_mean", "reward.training_moved")
# An error falls as steps to the power of minus this. Of one network on Fashion-MNIST, validation
# images, 1.8 to 14.5 epochs of training (docs/auto.md).
POWER = 0.2
MOST = 0.07  # of a latency in MnasNet (arXiv 1807.11626)


def error_after(error: float, steps: int, trained: int) -> float:
    """The error expected after `steps` of a training, where it is `error` after `trained`."""
    return error * (max(steps, 1) / max(trained, 1)) ** -POWER


def exponent(error: float) -> float:
    """Of (time / mean time) in the reward of networks that have about this `error` (0 to 1).

    With error = c time^POWER, d accuracy / accuracy = -POWER error / (1 - error) d time / time.
    """
    return -min(POWER * error / max(1 - error, 1e-6), MOST)


def chosen(
    config: ml_collections.ConfigDict,
    free: Collection[str],
    facts: Facts,
    found: Schedule,
    measured: Speed,
    size: Size,
    tried: Trial,
) -> dict[str, Any]:
    """{key: value} of a reward by which networks that train faster are worth more.

    Where `KEYS` are `free` and an accuracy alone is searched for, where the clock ends the winner's
    training before `winner.steps` do, and where it is known what networks take: by the kernels for
    CPUs. {} elsewhere.
    """
    accuracy = config.task.objective == "classification" and config.task.metric in ("", "accuracy")
    alone = accuracy and config.reward.cost == "none"
    most = min(config.winner.steps, most_winner_steps(facts))
    clocked = config.search.winner_share > 0 and found.winner_steps < most
    if not (set(KEYS) <= set(free) and alone and clocked and measured.moved):
        return {}
    error = 1 - float(tried.accuracy[tried.best])
    return {
        "reward.training": round(
            exponent(error_after(error, config.children.steps, tried.steps)), 4
        ),
        "reward.training_mean": float(f"{size.mean / 1e6:.3g}"),
        "reward.training_moved": float(f"{measured.moved:.3g}"),
    }


def lines(config: ml_collections.ConfigDict) -> list[str]:
    """What faster training counts for, in words."""
    if not config.reward.training:
        return []
    percent = 100 * (2**-config.reward.training - 1)
    return [
        f"plan: a network that trains in half the time counts as {percent:.2g}% more accurate, as"
        " the winner then gets twice as many epochs"
    ]
