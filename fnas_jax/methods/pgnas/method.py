"""PGNAS: the weights of a supernet and the posterior over its architectures, learnt together.

`prepare` trains both (steps of `make_step`); then architectures are drawn from the posterior and
judged with their inherited weights. Source: arXiv 1906.09557. Ours: the first steps train the
weights alone, a budget is met by adapting gamma, and samples above it are drawn again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnas_jax.core.types import Array, Metrics, Proposal, propose
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.methods.best import no_best, update_best
from fnas_jax.methods.oneshot import ranking, supernet
from fnas_jax.methods.oneshot.ranking import Ranking
from fnas_jax.methods.oneshot.supernet import Supernet, Weights
from fnas_jax.methods.pgnas import elbo
from fnas_jax.methods.pgnas.posterior import Posterior
from fnas_jax.spaces.base import Space

COST_SAMPLES = 16  # architectures from which the cost's part of the gradient is estimated
NORM_STEPS = 64  # steps between two looks at the norms of all operations, which change slowly
BASELINE_DECAY = 0.9  # of the average that stands for the other samples where there are none
AIM = 0.95  # share of the budget that gamma steers the expected cost to
CANDIDATES = 16  # draws for each proposal, of which those within the budget are taken first


class Config(NamedTuple):
    """The method's numbers; see `pgnas` in core/config.py."""

    mc_samples: int = 1
    average: bool = False
    gradient: str = "local"
    slots: int = 1
    lr: float = 0.3
    warmup: float = 0.5
    temperature: float = 1.0
    temperature_end: float = 0.1
    precision: float = 1e-3
    gamma: float = 0.0
    mflops: float = 0.0
    dual: float = 0.03
    top: int = 3
    patience: int = 32


class Learnt(NamedTuple):
    """What the training stage changes."""

    steps: Array  # [] int32 done
    weights: Weights  # the means m of the posterior's Gaussians
    phi: Array  # [L, K] float32 logits of the switches
    moments: Any  # of Adam, which moves phi
    norms: Array  # [1, L, K] float32 squared norms; see `elbo.alternatives`
    gamma: Array  # [] float32 nats per MFLOP that were added to meet the budget
    baseline: Array  # [] float32 moving average of nll over steps


class State(NamedTuple):
    """Everything of a run."""

    learnt: Learnt
    best: Best
    ranking: Ranking
    samples: Array  # [N, T] int32 the last ones asked for
    log_q: Array  # [N] float32 nats


Costs = Callable[[Array], Array]  # archs [N, T] -> MFLOPs [N]


def start(q: Posterior, net: Supernet, params: Any) -> Learnt:
    """Uniform switches, and the parameters of the supernet."""
    phi = q.init()
    norms = jnp.zeros((1, *phi.shape))
    return Learnt(jnp.int32(0), net.start(params), phi, _adam().init(phi), norms, *jnp.zeros(2))


def make_step(
    q: Posterior, net: Supernet, config: Config, examples: int, costs: Costs
) -> supernet.Step:
    """One step of training on a minibatch of `examples` images in all (D).

    All samples of a step see the same images (common random numbers), each step draws new ones. One
    after another they move the weights, which changes their losses by about the same (ours; with
    `average` the mean of their gradients does, at once).
    """

    def compare(key: Array, learning: Array) -> supernet.Compare:
        slots = jax.random.permutation(key, len(q.cardinalities))[: config.slots]

        def of(nll: Callable[[Array, Array], Array], z: Array, known: Array) -> Array:
            return jax.lax.cond(
                learning,
                lambda: elbo.some_alternatives(q, z, slots, nll, known),
                lambda: jnp.zeros_like(z),
            )

        return of

    def step(
        state: Learnt, images: Array, labels: Array, key: Array
    ) -> tuple[Learnt, dict[str, Array]]:
        key_noise, key_cost, key_slots = jax.random.split(key, 3)
        phi, progress = state.phi, state.weights.step / net.updates
        learning = progress >= config.warmup
        noise = q.noise(key_noise, config.mc_samples)
        z = q.draw(phi, noise)
        temperature = annealed(config, progress)
        decay = config.precision / examples
        weights, found = net.train_step(
            state.weights,
            q.to_archs(z),
            z,
            images,
            labels,
            decay,
            by_switch=config.gradient in elbo.BY_SWITCH,
            compare=compare(key_slots, learning) if config.gradient == "local" else None,
            average=config.average,
        )
        norms = jax.lax.cond(
            learning & ((state.steps % NORM_STEPS == 0) | ~state.norms.any()),
            lambda: elbo.alternatives(q, z[:1], lambda a: net.norms(state.weights.vector, a)),
            lambda: state.norms,
        )
        nll = found.nll.mean()
        baseline = jnp.where(state.steps > 0, state.baseline, nll)
        gradient = (
            likelihood_gradient(q, config, phi, noise, z, found, temperature, baseline)
            + elbo.local(q, phi, norms) * decay / 2
            - elbo.entropy_gradient(q, phi) / examples
        )
        drawn = q.draw(phi, q.noise(key_cost, COST_SAMPLES))
        price = config.gamma + state.gamma
        if config.gamma or config.mflops:
            values = elbo.alternatives(q, drawn, costs)
            gradient += elbo.local(q, phi, values) * price / examples
        mflops = costs(q.to_archs(drawn)).mean()
        phi, moments = jax.tree.map(
            lambda new, old: jnp.where(learning, new, old),
            _move(config, state, gradient, progress),
            (phi, state.moments),
        )
        price_added = state.gamma
        if config.mflops:
            excess = mflops / (AIM * config.mflops) - 1
            rate = config.dual * examples / config.mflops * learning
            price_added = jnp.maximum(state.gamma + rate * excess, 0.0)
        new = Learnt(
            steps=state.steps + 1,
            weights=weights,
            phi=phi,
            moments=moments,
            norms=norms,
            gamma=price_added,
            baseline=BASELINE_DECAY * baseline + (1 - BASELINE_DECAY) * nll,
        )
        return new, {
            "nll": nll,
            "kl_weights": found.norm.mean() * decay / 2,
            "kl_cost": price * mflops / examples,
            "kl_entropy": -q.entropy(state.phi).sum() / examples,
            "mflops": mflops,
            "temperature": temperature,
        }

    return step


def likelihood_gradient(
    q: Posterior,
    config: Config,
    phi: Array,
    noise: Array,
    z: Array,
    found: supernet.StepOutput,
    temperature: Array,
    baseline: Array,
) -> Array:
    """[L, K] gradient of E_q[nll] by the estimator of `config`; see `elbo`."""
    if config.gradient == "concrete":
        return elbo.concrete(q, phi, noise, temperature, found.switches)
    if config.gradient == "second":
        return elbo.second(q, phi, z, found.switches)
    if config.gradient == "local":  # of some slots, each as likely as the others
        slots = len(q.cardinalities)
        return elbo.local(q, phi, found.switches) * slots / min(config.slots, slots)
    return elbo.score(q, phi, z, found.nll, baseline)


def annealed(config: Config, progress: Array) -> Array:
    """[] temperature, geometric from the first to the last over the training (0..1)."""
    ratio = config.temperature_end / config.temperature
    return config.temperature * ratio**progress


def _adam() -> optax.GradientTransformation:
    return optax.scale_by_adam(b1=0.9, b2=0.99)


def _move(config: Config, state: Learnt, gradient: Array, progress: Array) -> tuple[Array, Any]:
    """Phi and Adam's moments after one step whose rate falls to 0 with those of the weights."""
    change, moments = _adam().update(gradient, state.moments)
    rate = config.lr * 0.5 * (1 + jnp.cos(jnp.pi * progress))
    return state.phi - rate * change, moments


def make(
    space: Space,
    q: Posterior,
    net: Supernet,
    config: Config,
    batch: int,
    costs: Costs,
    initial: Callable[[Array], Any],
    prepare: Callable[..., Any],
) -> SearchMethod:
    """Samples `batch` architectures at a time from what `prepare` has learnt.

    `initial(key)` are the parameters that the supernet starts from.
    """

    def init(key: Array) -> State:
        return State(
            learnt=start(q, net, initial(key)),
            best=no_best(q.decisions),
            ranking=ranking.empty(config.top, q.decisions),
            samples=jnp.zeros((batch, q.decisions), jnp.int32),
            log_q=jnp.zeros(batch),
        )

    def ask(state: State, key: Array) -> tuple[State, Proposal]:
        phi = state.learnt.phi
        z = q.draw(phi, q.noise(key, CANDIDATES * batch if config.mflops else batch))
        archs = q.to_archs(z)
        fits = jnp.ones(len(archs), bool)
        if config.mflops:
            fits = costs(archs) <= config.mflops
            first = jnp.argsort(~fits, stable=True)[:batch]
            z, archs, fits = z[first], archs[first], fits[first]
        log_q = q.log_prob(phi, z)
        unknown = jnp.where(fits, 0.0, jnp.nan)
        proposal = propose(archs)._replace(log_prob=log_q, train_mask=fits, predicted=unknown)
        return state._replace(samples=archs, log_q=log_q), proposal

    def tell(state: State, proposal: Proposal, metrics: Metrics) -> State:
        known = proposal.train_mask & metrics.ok & jnp.isfinite(metrics.reward)
        rewards = jnp.where(known, metrics.reward, -jnp.inf)
        return state._replace(
            best=update_best(state.best, proposal, metrics),
            ranking=ranking.add(state.ranking, space.canonical(proposal.archs), rewards),
        )

    def stats(state: State) -> dict[str, Array]:
        return {
            "samples": state.samples,
            "log_q": state.log_q,
            "stable": state.ranking.stable,
            "entropy": q.entropy(state.learnt.phi).sum(),
        }

    return SearchMethod(
        init,
        ask,
        tell,
        best=lambda state: state.best,
        prepare=prepare,
        stats=stats,
        done=lambda state: (config.patience > 0) & (state.ranking.stable >= config.patience),
    )


def report(q: Posterior, space: Space, state: State, scalars: dict[str, Any]) -> dict[str, Any]:
    """What is logged of a part of the training: means over its steps, and where phi stands now.

    Nats per image; `entropy_slots` in nats, `pi` a list for each slot.
    """
    phi = state.learnt.phi
    figures = {name: float(value) for name, value in scalars.items()}
    figures["kl"] = sum(figures[f"kl_{part}"] for part in ("weights", "cost", "entropy"))
    slots = [float(h) for h in q.entropy(phi)]
    mode = [int(a) for a in q.to_archs(q.mode(phi))]
    text = (
        f": nll {figures['nll']:.4f}, kl {figures['kl']:.4f}, entropy {sum(slots):.2f} nats"
        f" ({min(slots):.2f} to {max(slots):.2f} a slot), mode {space.describe(mode)['text']}"
    )
    return figures | {
        "entropy": sum(slots),
        "entropy_slots": slots,
        "mode": mode,
        "pi": q.ragged(q.pi(phi)),
        "gamma": float(state.learnt.gamma),
        "text": text,
    }
