"""Gradients of the negative ELBO with respect to the logits phi of the posterior.

Per training image, with D images (PGNAS, arXiv 1906.09557, eq. 8 to 10, divided by D):

    L(phi, m) = E_q(z)[ nll(z, m) + r(z, m) ] - H(q) / D
    r(z, m) = ( lambda ||m used by z||^2 / 2 + gamma cost(z) ) / D

r is the prior's part of the KL: of the weights' Gaussians, and of log p(z) = -gamma cost(z).
The entropy's gradient is exact. r is cheap to compute for every operation of a slot, so its
gradient is a local expectation (`local`). That of the likelihood is one of

local:    local expectations as for r: needs the losses of networks with one slot changed, of a few
          slots a step; unbiased;
score:    score function with a baseline, the other samples or earlier steps: unbiased, needs only
          nll(z);
concrete: Concrete relaxation with straight-through: needs the derivatives g = d nll / d z of all
          switches, also of operations that did not run; biased by temperature and curvature;
second:   the same derivatives in Heun's rule: exact where nll is quadratic in a slot's switches.

The paper uses Concrete; the other three are ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.methods.pgnas.posterior import Posterior

BY_SWITCH = ("concrete", "second")  # those that need d nll / d z


def score(q: Posterior, phi: Array, z: Array, nll: Array, baseline: Array | float = 0.0) -> Array:
    """[L, K] from S samples: switches z [S, L, K] and their losses nll [S].

    mean_s (nll_s - b_s) grad log q(z_s), with b_s the mean of the others' losses (Kool et al.,
    2019), or `baseline`, which must not depend on z, where there is one sample only.
    """
    chex.assert_rank([z, nll], [3, 1])
    samples = len(nll)
    advantage = nll - baseline
    if samples > 1:
        advantage = (nll - nll.mean()) * samples / (samples - 1)
    # d log q / d phi is z - pi for both families.
    return jnp.einsum("s,slk->lk", advantage, z - q.pi(phi)) / samples * q.mask


def concrete(q: Posterior, phi: Array, noise: Array, temperature: Array | float, g: Array) -> Array:
    """[L, K] from S samples: their noise and g = d nll / d z at the discrete switches, [S, L, K].

    Straight-through: the forward pass is discrete, the backward pass that of `Posterior.relax`.
    """
    chex.assert_equal_shape([noise, g])
    _, pull = jax.vjp(lambda phi: q.relax(phi, noise, temperature), phi)
    return pull(g / len(g))[0] * q.mask


def second(q: Posterior, phi: Array, z: Array, g: Array) -> Array:
    """[L, K] from S samples: switches z and g = d nll / d z there, both [S, L, K].

    mean_s 1/2 [ J g_s + (g_s . (z_s - pi)) (z_s - pi) ] per slot, J = d pi / d phi. Replaces
    f(e_i) - f(e_j) by the trapezoid (g(e_i) + g(e_j)) . (e_i - e_j) / 2 in the exact gradient
    (ReinMax, arXiv 2304.08612, written without its baseline's temperature).
    """
    chex.assert_equal_shape([z, g])
    away = z - q.pi(phi)
    along = g * away if q.subset else (g * away).sum(-1, keepdims=True)
    return (_jacobian(q, phi, g) + along * away).mean(0) / 2 * q.mask


def local(q: Posterior, phi: Array, values: Array) -> Array:
    """[L, K] gradient of E_q[r] from `values` [S, L, K] of `alternatives`.

    The expectation over each slot's own switches is exact, given the others' samples (local
    expectation gradients, Titsias & Lazaro-Gredilla, NeurIPS 2015).
    """
    return _jacobian(q, phi, values).mean(0) * q.mask


def alternatives(q: Posterior, z: Array, function: Callable[[Array], Array]) -> Array:
    """`function` (archs [N, T] -> [N]) of z [S, L, K] with one slot changed, [S, L, K].

    single: slot l set to operation k, 0 in the padding. subset: the difference that switch l, k
    makes.
    """
    samples, (slots, width) = len(z), q.mask.shape
    places = np.argwhere(q.mask)
    rows = jnp.arange(len(places))

    def changed(on: bool) -> Array:
        many = jnp.broadcast_to(z[:, None], (samples, len(places), slots, width))
        if not q.subset:
            many = many.at[:, rows, places[:, 0]].set(0.0)
        many = many.at[:, rows, places[:, 0], places[:, 1]].set(float(on))
        return function(q.to_archs(many).reshape(-1, q.decisions)).reshape(samples, -1)

    values = changed(True) - changed(False) if q.subset else changed(True)
    return jnp.zeros_like(z).at[:, places[:, 0], places[:, 1]].set(values)


def some_alternatives(
    q: Posterior,
    z: Array,
    slots: Array,
    function: Callable[[Array, Array], Array],
    known: Array,
) -> Array:
    """`alternatives` of one z [L, K] in the n slots [n] only, [L, K] with zeros elsewhere.

    `function` (arch [T], switches [L, K]) -> [] runs once for each, one after another; `known` []
    is its value at z, which is not computed again.
    """
    chex.assert_shape(z, q.mask.shape)
    value = functools.partial(_alternative, q, z, function, known)

    def of_slot(slot: Array) -> Array:
        exists = jnp.asarray(q.mask)[slot]
        return jax.lax.map(
            lambda k: jax.lax.cond(exists[k], lambda: value(slot, k), lambda: 0.0),
            jnp.arange(z.shape[1]),
        )

    return jnp.zeros_like(z).at[slots].set(jax.lax.map(of_slot, slots))


def _alternative(
    q: Posterior,
    z: Array,
    function: Callable[[Array, Array], Array],
    known: Array,
    slot: Array,
    k: Array,
) -> Array:
    """[] as `alternatives` has it at (slot, k)."""

    def at(changed: Array) -> Array:
        same = jnp.all(changed == z)
        return jax.lax.cond(same, lambda: known, lambda: function(q.to_archs(changed), changed))

    if q.subset:
        return at(z.at[slot, k].set(1.0)) - at(z.at[slot, k].set(0.0))
    return at(z.at[slot].set(jax.nn.one_hot(k, z.shape[1])))


def entropy_gradient(q: Posterior, phi: Array) -> Array:
    """[L, K] exact gradient of H(q) in nats."""
    return jax.grad(lambda phi: q.entropy(phi).sum())(phi)


def _jacobian(q: Posterior, phi: Array, g: Array) -> Array:
    """J g with J = d pi / d phi, symmetric; g [.., L, K]."""
    pi = q.pi(phi)
    if q.subset:
        return pi * (1 - pi) * g
    return pi * (g - (pi * g).sum(-1, keepdims=True))
