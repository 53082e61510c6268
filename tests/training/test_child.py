"""The training loop, with a small network that compiles at once."""

import dataclasses
import functools

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fnas_jax.layers.ops import Moments
from fnas_jax.networks import elastic
from fnas_jax.networks.base import Network
from fnas_jax.objectives import classification
from fnas_jax.training import child, minibatches, optimizer
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline

STEPS = 25


def toy_network() -> Network:
    """Normalised pixels, then a linear layer; arch [1] scales the logits."""

    def forward(params, arch, x, mean, var):
        x = (x.reshape(len(x), -1) - mean) * jax.lax.rsqrt(var + 1e-3) * params["scale"]
        return (x @ params["w"] + params["bias"]) * (1.0 + arch[0])

    def train_step(params, arch, images):
        x = images.reshape(len(images), -1)
        return forward(params, arch, images, x.mean(0), x.var(0))

    def evaluate(params, stats, arch, images, collect):
        x = images.reshape(len(images), -1)
        batch = Moments(x.mean(0), x.var(0))
        used = jax.tree.map(lambda b, s: jnp.where(collect, b, s), batch, stats["norm"])
        return forward(params, arch, images, *used), {"norm": batch}

    def init(key, arch):
        w = 0.1 * jax.random.normal(key, (4, 3))
        return {"w": w, "bias": jnp.zeros(3), "scale": jnp.ones(4)}

    zeros = Moments(jnp.zeros(4), jnp.zeros(4))
    return Network(init, lambda: {"norm": zeros}, train_step, evaluate)


def toy_data(n: int = 90) -> Data:
    """Three classes of 2x2 images, apart by their mean; 90 to train, 30 to evaluate."""
    rng = np.random.default_rng(0)
    labels = np.arange(n + n // 3) % 3
    centres = rng.normal(size=(3, 2, 2, 1)) * 3
    images = (centres[labels] + rng.normal(size=(len(labels), 2, 2, 1))).astype(np.float32)
    labels = labels.astype(np.int32)
    return Data(*map(jnp.asarray, (images[:n], labels[:n], images[n:], labels[n:])))


PIPELINE = Pipeline(lambda x: x, minibatches.unchanged)
SETTINGS = Children(batch_size=16, eval_batch=8)


CONTEXT = child.Context(toy_network(), SETTINGS, PIPELINE, classification.of(3))


def fit(ctx):
    """The jitted function (data, arch [T], key, steps []) -> (params, stats, outcome)."""

    def run(data, arch, key, steps):
        params = child.train(ctx, data, arch, key, steps)
        return params, *child.evaluate(ctx, data, arch, params, jnp.bool_(True))

    return jax.jit(run)


def test_the_number_of_steps_is_data_not_code():
    run = jax.jit(
        lambda steps: child.train(CONTEXT, toy_data(), jnp.zeros(1), jax.random.key(0), steps)
    )
    untrained, trained = run(0), run(STEPS)
    assert run._cache_size() == 1
    start = jax.jit(toy_network().init)(jax.random.split(jax.random.key(0), 3)[0], jnp.zeros(1))
    chex.assert_trees_all_close(untrained, start)
    assert not np.allclose(untrained["w"], trained["w"])


def test_training_equals_sgd_written_out():
    """Two steps against numpy: gradient of the mean cross-entropy, decay, Nesterov momentum."""
    settings = dataclasses.replace(
        SETTINGS, weight_decay=0.01, momentum=0.8, lr=0.5, label_smoothing=0.1
    )
    data, steps = toy_data(32), 2
    ctx = CONTEXT._replace(settings=settings)
    train = jax.jit(functools.partial(child.train, ctx))
    params = train(data, jnp.zeros(1), jax.random.key(0), steps)
    key_init, key_order, _ = jax.random.split(jax.random.key(0), 3)
    p = jax.tree.map(np.float64, jax.jit(toy_network().init)(key_init, jnp.zeros(1)))
    order = np.asarray(jax.random.permutation(jax.random.fold_in(key_order, 0), 32))
    trace = jax.tree.map(np.zeros_like, p)
    for i in range(steps):
        rows = order[i * 16 : (i + 1) * 16]
        raw = np.asarray(data.train_images, np.float64)[rows].reshape(16, 4)
        x = (raw - raw.mean(0)) / np.sqrt(raw.var(0) + 1e-3)
        logits = x * p["scale"] @ p["w"] + p["bias"]
        probs = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
        targets = 0.9 * np.eye(3)[np.asarray(data.train_labels)[rows]] + 0.1 / 3
        error = (probs - targets) / 16
        gradient = {
            "w": (x * p["scale"]).T @ error,
            "bias": error.sum(0),
            "scale": (x * (error @ p["w"].T)).sum(0),
        }
        gradient["w"] += 0.01 * p["w"]
        rate = float(optimizer.learning_rate(settings, jnp.int32(i), jnp.int32(steps)))
        for name, g in gradient.items():
            trace[name] = g + 0.8 * trace[name]
            p[name] = p[name] - rate * (g + 0.8 * trace[name])
    for name in p:
        np.testing.assert_allclose(params[name], p[name], rtol=1e-4, atol=1e-5)


def test_learning_rate_rises_then_falls_to_zero():
    settings, steps = Children(lr=0.4, warmup=0.2), 50
    rates = [
        float(optimizer.learning_rate(settings, jnp.int32(i), jnp.int32(steps))) for i in range(51)
    ]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == pytest.approx(0.4) and rates.index(max(rates)) in (9, 10)
    assert rates[30] == pytest.approx(0.2)  # half of the cosine
    assert rates[50] == pytest.approx(0.0, abs=1e-6)


def test_statistics_are_those_of_all_calibration_batches_together():
    data = toy_data()
    params = jax.jit(toy_network().init)(jax.random.key(0), jnp.zeros(1))
    evaluate = jax.jit(functools.partial(child.evaluate, CONTEXT))
    stats, outcome = evaluate(data, jnp.zeros(1), params, jnp.bool_(True))
    seen = np.asarray(data.train_images)[: 8 * SETTINGS.calibration].reshape(-1, 4)
    np.testing.assert_allclose(stats["norm"].mean, seen.mean(0), rtol=1e-5)
    np.testing.assert_allclose(stats["norm"].var, seen.var(0), rtol=1e-4)
    x = (np.asarray(data.eval_images).reshape(-1, 4) - seen.mean(0)) / np.sqrt(seen.var(0) + 1e-3)
    logits = x @ np.asarray(params["w"])
    # 30 images in batches of 8: the last batch is not full, and no image counts twice.
    assert outcome.accuracy == pytest.approx((logits.argmax(1) == data.eval_labels).mean())
    nats = np.log(np.exp(logits).sum(1)) - logits[np.arange(30), np.asarray(data.eval_labels)]
    assert outcome.loss == pytest.approx(nats.mean(), rel=1e-4)


def test_a_child_that_diverges_is_not_ok_and_has_accuracy_zero():
    run = fit(CONTEXT._replace(settings=dataclasses.replace(SETTINGS, lr=1e30)))
    *_, outcome = run(toy_data(), jnp.zeros(1), jax.random.key(0), jnp.int32(STEPS))
    assert not outcome.ok
    assert outcome.accuracy == 0.0


class _Plain(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Conv(5, (3, 3), use_bias=False)(x)
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)(x)
        return nn.Dense(3)(nn.relu(x).mean((1, 2)))


def test_a_plain_module_trains_like_any_network():
    network = elastic.from_module(_Plain(), (2, 2, 1))
    run = fit(CONTEXT._replace(network=network))
    params, stats, outcome = run(toy_data(), jnp.zeros(0), jax.random.key(0), jnp.int32(150))
    assert outcome.accuracy > 0.9
    # The statistics are the training images' own, not a running average of them.
    images = toy_data().train_images[: 8 * SETTINGS.calibration]
    conv = nn.Conv(5, (3, 3), use_bias=False).apply({"params": params["Conv_0"]}, images)
    np.testing.assert_allclose(stats["BatchNorm_0"].mean, conv.mean((0, 1, 2)), atol=1e-4)
    np.testing.assert_allclose(stats["BatchNorm_0"].var, conv.var((0, 1, 2)), rtol=1e-3)


def test_large_images_are_judged_a_few_at_a_time(monkeypatch):
    """By as many images in all, and to the same outcome."""
    seen = []
    plain = CONTEXT.network.apply_eval

    def recorded(params, stats, arch, images, collect):
        seen.append(images.shape[0])
        return plain(params, stats, arch, images, collect)

    ctx = CONTEXT._replace(
        network=CONTEXT.network._replace(apply_eval=recorded),
        settings=dataclasses.replace(SETTINGS, eval_batch=30, batch_size=2),
    )
    data = toy_data()
    params = jax.jit(toy_network().init)(jax.random.key(0), jnp.zeros(1))
    found = [child.evaluate(ctx, data, jnp.zeros(1), params, jnp.bool_(True))]
    monkeypatch.setattr(child, "_PIXELS", 2 * 2 * 10)  # ten images of 2x2
    found.append(child.evaluate(ctx, data, jnp.zeros(1), params, jnp.bool_(True)))
    assert seen == [30, 10]
    chex.assert_trees_all_close(*found, rtol=1e-5)
    assert child.judged_at_once(ctx.settings, data) == (10, 3 * ctx.settings.calibration)
    # As many as a step of training has may be, in equal parts.
    larger = dataclasses.replace(ctx.settings, batch_size=16)
    assert child.judged_at_once(larger, data) == (15, 2 * ctx.settings.calibration)
