"""A training step of PGNAS: the supernet's weights m and the logits phi of the posterior.

Source: arXiv 1906.09557. Ours: the first steps train the weights alone, and a budget is met by
adapting gamma.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnas_jax.core.types import Array
from fnas_jax.methods.oneshot import supernet
from fnas_jax.methods.oneshot.supernet import StepOutput, Supernet, Weights
from fnas_jax.methods.pgnas import elbo
from fnas_jax.methods.pgnas.config import Pgnas
from fnas_jax.methods.pgnas.posterior import Posterior

COST_SAMPLES = 16  # architectures from which the cost's part of the gradient is estimated
NORM_STEPS = 64  # steps between two looks at the norms of all operations, which change slowly
BASELINE_DECAY = 0.9  # of the average that stands for the other samples where there are none
AIM = 0.95  # share of the budget that gamma steers the expected cost to

# What a step says of itself
SCALARS = ("nll", "kl_weights", "kl_cost", "kl_entropy", "mflops", "temperature")
Costs = Callable[[Array], Array]  # archs [N, T] -> MFLOPs [N]


class Context(NamedTuple):
    """What a training works with; nothing that changes."""

    q: Posterior
    net: Supernet
    config: Pgnas
    examples: int  # D training images in all
    costs: Costs


class Learnt(NamedTuple):
    """What the training stage changes."""

    steps: Array  # [] int32 done
    weights: Weights  # the means m of the posterior's Gaussians
    phi: Array  # [L, K] float32 logits of the switches
    moments: Any  # of Adam, which moves phi
    norms: Array  # [1, L, K] float32 squared norms; see `elbo.alternatives`
    gamma: Array  # [] float32 nats per MFLOP that were added to meet the budget
    baseline: Array  # [] float32 moving average of nll over steps


def start(ctx: Context, params: Any) -> Learnt:
    """Uniform switches, and the parameters of the supernet."""
    phi = ctx.q.init()
    norms = jnp.zeros((1, *phi.shape))
    moments = _adam().init(phi)
    return Learnt(jnp.int32(0), ctx.net.start(params), phi, moments, norms, *jnp.zeros(2))


def step(
    ctx: Context, state: Learnt, images: Array, labels: Array, key: Array
) -> tuple[Learnt, dict[str, Array]]:
    """One step on a minibatch.

    All samples of a step see the same images (common random numbers), each step draws new ones. One
    after another they move the weights, which changes their losses by about the same (ours; with
    `average` the mean of their gradients does, at once).
    """
    key_noise, key_cost, key_slots = jax.random.split(key, 3)
    q, config, phi = ctx.q, ctx.config, state.phi
    progress = state.weights.step / ctx.net.updates
    learning = progress >= config.warmup
    noise = q.noise(key_noise, config.mc_samples)
    z = q.draw(phi, noise)
    temperature = annealed(config, progress)
    # The ELBO's own: `children.weight_decay` would be another prior (see docs/pgnas.md).
    decay = config.precision / ctx.examples
    weights, output = supernet.train_step(
        *(ctx.net, state.weights, q.to_archs(z), z, images, labels, decay),
        differentiate=differentiate(ctx, key_slots, learning),
        average=config.average,
    )
    norms = refreshed_norms(ctx, state, z, learning)
    nll = output.nll.mean()
    baseline = jnp.where(state.steps > 0, state.baseline, nll)
    gradient = (
        likelihood_gradient(ctx, phi, noise, z, output, temperature, baseline)
        + elbo.local(q, phi, norms) * decay / 2
        - elbo.entropy_gradient(q, phi) / ctx.examples
    )
    drawn = q.draw(phi, q.noise(key_cost, COST_SAMPLES))
    price = config.gamma + state.gamma
    if config.gamma or config.mflops:
        values = elbo.alternatives(q, drawn, ctx.costs)
        gradient += elbo.local(q, phi, values) * price / ctx.examples
    mflops = ctx.costs(q.to_archs(drawn)).mean()
    phi, moments = moved(config, state, gradient, progress, learning)
    new = Learnt(
        steps=state.steps + 1,
        weights=weights,
        phi=phi,
        moments=moments,
        norms=norms,
        gamma=adapted_gamma(ctx, state.gamma, mflops, learning),
        baseline=BASELINE_DECAY * baseline + (1 - BASELINE_DECAY) * nll,
    )
    return new, {
        "nll": nll,
        "kl_weights": output.norm.mean() * decay / 2,
        "kl_cost": price * mflops / ctx.examples,
        "kl_entropy": -q.entropy(state.phi).sum() / ctx.examples,
        "mflops": mflops,
        "temperature": temperature,
    }


def differentiate(ctx: Context, key: Array, learning: Array) -> supernet.Differentiate:
    """What the estimator of `config` needs to know of the loss; see `likelihood_gradient`."""
    if ctx.config.gradient in elbo.BY_SWITCH:
        return supernet.with_switches
    if ctx.config.gradient == "local":
        slots = jax.random.permutation(key, len(ctx.q.cardinalities))[: ctx.config.slots]
        return functools.partial(compare, ctx.q, slots, learning)
    return supernet.weights_only


def compare(
    q: Posterior,
    slots: Array,
    learning: Array,
    loss: supernet.BatchLoss,
    vector: Array,
    arch: Array,
    z: Array,
) -> tuple[Array, Array, Array]:
    """(nll, its gradient, [L, K] losses of other choices in `slots` [n]; zeros unless learning)."""
    nll, gradient, zeros = supernet.weights_only(loss, vector, arch, z)
    of_others = functools.partial(loss, vector)
    values = jax.lax.cond(
        learning,
        lambda: elbo.some_alternatives(q, z, slots, of_others, nll),
        lambda: zeros,
    )
    return nll, gradient, values


def refreshed_norms(ctx: Context, state: Learnt, z: Array, learning: Array) -> Array:
    """[1, L, K] squared norms with one slot changed, means over the samples z [S, L, K].

    Looked at again every `NORM_STEPS` steps.
    """
    norms = functools.partial(ctx.net.norms, state.weights.vector)
    return jax.lax.cond(
        learning & ((state.steps % NORM_STEPS == 0) | ~state.norms.any()),
        lambda: elbo.alternatives(ctx.q, z, norms).mean(0, keepdims=True),
        lambda: state.norms,
    )


def likelihood_gradient(
    ctx: Context,
    phi: Array,
    noise: Array,
    z: Array,
    output: StepOutput,
    temperature: Array,
    baseline: Array,
) -> Array:
    """[L, K] gradient of E_q[nll] by the estimator of `config`; see `elbo`."""
    q, config = ctx.q, ctx.config
    if config.gradient == "concrete":
        return elbo.concrete(q, phi, noise, temperature, output.switches)
    if config.gradient == "second":
        return elbo.second(q, phi, z, output.switches)
    if config.gradient == "local":  # of some slots, each as likely as the others
        slots = len(q.cardinalities)
        return elbo.local(q, phi, output.switches) * slots / min(config.slots, slots)
    return elbo.score(q, phi, z, output.nll, baseline)


def annealed(config: Pgnas, progress: Array) -> Array:
    """[] temperature, geometric from the first to the last over the training (0..1)."""
    ratio = config.temperature_end / config.temperature
    return config.temperature * ratio**progress


def moved(
    config: Pgnas, state: Learnt, gradient: Array, progress: Array, learning: Array
) -> tuple[Array, Any]:
    """Phi and Adam's moments after one step whose rate falls to 0 with those of the weights.

    As they were unless `learning` [] bool.
    """
    change, moments = _adam().update(gradient, state.moments)
    rate = config.lr * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return jax.tree.map(
        lambda new, old: jnp.where(learning, new, old),
        (state.phi - rate * change, moments),
        (state.phi, state.moments),
    )


def adapted_gamma(ctx: Context, gamma: Array, mflops: Array, learning: Array) -> Array:
    """[] nats per MFLOP, more where the samples' mean `mflops` [] is above the budget's aim."""
    config = ctx.config
    if not config.mflops:
        return gamma
    excess = mflops / (AIM * config.mflops) - 1
    rate = config.dual * ctx.examples / config.mflops * learning
    return jnp.maximum(gamma + rate * excess, 0.0)


def _adam() -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=0.9, b2=0.99)
