"""The prediction for a task: a mixture of a transferred and an untransferred Gaussian process.

Either process has what its surrogate knows of the source tasks (cold: nothing, and weights that
are not trained; warm: meta-learnt), times a factor, and a part of its own:

    cov(x, x') = a cov_surrogate(x, x') + b Matern52(|xi - xi'| / l')

and noise. (a, b, l', noise) are fitted by MAP before every proposal, from the meta-learnt start.
The weights of the two are their marginal likelihoods of the task's own observations: a history
that misleads makes the observations unlikely, and is given up (both ours).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array
from fnas_jax.methods import gp_math, scores
from fnas_jax.methods.tnas import surrogate
from fnas_jax.methods.tnas.surrogate import Conditioned, Surrogate

OWN_SHARE = 0.1  # of the variance, where source tasks are known
STEPS, RATE = 12, 0.15  # of the MAP fit


class Component(NamedTuple):
    """A process of the mixture, cold or warm, before it is fitted."""

    surrogate: Surrogate
    listed: Conditioned  # the whole space where it is listed; else empty
    own: Conditioned  # the C evaluated architectures; their `variance` is not kept


class Fit(NamedTuple):
    """Logarithms of a, b, l' and the noise's variance."""

    scale: Array
    own: Array
    lengthscale: Array
    noise: Array


class Targets(NamedTuple):
    """Own scores on the scale of a process."""

    value: Array  # [C], 0 in free places
    mask: Array  # [C] bool
    std: Array  # [] of own scores, in the process's unit


class Fitted(NamedTuple):
    """A component and what was fitted to own scores."""

    component: Component
    targets: Targets
    fit: Fit
    evidence: Array  # [] log marginal likelihood of the own scores, nats


class Mixture(NamedTuple):
    """The cold component, and behind it the warm one where source tasks are known."""

    components: list[Fitted]
    log_weights: Array  # [len(components)], not normalised


class Process(NamedTuple):
    """What a fitted component predicts of candidates."""

    posterior: gp_math.Posterior  # in the process's unit
    incumbent: Array  # [] best posterior mean of own architectures
    std: Array  # [] as of Targets


def align(own_scores: Array, mask: Array, mean: Array, warm: bool) -> Targets:
    """Own scores [C] moved and scaled to what the zero-shot `mean` [C] says of the same rows."""
    if not warm:
        return Targets(jnp.where(mask, own_scores, 0.0), mask, jnp.float32(1.0))
    value, std = scores.align(own_scores, mean, mask)
    return Targets(value, mask, std)


def start(s: Surrogate) -> Fit:
    """The prior's middle: what is known as it is, and a tenth of the variance besides."""
    p = s.weights.hyper
    share = np.log(OWN_SHARE) if len(s.xi) else 0.0
    return Fit(jnp.zeros_like(p.signal), p.signal + share, p.lengthscale, p.noise)


PRIOR = Fit(scale=0.5, own=1.0, lengthscale=0.5, noise=0.7)  # type: ignore[arg-type]


def fit(s: Surrogate, own: Conditioned, targets: Targets, adapt: bool) -> tuple[Fit, Array]:
    """(a, b, l', noise) by MAP, and the log evidence there [], of the scores in own units."""
    squared = gp_math.squared_distances(own.xi, own.xi)
    given = surrogate.covariance(s, own, own)
    middle = start(s)
    residual = jnp.where(targets.mask, targets.value - own.mean, 0.0)
    count = targets.mask.sum().astype(residual.dtype)

    def evidence(f: Fit) -> Array:
        kernel = jnp.exp(f.scale) * given
        kernel += jnp.exp(f.own) * gp_math.matern52(squared, jnp.exp(f.lengthscale))
        full = gp_math.masked(kernel, jnp.exp(f.noise), targets.mask)
        return gp_math.log_density(full, residual, count)

    def loss(f: Fit) -> Array:
        terms = jax.tree.map(lambda x, m, d: 0.5 * ((x - m) / d) ** 2, f, middle, PRIOR)
        return sum(terms, -evidence(f))

    end = gp_math.minimise(loss, middle, RATE, STEPS)[0] if adapt else middle
    # The density of the scores in own units: they were stretched by `std`.
    return end, evidence(end) + targets.mask.sum() * jnp.log(targets.std)


def fit_component(component: Component, own_scores: Array, mask: Array, adapt: bool) -> Fitted:
    """The component fitted to own scores [C], standardised."""
    warm = len(component.surrogate.xi) > 0
    targets = align(own_scores, mask, component.own.mean, warm)
    return Fitted(component, targets, *fit(component.surrogate, component.own, targets, adapt))


def covariance(fitted: Fitted, x: Conditioned, y: Conditioned) -> Array:
    """[n, m] cov(x, x') of the fitted process."""
    f = fitted.fit
    squared = gp_math.squared_distances(x.xi, y.xi)
    own = jnp.exp(f.own) * gp_math.matern52(squared, jnp.exp(f.lengthscale))
    return jnp.exp(f.scale) * surrogate.covariance(fitted.component.surrogate, x, y) + own


def process(fitted: Fitted, candidates: Conditioned) -> Process:
    """The fitted process at the candidates [M]."""
    f, own, targets = fitted.fit, fitted.component.own, fitted.targets
    among = covariance(fitted, own, own)
    white = gp_math.whitening(gp_math.masked(among, jnp.exp(f.noise), targets.mask))
    residual = jnp.where(targets.mask, targets.value - own.mean, 0.0)
    cross = jnp.where(targets.mask[:, None], covariance(fitted, own, candidates), 0.0)
    prior = jnp.exp(f.scale) * candidates.variance + jnp.exp(f.own)
    posterior = gp_math.posterior(white, residual, cross, prior)
    at_own = own.mean + among @ gp_math.weights(white, residual)
    return Process(
        posterior._replace(mean=posterior.mean + candidates.mean),
        jnp.max(jnp.where(targets.mask, at_own, -jnp.inf)),
        targets.std,
    )


def believe(
    fitted: Fitted, predicted: Process, candidates: Conditioned, j: Array, place: Array
) -> Fitted:
    """Candidate `j` [] counts as observed, as it was predicted, in `place` [] of the C places."""
    own, targets = fitted.component.own, fitted.targets
    own = own._replace(
        xi=own.xi.at[place].set(candidates.xi[j], mode="drop"),
        mean=own.mean.at[place].set(candidates.mean[j], mode="drop"),
        whitened_cross=own.whitened_cross.at[:, place].set(
            candidates.whitened_cross[:, j], mode="drop"
        ),
    )
    targets = targets._replace(
        value=targets.value.at[place].set(predicted.posterior.mean[j], mode="drop"),
        mask=targets.mask.at[place].set(True, mode="drop"),
    )
    return fitted._replace(component=fitted.component._replace(own=own), targets=targets)


def acquire(processes: list[Process], log_weights: Array, beta: float | None) -> Array:
    """[M]: log of the mixture's expected improvement; or, with `beta`, its mean upper bound.

    `log_weights` [len(processes)] are normalised here.
    """
    share = jax.nn.log_softmax(log_weights)
    values = []
    for p in processes:
        mean, deviation = p.posterior.mean, jnp.sqrt(p.posterior.variance)
        if beta is None:
            value = gp_math.log_expected_improvement(mean, deviation, p.incumbent)
            values.append(value - jnp.log(p.std))
        else:
            best = jnp.where(jnp.isfinite(p.incumbent), p.incumbent, 0.0)
            values.append(gp_math.upper_bound(mean - best, deviation, beta) / p.std)
    if beta is None:
        return jax.nn.logsumexp(jnp.stack(values) + share[:, None], axis=0)
    return jnp.exp(share) @ jnp.stack(values)
