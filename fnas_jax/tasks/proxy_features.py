"""Zero-cost proxies as features: measured of some networks, and predicted of all others.

A method asks about thousands of networks for each that it trains, and proxies cost a pass through a
network. So some are measured, once, and a ridge regression on decisions, structure and costs says
what it expects of the others. What these do not say is left out.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fnas_jax.core import hosts, identity, keep, precision, stages
from fnas_jax.core.types import Array, Features
from fnas_jax.networks import elastic, proxies
from fnas_jax.networks.dense import Outputs
from fnas_jax.networks.proxies import Batch
from fnas_jax.networks.structure import Part
from fnas_jax.objectives.base import Objective
from fnas_jax.spaces.base import Space, distinct, one_hot
from fnas_jax.tasks import data
from fnas_jax.tasks.context import TrainContext

LOG = logging.getLogger(__name__)
LOG.setLevel(logging.INFO)  # what methods go by is told
MEASURED = 64  # networks
FEWEST = 16  # networks of which anything is learnt
IMAGES, PIXELS = (16, 64), 2**18  # least and most images of a minibatch, pixels of them all
VERSION = 1  # of what the numbers mean
LEAST = 0.5  # share of a proxy's variance that has to be said of networks not measured
SHRINKAGE = tuple(10.0**p for p in range(-3, 4))  # of the regression


class Line(NamedTuple):
    """A linear prediction."""

    weights: np.ndarray  # [D]
    offset: float
    share: float  # of the variance that it says of networks that it has not seen


def part(ctx: TrainContext, known: Features) -> Part | None:
    """The proxies of `ctx.space` on its training images; None where nothing is to be had.

    `known`: structure and costs. Only the first host measures, as only that one has a method.
    """
    if not hosts.is_first():
        return None
    archs = drawn(ctx.space)
    if len(archs) < FEWEST:
        LOG.info(
            "zero-cost proxies need %d networks, and there are %d: they are left out",
            FEWEST,
            len(archs),
        )
        return None
    batch, goal, outputs = minibatch(ctx), ctx.objective.known, ctx.dataset.outputs
    if len(batch.images) < 2:
        LOG.info("zero-cost proxies need two different images: they are left out")
        return None
    names = proxies.seen(ctx.space)
    if len(names) < len(proxies.NAMES):
        LOG.info("with layers of your own, zero-cost proxies are %s", ", ".join(names))
    of = identity.text(
        {
            "space": ctx.space.key,
            "objective": [ctx.objective.name, goal.weights, goal.centre, goal.spread, outputs],
            "proxies": [VERSION, *names],
            "of": identity.of_arrays([archs, *batch]),
        }
    )
    nothing = np.full((len(archs), len(names)), np.inf)
    values = np.asarray(ctx.keep.load(keep.MEASURED, of, nothing))
    if np.isinf(values).all():
        loss = functools.partial(loss_of, ctx.objective)
        there = [proxies.NAMES.index(name) for name in names]
        values = measured(ctx.space, outputs, loss, batch, archs)[:, there]
        ctx.keep.save(keep.MEASURED, of, 1, values)
    found = predicted(ctx.space, known, archs, values, names)
    # By what was asked, as the last bits differ between devices.
    return None if found is None else found._replace(identity=identity.digest(of))


def drawn(space: Space) -> np.ndarray:
    """[M, T] different canonical networks, at random; fewer than MEASURED of a small space."""
    return distinct(space, jax.random.key(0), 8 * MEASURED)[:MEASURED]


def minibatch(ctx: TrainContext) -> Batch:
    """Different training images of `ctx` at random, normalised and not augmented.

    As many as `IMAGES` and `PIXELS` say; of large images no more than a child is trained on.
    """
    there, (height, width, _) = len(ctx.dataset.train_labels), ctx.dataset.image_shape
    least, most = max(min(IMAGES[0], ctx.settings.batch_size), 2), IMAGES[1]
    count = int(np.clip(PIXELS // (height * width), least, most))
    order = np.random.default_rng(0).permutation(there)[: 2 * count]
    images = np.asarray(ctx.dataset.train_images[np.sort(order)])
    # Equal ones would make correlations and agreements singular.
    _, first = np.unique(images.reshape(len(images), -1), axis=0, return_index=True)
    place = np.argsort(np.argsort(order))  # among the sorted rows
    chosen = np.sort(place[np.isin(place, first)][:count])
    normal = data.normalise(images[chosen], ctx.dataset.mean, ctx.dataset.std)
    return Batch(normal, np.asarray(ctx.dataset.train_labels[np.sort(order)[chosen]]))


def measured(
    space: Space,
    outputs: Outputs,
    loss: Callable[[Array, Array], Array],
    batch: Batch,
    archs: np.ndarray,
) -> np.ndarray:
    """[M, 5] float64 proxies of `archs` [M, T]; NaN where one is no number.

    `loss` as that of `proxies.raw`. All have the same weights, as far as these fit.
    """
    image = batch.images.shape[1:]
    network, double = (
        elastic.plain(space, image[-1], outputs, dtype) for dtype in (jnp.float32, jnp.float64)
    )
    look = jax.jit(functools.partial(proxies.raw, network, loss))
    flow = jax.jit(functools.partial(proxies.log_synflow, double))
    stats, began, found = network.init_stats(), time.monotonic(), []
    with stages.at("zero-cost proxies of untrained networks"):
        for arch in archs:
            seen = jax.tree.map(np.asarray, look(batch, jax.random.key(0), arch))
            with precision.on_cpu(), precision.float64():
                weights = jax.tree.map(lambda leaf: leaf.astype(np.float64), seen.params)
                log_synflow = float(flow(weights, arch, np.ones((1, *image))))
            found.append(proxies.scores(space, arch, seen, stats, log_synflow))
            stages.counted(len(found), len(archs), "networks")
    seconds = time.monotonic() - began
    LOG.info("zero-cost proxies of %d networks took %.0f seconds", len(archs), seconds)
    return np.where(np.isfinite(found), found, np.nan)


def loss_of(objective: Objective, outputs: Array, targets: Array) -> Array:
    """[] the mean loss of training, with its weights of classes, without smoothing."""
    return objective.loss(outputs, targets, 0.0)


def predicted(
    space: Space,
    known: Features,
    archs: np.ndarray,
    values: np.ndarray,
    names: Sequence[str] = proxies.NAMES,
) -> Part | None:
    """What the `values` [M, F] by `names` of `archs` [M, T] say of all networks of `space`.

    As Gaussian scores of ranks, because only the order of a proxy means something. None where
    `known` and decisions do not say any of them.
    """
    said = functools.partial(code, space, known.of)
    x = np.asarray(said(jnp.asarray(archs)), np.float64)
    lines: dict[str, Line] = {}
    for name, column in zip(names, values.T, strict=True):
        there = np.isfinite(column)
        if there.sum() < FEWEST or np.ptp(column[there]) == 0:
            LOG.info("%s is the same for all networks, or no number: it is left out", name)
            continue
        line = regression(x[there], scores(column[there]))
        says = line.share >= LEAST
        LOG.info(
            "%s of %d networks, %.0f%% of its variance predicted of those not measured%s",
            *(name, there.sum(), 100 * max(line.share, 0.0)),
            "" if says else ": it is left out",
        )
        if says:
            lines[name] = line
    if not lines:
        return None
    weights = np.stack([line.weights for line in lines.values()], axis=1).astype(np.float32)
    offset = np.array([line.offset for line in lines.values()], np.float32)
    return Part(tuple(lines), functools.partial(_lines, said, weights, offset))


def code(space: Space, known: Callable[[Array], Array], archs: Array) -> Array:
    """[N, D] float32 that predictions of canonical archs [N, T] are made of."""
    return jnp.concatenate([one_hot(space.cardinalities, archs), known(archs)], axis=1)


def scores(values: np.ndarray) -> np.ndarray:
    """[M] Gaussian scores of the ranks of `values` [M]."""
    from scipy.stats import norm, rankdata  # half a second, for proxies alone

    return np.asarray(norm.ppf((rankdata(values) - 0.5) / len(values)))


def regression(x: np.ndarray, y: np.ndarray) -> Line:
    """Ridge regression of y [M] on x [M, D], by the shrinkage that predicts best what is left out.

    One network at a time is left out.
    """
    from sklearn.linear_model import RidgeCV  # half a second, for proxies alone

    found = RidgeCV(SHRINKAGE).fit(x, y)
    return Line(found.coef_, float(found.intercept_), float(1 + found.best_score_ / y.var()))


def _lines(
    said: Callable[[Array], Array], weights: np.ndarray, offset: np.ndarray, archs: Array
) -> Array:
    """[N, F] of canonical archs [N, T]."""
    return jnp.matmul(said(archs), weights, precision=lax.Precision.HIGHEST) + offset
