"""The autoregressive policy over architectures: pi(a) = prod_t pi(a_t | a_1 .. a_{t-1}).

An LSTM reads the decisions one by one, with an embedding table and an output head for each
position. The embeddings live in the space of the four gates, which is an LSTM's input matrix
already multiplied out. Positions have different numbers of choices: all are padded to the largest
K, and choices that do not exist get the logit -inf. Where only some architectures exist, so do
choices after which none of them can be reached: the policy is one over those that exist.
"""

from __future__ import annotations

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.methods import existing as rows

SHOWN = 64  # samples by which a plot knows the policy
_NEVER = -1e9  # stands for -inf without making NaN gradients


class Params(NamedTuple):
    """Weights, H hidden units, K the largest cardinality."""

    embed: Array  # [T, K, 4 H] gates' input from the previous decision; at t = 0 from choice 0
    recur: Array  # [H, 4 H]
    head: Array  # [T, H, K]
    bias: Array  # [T, K]


class Policy(NamedTuple):
    """What a policy is, apart from its weights."""

    cardinalities: tuple[int, ...]  # T entries
    hidden: int  # H
    head_scale: float = 0.01  # standard deviation of the heads' weights times sqrt(H)
    existing: Array | None = None  # `Task.existing`, of M architectures; None: all

    @property
    def width(self) -> int:
        """K, the largest cardinality."""
        return max(self.cardinalities)


def init(policy: Policy, key: Array) -> Params:
    """Weights of a policy that is nearly uniform unless its `head_scale` is large."""
    key_embed, key_recur, key_head = jax.random.split(key, 3)
    steps, width, hidden = len(policy.cardinalities), policy.width, policy.hidden
    embed = 0.1 * jax.random.normal(key_embed, (steps, width, 4 * hidden))
    # Gates in the order input, forget, cell, output; the forget gate starts open.
    forget = jnp.zeros(4 * hidden).at[hidden : 2 * hidden].set(1.0)
    head = policy.head_scale * jax.random.normal(key_head, (steps, hidden, width))
    return Params(
        embed=embed + forget,
        recur=jax.nn.initializers.orthogonal()(key_recur, (hidden, 4 * hidden)),
        head=head / hidden**0.5,
        bias=jnp.zeros((steps, width)),
    )


def _cell(
    recur: Array, weights: tuple[Array, ...], state: tuple[Array, Array], previous: Array
) -> tuple[tuple[Array, Array], Array]:
    """One position: `previous` [n, K] one-hot -> the state and log pi [n, K]."""
    embed, head, bias, allowed = weights
    h, c = state
    gates = previous @ embed + h @ recur
    i, f, g, o = jnp.split(gates, 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    h = jax.nn.sigmoid(o) * jnp.tanh(c)
    logits = jnp.where(allowed, h @ head + bias, _NEVER)
    return (h, c), jax.nn.log_softmax(logits)


def _start(policy: Policy, n: int) -> tuple[tuple[Array, Array], Array]:
    """The LSTM's state before the first position, and the choice that stands before it."""
    zeros = jnp.zeros((n, policy.hidden))
    return (zeros, zeros), jax.nn.one_hot(jnp.zeros(n, jnp.int32), policy.width)


def _by_position(policy: Policy, params: Params) -> tuple[Array, ...]:
    """[T, ..] each: the weights of a position, and which choices it has."""
    exists = jnp.asarray(np.arange(policy.width) < np.asarray(policy.cardinalities)[:, None])
    return params.embed, params.head, params.bias, exists


def _positions(policy: Policy) -> Array:
    return jnp.arange(len(policy.cardinalities))


def _everything(policy: Policy, n: int) -> Array | None:
    """[n, M] bool: what can be reached before the first position; None: there is no list of it."""
    return None if policy.existing is None else jnp.ones((n, len(policy.existing)), bool)


def _open(policy: Policy, reachable: Array | None, t: Array, exists: Array) -> Array:
    """[n, K] or [K] bool: the choices of position t [], of which [K] `exists` in the space.

    After the beginning of an architecture that does not exist itself, these are all.
    """
    if policy.existing is None or reachable is None:
        return exists
    found = rows.choices(policy.existing, reachable, t, policy.width)
    return jnp.where(found.any(axis=1, keepdims=True), found, exists)


def _follow(policy: Policy, reachable: Array | None, t: Array, choice: Array) -> Array | None:
    """[n, M] bool: what is reachable after `choice` [n] at position t []."""
    if policy.existing is None or reachable is None:
        return None
    return rows.reach(policy.existing, reachable, t, choice)


def sample(policy: Policy, params: Params, key: Array, n: int) -> tuple[Array, Array]:
    """N architectures [n, T] int32 and their log-probabilities [n] in nats."""
    choices, log_probs, _ = _draw(policy, params, key, n)
    return choices, log_probs


def marginals(policy: Policy, params: Params, key: Array, n: int) -> Array:
    """[T, K] probability of each choice, whatever was chosen before: the mean of n samples.

    Of pi(. | a_<t) itself, not of what was drawn from it, so that few samples tell small ones.
    """
    return jnp.exp(_draw(policy, params, key, n)[2]).mean(axis=1)


def _draw(policy: Policy, params: Params, key: Array, n: int) -> tuple[Array, Array, Array]:
    """Samples [n, T], their log-probabilities [n], and log pi(. | a_<t) [T, n, K]."""
    noise = jax.random.gumbel(key, (len(policy.cardinalities), n, policy.width))

    def step(carry, inputs):
        (state, previous), reachable = carry
        t, *weights, exists, gumbel = inputs
        exists = _open(policy, reachable, t, exists)
        state, log_pi = _cell(params.recur, (*weights, exists), state, previous)
        choice = jnp.argmax(log_pi + gumbel, axis=-1)
        chosen = jax.nn.one_hot(choice, policy.width)
        reachable = _follow(policy, reachable, t, choice)
        log_prob = jnp.sum(log_pi * chosen, axis=-1)
        return ((state, chosen), reachable), (choice, log_prob, log_pi)

    inputs = (_positions(policy), *_by_position(policy, params), noise)
    start = (_start(policy, n), _everything(policy, n))
    _, (choices, log_probs, log_pi) = jax.lax.scan(step, start, inputs)
    return choices.T.astype(jnp.int32), log_probs.sum(axis=0), log_pi


def details(policy: Policy, params: Params) -> dict[str, Array]:
    """What `SearchMethod.details` shows of a policy: "policy", its `marginals` by SHOWN samples."""
    return {"policy": marginals(policy, params, jax.random.key(0), SHOWN)}


def log_prob_and_entropy(policy: Policy, params: Params, archs: Array) -> tuple[Array, Array]:
    """Log pi(a) [n] of `archs` [n, T] and entropy [n], both in nats.

    The entropy is the sum over t of the entropy of pi(. | a_<t): its mean over a ~ pi is the
    entropy of the policy.
    """
    n = archs.shape[0]
    chex.assert_shape(archs, (n, len(policy.cardinalities)))
    chosen = jax.nn.one_hot(archs.T, policy.width)  # [T, n, K]
    state, first = _start(policy, n)
    previous = jnp.concatenate([first[None], chosen[:-1]])

    def step(carry, inputs):
        state, reachable = carry
        t, choice, before, taken, *weights, exists = inputs
        exists = _open(policy, reachable, t, exists)
        state, log_pi = _cell(params.recur, (*weights, exists), state, before)
        entropy = -jnp.sum(jnp.exp(log_pi) * log_pi, axis=-1)
        reachable = _follow(policy, reachable, t, choice)
        return (state, reachable), (jnp.sum(log_pi * taken, axis=-1), entropy)

    inputs = (_positions(policy), archs.T, previous, chosen, *_by_position(policy, params))
    start = (state, _everything(policy, n))
    _, (log_probs, entropies) = jax.lax.scan(step, start, inputs)
    return log_probs.sum(axis=0), entropies.sum(axis=0)
