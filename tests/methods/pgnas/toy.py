"""Supernets without images, small enough to be enumerated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.oneshot import stages, supernet
from fnas_jax.methods.pgnas import step
from fnas_jax.training import minibatches
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline

PIPELINE = Pipeline(normalise=lambda x: x, augment=minibatches.unchanged)


def regression(cardinalities, examples, seed=0):
    """(features [D, L, K], targets [D]): a linear model whose features are orthogonal and equally
    long, so that the posterior over operations is a product over slots.
    """
    rng = np.random.default_rng(seed)
    slots, width = len(cardinalities), max(cardinalities)
    features = np.linalg.qr(rng.normal(size=(examples, slots * width)))[0] * np.sqrt(examples)
    weights = np.linspace(0.15, 0.4, slots * width)
    targets = features @ weights + rng.normal(size=examples)
    return features.reshape(examples, slots, width).astype(np.float32), targets.astype(np.float32)


def squared_error(params, arch, z, images, labels):
    """Negative log-likelihood of unit Gaussian noise, per example, up to a constant."""
    residual = labels - jnp.einsum("lk,lk,blk->b", z, params["w"], images)
    return 0.5 * (residual**2).mean()


def make(q, loss, steps, lr=0.05):
    """A supernet with one weight for each operation."""
    return supernet.Supernet(
        loss=loss,
        template={"w": jnp.zeros(q.mask.shape)},
        used=lambda arch: {"w": to_switches(q, arch) > 0},
        settings=Children(lr=lr, max_grad_norm=100.0),
        updates=steps,
        vmap=False,
    )


def to_switches(q, archs):
    """The inverse of `Posterior.to_archs`: [.., T] -> [.., L, K] float32."""
    if q.subset:
        zeros = jnp.zeros((*archs.shape[:-1], *q.mask.shape))
        return zeros.at[..., q.mask].set(archs.astype(jnp.float32))
    return jax.nn.one_hot(archs, q.mask.shape[1])


def learn(q, net, config, features, targets, costs, key):
    """The posterior and weights after `net.steps` steps on all examples at a time."""
    examples = len(targets)
    data = Data(*map(jnp.asarray, (features, targets, features, targets)))
    ctx = step.Context(q, net, config, examples, costs)
    train = functools.partial(step.step, ctx)
    stage = stages.Stage(train, lambda state: state.steps, PIPELINE, examples)
    state = step.start(ctx, {"w": jnp.full(q.mask.shape, 0.1)})
    nothing, steps = stages.nothing(step.SCALARS), jnp.int32(steps_of(net, config))
    state, tally = stages.compiled(stage)(state, nothing, key, data, steps)
    return state, stages.means(tally)


def steps_of(net, config):
    """Steps of the whole training."""
    return net.updates if config.average else net.updates // config.mc_samples


def no_cost(archs):
    return jnp.zeros(len(archs))
