"""What a search computes: children, steps, multiply-adds; pure functions of a few numbers."""

from __future__ import annotations

import math
from typing import NamedTuple

from fnas_jax.core import budget as budget_lib
from fnas_jax.core import devices as devices_lib
from fnas_jax.planning.schedule import FORWARD, Size
from fnas_jax.tasks import halved
from fnas_jax.tasks.context import TrainContext
from fnas_jax.training import halving, parallel


class Work(NamedTuple):
    """Of a search and its winner. An image's work is the multiply-adds of its forward pass."""

    children: int  # that are trained: the budget, fair rounds, finalists
    at_once: int  # children of a batch, which devices share
    child: float  # on average: of the images that one trains on, a third of those that judge it
    finals: float  # of the winner's training, and of its reference's
    judged: float  # of the images that judge these, a third
    batch: int  # images of the winner's minibatches, which devices share


def of(ctx: TrainContext, size: Size) -> Work:
    """The work of the search that `ctx` configures, for networks of `size`."""
    config, dataset = ctx.config, ctx.dataset
    count = len(dataset.train_labels)
    batch = min(ctx.settings.batch_size, count)
    made, judgings = of_children(ctx)
    steps = made * ctx.settings.steps * batch
    judged = judgings * FORWARD * len(dataset.val_labels)
    networks = (1 + config.winner.reference) * (config.winner.steps > 0)
    everything = min(ctx.settings.batch_size, count + len(dataset.val_labels))
    return Work(
        children=budget_lib.children(config, extra(ctx)) + extra(ctx),
        at_once=config.search.batch,
        child=(steps + judged) * size.mean,
        finals=networks * config.winner.steps * everything * size.high,
        judged=networks * FORWARD * len(dataset.test_labels) * size.high,
        batch=everything,
    )


def of_children(ctx: TrainContext) -> tuple[float, float]:
    """(share of their steps that children make, how often they are judged), on average.

    Those beside the budget are trained in full.
    """
    at, how = halved.rungs(ctx), (ctx.settings.halving, ctx.settings.brackets)
    others = extra(ctx)
    budget = budget_lib.children(ctx.config, others)
    each = halving.share(at, ctx.settings.steps, *how), halving.judgings(at, *how)
    made, judged = ((budget * x + others) / (budget + others) for x in each)
    return made, judged


def extra(ctx: TrainContext) -> int:
    """Children beside the budget: with a pool, its fair rounds and the finalists."""
    return budget_lib.others(ctx.config, ctx.space.cardinalities)


def total(work: Work) -> float:
    """All of it, in multiply-adds of forward passes in training."""
    return work.children * work.child + work.finals + work.judged


def seconds(work: Work, speed: float, devices: int, own: float = 0.0) -> float:
    """How long it takes where a device trains at `speed` multiply-adds of forward passes a second.

    And needs `own` seconds more for each child.
    Of a batch of children each has one device; the winner has those that share a minibatch
    (`devices.sharing`; of one host), and one to be judged.
    """
    sharing = devices_lib.sharing(work.batch, parallel.LEAST_IMAGES, devices)
    busy = min(devices, work.at_once)
    batches = math.ceil(work.children / work.at_once) * math.ceil(work.at_once / busy)
    return (batches * work.child + work.finals / sharing + work.judged) / speed + batches * own
