"""The autoregressive policy over architectures: pi(a) = prod_t pi(a_t | a_1 .. a_{t-1}).

An LSTM reads the decisions one by one, with an embedding table and an output head for each
position. The embeddings live in the space of the four gates, which is an LSTM's input matrix
already multiplied out. Positions have different numbers of choices: all are padded to the largest
K, and choices that do not exist get the logit -inf.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array

_NEVER = -1e9  # stands for -inf without making NaN gradients


class Params(NamedTuple):
    """Weights, H hidden units, K the largest cardinality."""

    embed: Array  # [T, K, 4 H] gates' input from the previous decision; at t = 0 from choice 0
    recur: Array  # [H, 4 H]
    head: Array  # [T, H, K]
    bias: Array  # [T, K]


class Policy(NamedTuple):
    """Pure functions; n architectures are always handled in one pass."""

    init: Callable[[Array], Params]  # key -> params
    sample: Callable[[Params, Array, int], tuple[Array, Array]]  # -> archs [n, T], log_prob [n]
    # (params, archs [n, T]) -> log_prob [n], entropy [n], both in nats. The entropy is the sum
    # over t of the entropy of pi(. | a_<t): its mean over a ~ pi is the entropy of the policy.
    evaluate: Callable[[Params, Array], tuple[Array, Array]]


def make(cardinalities: tuple[int, ...], hidden: int = 128, head_scale: float = 0.01) -> Policy:
    """A policy over T = len(cardinalities) decisions, nearly uniform at first.

    `head_scale` is the standard deviation of the heads' weights times sqrt(H).
    """
    steps, width = len(cardinalities), max(cardinalities)
    exists = jnp.asarray(np.arange(width) < np.asarray(cardinalities)[:, None])  # [T, K]

    def init(key: Array) -> Params:
        key_embed, key_recur, key_head = jax.random.split(key, 3)
        embed = 0.1 * jax.random.normal(key_embed, (steps, width, 4 * hidden))
        # Gates in the order input, forget, cell, output; the forget gate starts open.
        forget = jnp.zeros(4 * hidden).at[hidden : 2 * hidden].set(1.0)
        return Params(
            embed=embed + forget,
            recur=jax.nn.initializers.orthogonal()(key_recur, (hidden, 4 * hidden)),
            head=head_scale * jax.random.normal(key_head, (steps, hidden, width)) / hidden**0.5,
            bias=jnp.zeros((steps, width)),
        )

    def cell(
        params: Params, weights: tuple[Array, ...], state: tuple[Array, Array], previous: Array
    ) -> tuple[tuple[Array, Array], Array]:
        """One position: `previous` [n, K] one-hot -> the state and log pi [n, K]."""
        embed, head, bias, allowed = weights
        h, c = state
        gates = previous @ embed + h @ params.recur
        i, f, g, o = jnp.split(gates, 4, axis=-1)
        c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
        h = jax.nn.sigmoid(o) * jnp.tanh(c)
        logits = jnp.where(allowed, h @ head + bias, _NEVER)
        return (h, c), jax.nn.log_softmax(logits)

    def start(n: int) -> tuple[tuple[Array, Array], Array]:
        zeros = jnp.zeros((n, hidden))
        return (zeros, zeros), jax.nn.one_hot(jnp.zeros(n, jnp.int32), width)

    def by_position(params: Params) -> tuple[Array, ...]:
        return params.embed, params.head, params.bias, exists

    def sample(params: Params, key: Array, n: int) -> tuple[Array, Array]:
        noise = jax.random.gumbel(key, (steps, n, width))

        def step(carry, inputs):
            state, previous = carry
            *weights, gumbel = inputs
            state, log_pi = cell(params, tuple(weights), state, previous)
            choice = jnp.argmax(log_pi + gumbel, axis=-1)
            chosen = jax.nn.one_hot(choice, width)
            return (state, chosen), (choice, jnp.sum(log_pi * chosen, axis=-1))

        _, (choices, log_probs) = jax.lax.scan(step, start(n), (*by_position(params), noise))
        return choices.T.astype(jnp.int32), log_probs.sum(axis=0)

    def evaluate(params: Params, archs: Array) -> tuple[Array, Array]:
        n = archs.shape[0]
        chex.assert_shape(archs, (n, steps))
        chosen = jax.nn.one_hot(archs.T, width)  # [T, n, K]
        state, first = start(n)
        previous = jnp.concatenate([first[None], chosen[:-1]])

        def step(state, inputs):
            before, taken, *weights = inputs
            state, log_pi = cell(params, tuple(weights), state, before)
            entropy = -jnp.sum(jnp.exp(log_pi) * log_pi, axis=-1)
            return state, (jnp.sum(log_pi * taken, axis=-1), entropy)

        _, (log_probs, entropies) = jax.lax.scan(
            step, state, (previous, chosen, *by_position(params))
        )
        return log_probs.sum(axis=0), entropies.sum(axis=0)

    return Policy(init, sample, evaluate)
