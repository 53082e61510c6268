"""The data that flows round the loop: proposals out of a method, metrics out of a task.

Symbols used in shapes throughout: N architectures of a batch, T decisions of an architecture,
S blocks, K choices of a decision, B images of a minibatch, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.brief import brief

Array = jax.Array
IGNORE = 255  # the class of pixels of a mask that count for nothing, as in PASCAL VOC's annotations
COSTS = ("latency_ms", "mflops", "params_m")  # of a network, as `Metrics` has them


class Proposal(NamedTuple):
    """What a method asks for."""

    archs: Array  # [N, T] int32
    train_mask: Array  # [N] bool; False: the method uses its own prediction as the reward
    log_prob: Array  # [N] float32, nats, under the policy that sampled; 0 where there is no policy
    # [N] float32 predicted reward; 0 where the method predicts nothing, NaN where it is unknown
    predicted: Array
    uncertainty: Array  # [N] float32 one standard deviation of `predicted`; inf where unknown


class Features(NamedTuple):
    """What is known of every network of a space before any of them is trained."""

    names: tuple[str, ...]  # F of them, as "mflops"
    # Canonical archs [N, T] -> [N, F] float32, pure and jittable. Over the space, each has mean 0
    # and deviation 1; what is unknown is 0
    of: Callable[[Array], Array]
    identity: str  # what tells it from others of the space, as canonical JSON


class Metrics(NamedTuple):
    """What a task answers, one entry per proposed architecture.

    Entries with a False `train_mask` are not evaluated: accuracy, reward and seconds are 0, and
    `ok` and `fresh` are False. A failed child (loss not finite, or an architecture that a table
    lacks) has accuracy 0, reward 0, `ok` False, and still counts as trained (`fresh`).
    """

    accuracy: Array  # [N] float32 in [0, 1], on validation data
    reward: Array  # [N] float32, what the method maximises
    latency_ms: Array  # [N] float32, NaN where not measured
    mflops: Array  # [N] float32, millions of multiply-adds, NaN where unknown
    params_m: Array  # [N] float32, millions of parameters, NaN where unknown
    # [N] float32, spent on this architecture now, or, where `Task.simulated`, by whoever made the
    # table; 0 if it was known
    seconds: Array
    ok: Array  # [N] bool
    fresh: Array  # [N] bool; False: known before or masked out, so it cost nothing
    # [N] int32 training steps after which a child was stopped early (`children.halving`), whose
    # accuracy is what all steps are expected to give; 0: it was not. None: no child ever is
    stopped: Array | None = None


def propose(archs: Array) -> Proposal:
    """A proposal to train every one of `archs` [N, T] int32, without policy or prediction."""
    n = archs.shape[0]
    zeros = jnp.zeros(n, jnp.float32)
    return Proposal(archs, jnp.ones(n, bool), zeros, zeros, jnp.full(n, jnp.inf, jnp.float32))


class Failed(RuntimeError):
    """What was asked for failed. Commands print its one sentence and exit with code 1."""

    def __init__(self, message: str):
        super().__init__(brief(message))


class UserError(Exception):
    """Wrong input by the user. Commands print its one sentence and exit with code 2.

    Raised on purpose only: whatever else a wrong input makes the code raise is a bug.
    """

    def __init__(self, message: str):
        super().__init__(brief(message))
