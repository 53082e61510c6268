"""Flax as its examples use it: a module of `nn.Conv`, and a step compiled for each architecture."""

from __future__ import annotations

import functools
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.benchmarks.throughput import common
from fnas_jax.networks import flax_reference


@functools.cache
def _images() -> common.Images:
    return jax.device_put(common.images())


def answer(space: str, archs: np.ndarray, steps: int, seed: int) -> common.Answer:
    """Trains the children one after another."""
    start = time.perf_counter()
    accuracy, step_ms, compiling = [], [], 0.0
    for i, arch in enumerate(archs):
        found, seconds, waited = _child(space, arch, steps, seed + i)
        accuracy.append(found)
        step_ms.append(1000 * seconds / steps)
        compiling += waited
    return common.Answer(time.perf_counter() - start, compiling, accuracy, step_ms)


def _child(space: str, arch: np.ndarray, steps: int, seed: int) -> tuple[float, float, float]:
    """(accuracy, seconds of all steps, seconds of compilation)."""
    data = _images()
    module = flax_reference.build(common.space(space), arch, common.CLASSES, fast=False)

    def decayed(params):
        return jax.tree.map(lambda p: p.ndim > 1, params)

    optimizer = optax.chain(
        optax.clip_by_global_norm(common.CLIP),
        optax.add_decayed_weights(common.DECAY, decayed),
        optax.sgd(lambda step: rates[step], common.MOMENTUM, nesterov=True),
    )
    rates = jnp.asarray([common.rate(i, steps) for i in range(steps)])

    def step(state, images, labels):
        params, stats, momentum = state

        def loss_of(params):
            variables = {"params": params, "batch_stats": stats}
            logits, new = module.apply(variables, images, train=True, mutable=["batch_stats"])
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
            return losses.mean(), new["batch_stats"]

        gradient, new = jax.grad(loss_of, has_aux=True)(params)
        update, momentum = optimizer.update(gradient, momentum, params)
        return optax.apply_updates(params, update), new, momentum

    def hits(state, images, labels):
        variables = {"params": state[0], "batch_stats": state[1]}
        return (module.apply(variables, images, train=False).argmax(-1) == labels).sum()

    start = time.perf_counter()
    example = jnp.zeros((common.BATCH, *data.train_images.shape[1:]))
    variables = jax.jit(module.init, static_argnames="train")(
        jax.random.key(seed), example, train=False
    )
    state = (
        variables["params"],
        variables["batch_stats"],
        optimizer.init(variables["params"]),
    )
    labels = jnp.zeros(common.BATCH, jnp.int32)
    compiled = jax.jit(step, donate_argnums=0).lower(state, example, labels).compile()
    evaluation = (data.eval_images[: common.EVAL_BATCH], data.eval_labels[: common.EVAL_BATCH])
    compiled_hits = jax.jit(hits).lower(state, *evaluation).compile()
    waited = time.perf_counter() - start

    start = time.perf_counter()
    for rows in common.batches(len(data.train_labels), steps, seed):
        state = compiled(state, data.train_images[rows], data.train_labels[rows])
    jax.block_until_ready(state)
    seconds = time.perf_counter() - start
    count = len(data.eval_labels) // common.EVAL_BATCH * common.EVAL_BATCH
    total = 0
    for i in range(0, count, common.EVAL_BATCH):
        rows = slice(i, i + common.EVAL_BATCH)
        total += int(compiled_hits(state, data.eval_images[rows], data.eval_labels[rows]))
    return total / count, seconds, waited
