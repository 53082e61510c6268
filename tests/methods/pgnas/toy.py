"""Supernets without images, small enough to be enumerated."""

import jax.numpy as jnp
import numpy as np

from fnas_jax.methods.oneshot import supernet
from fnas_jax.methods.pgnas import method as pgnas
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline

PIPELINE = Pipeline(normalise=lambda x: x, augment=lambda key, x: x)


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
        used=lambda arch: {"w": q.to_switches(arch) > 0},
        settings=Children(lr=lr, max_grad_norm=100.0),
        updates=steps,
        vmap=False,
    )


def learn(q, net, config, features, targets, costs, key):
    """The posterior and weights after `net.steps` steps on all examples at a time."""
    examples = len(targets)
    data = Data(*map(jnp.asarray, (features, targets, features, targets)))
    step = pgnas.make_step(q, net, config, examples, costs)
    run = supernet.runner(step, lambda state: state.steps, PIPELINE, examples)
    state = pgnas.start(q, net, {"w": jnp.full(q.mask.shape, 0.1)})
    return run(state, key, data, jnp.int32(steps_of(net, config)))


def steps_of(net, config):
    """Steps of the whole training."""
    return net.updates if config.average else net.updates // config.mc_samples


def no_cost(archs):
    return jnp.zeros(len(archs))
