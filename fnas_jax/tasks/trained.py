"""Children are judged by training them, from fresh weights or from the blocks of a pool.

With a pool (AKP), all children of a batch inherit all their blocks, and what they learn goes back
when all are trained; before the search, fair rounds train every choice of every decision equally
often. Nothing is measured in these, so that no architecture is judged while most blocks of the pool
are untrained.

Children get better as the pool ripens, so before the winner is named the best of them are trained
once more, all from one pool (`finalists`). Fresh weights are the same terms for all: without a pool
there is nothing to repeat.
"""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from fnas_jax.core.types import Array
from fnas_jax.knowledge import pool as pools
from fnas_jax.knowledge import pool_store as stores
from fnas_jax.knowledge.pool import Pool
from fnas_jax.networks import elastic
from fnas_jax.networks.base import Network
from fnas_jax.spaces.base import fair_round
from fnas_jax.tasks import (
    children_evaluator,
    finalists,
    halved,
    pool_access,
    population_trainer,
    protocols,
)
from fnas_jax.tasks.base import Apart, Evaluator, Hooks
from fnas_jax.tasks.children_evaluator import State
from fnas_jax.tasks.context import Batch, TrainContext, batches_of
from fnas_jax.tasks.pool_access import PoolAccess
from fnas_jax.tasks.population_trainer import Trainer
from fnas_jax.training.child import Outcome
from fnas_jax.training.halving import Ladder


class Learnt(NamedTuple):
    """What was learnt from the children."""

    pool: Pool | None  # None without AKP
    rounds: Array  # [] int32 fair rounds so far
    seen: Array  # [] int32 newest version of the stored pool by another run that this one knows
    stats: dict[str, Array]  # of the pool, at the last evaluation
    ladder: Ladder | None = None  # None: no child stops early


def evaluator(ctx: TrainContext) -> Evaluator:
    """Trains what was not evaluated before. Raises UserError for a backend that does not fit.

    The compiled program serves every batch of the same size N, with empty places for known ones.
    """
    network = elastic_network(ctx)
    access = pool_access.open_(ctx, network)
    trainer = population_trainer.make(ctx, network, None if access is None else access.layout)
    init = functools.partial(initial, ctx, access)
    hooks = Hooks(worker_loop=functools.partial(worker_loop, trainer, init))
    if access is not None:
        hooks = hooks._replace(
            prepare=functools.partial(prepare, trainer),
            sync=functools.partial(sync, access),
            apart=Apart(get=pool_of, put=with_pool),
            finals=functools.partial(finalists.hold, ctx, functools.partial(read, trainer)),
        )
    return children_evaluator.make(
        ctx,
        functools.partial(judge, trainer),
        init,
        statistics,
        hooks,
        protocols.of_images(ctx, "fresh" if access is None else "pool"),
    )


def elastic_network(ctx: TrainContext) -> Network:
    """The network that becomes any child. Raises UserError for a backend that does not fit."""
    channels, classes = ctx.dataset.image_shape[-1], ctx.dataset.outputs
    return elastic.make(ctx.space, channels, classes, ctx.settings.backend)


def initial(ctx: TrainContext, access: PoolAccess | None) -> Learnt:
    """Before the first child: the pool of earlier runs, or a fresh one."""
    ladder = halved.empty(ctx) if halved.rungs(ctx) else None
    if access is None:
        return Learnt(None, jnp.int32(0), jnp.int32(0), {}, ladder)
    pool, seen = pool_access.load(access)
    # Where another run has trained blocks, nothing has to be warmed up.
    rounds = ctx.config.akp.rounds if seen and pools.is_trained(pool) else 0
    stats = pools.no_statistics(access.layout, pool)
    return Learnt(pool, jnp.int32(rounds), jnp.int32(seen), stats, ladder)


def statistics(learnt: Learnt) -> dict[str, Array]:
    """What is worth logging."""
    if learnt.ladder is None:
        return learnt.stats
    return learnt.stats | {"stopped": learnt.ladder.stopped, "steps_saved": learnt.ladder.saved}


def judge(trainer: Trainer, learnt: Learnt, batch: Batch, key: Array) -> tuple[Learnt, Outcome]:
    """Trains the new ones of `batch`; the pool learns from them."""
    pool, stats, outcome, ladder = population_trainer.train_population(
        trainer, learnt.pool, batch, key, learnt.ladder
    )
    return learnt._replace(pool=pool, stats=stats, ladder=ladder), outcome


def read(trainer: Trainer, learnt: Learnt, batch: Batch, key: Array) -> Outcome:
    """As `judge`, from the pool as it is, which learns nothing."""
    return population_trainer.judge_population(trainer, learnt.pool, batch, key)


def prepare(trainer: Trainer, state: State, key: Array) -> Iterator[tuple[State, dict[str, Any]]]:
    """Fair rounds of training for the pool; goes on where `state` is."""
    ctx, learnt = trainer.context, state.learnt
    while learnt.rounds < ctx.config.akp.rounds:
        key_round, key_train = jax.random.split(jax.random.fold_in(key, learnt.rounds))
        archs = fair_round(ctx.space.cardinalities, key_round)
        for i, batch in batches_of(ctx, archs):
            # All in full: every choice is to be trained equally often.
            equally, _ = judge(
                trainer, learnt._replace(ladder=None), batch, jax.random.fold_in(key_train, i)
            )
            learnt = equally._replace(ladder=learnt.ladder)
        learnt = learnt._replace(rounds=learnt.rounds + 1)
        yield state._replace(learnt=learnt), {"children": len(archs), **learnt.stats}


def pool_of(state: State) -> Pool:
    """What is large of a state, and on disk in the knowledge store already."""
    return state.learnt.pool


def with_pool(state: State, pool: Pool | None) -> State:
    """`state` with another pool."""
    return state._replace(learnt=state.learnt._replace(pool=pool))


def sync(access: PoolAccess, state: State, into: pathlib.Path) -> State:
    """Writes the pool to the knowledge store, beside what other runs have written meanwhile.

    The run itself goes on with its own: what it does depends on nobody that searches at the same
    time. Links what was written as the folder `into`, too, where that is the same.
    """
    if access.store is not None:
        learnt = state.learnt
        stores.sync(access.store, access.layout, learnt.pool, int(learnt.seen), into)
    return state


def worker_loop(trainer: Trainer, init: Any) -> None:
    """What the other hosts do: they train for the first one."""
    population_trainer.worker_loop(trainer, init().pool)
