"""The finals: the best children of a search are trained once more, on equal terms.

Where a pool teaches the children, they get better while it ripens: of two networks that are equally
good, the one that was asked for later reads better, and the best first reading favours late ones.
So the best few are trained again as in the search, all from one pool, which learns nothing from
them, and are judged by these readings alone; an average with the first would bring the drift back.

Their readings are no rows of the history: the few best of a search, standardised as a task of their
own, would teach other searches that half of them are bad.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core.types import Array, Metrics
from fnas_jax.tasks import cache
from fnas_jax.tasks.base import Finals
from fnas_jax.tasks.children_evaluator import State
from fnas_jax.tasks.context import Batch, TrainContext, batches_of
from fnas_jax.training.child import Outcome

# (what a judge has learnt, batch, key) -> outcomes [N]; nothing is learnt
Reader = Callable[[Any, Batch, Array], Outcome]


def hold(ctx: TrainContext, read: Reader, state: State, key: Array) -> Finals | None:
    """As `Hooks.finals`: second readings of the `winner.finalists` best children of `state`.

    A finalist's key depends on its place only, by falling first reading.
    """
    order, good = cache.best_first(state.cache)
    places = order[good][: ctx.config.winner.finalists]
    if len(places) < 2:
        return None
    archs, first = jax.tree.map(
        lambda x: np.asarray(x)[places], (state.cache.canonical, state.cache.metrics)
    )
    parts = [
        jax.device_get(read(state.learnt, batch, jax.random.fold_in(key, i)))
        for i, batch in batches_of(ctx, archs)
    ]
    second = jax.tree.map(lambda *x: np.concatenate(x)[: len(archs)], *parts)
    return judged(ctx, archs, first, second)


def judged(ctx: TrainContext, archs: np.ndarray, first: Metrics, second: Outcome) -> Finals:
    """The finals of `archs` [k, T]: rewards of the `second` readings with the costs of the first.

    Costs are not measured again: a latency that reads otherwise would be no merit of the child.
    """
    accuracy = np.where(second.ok, second.accuracy, 0).astype(np.float32)
    costs = (jnp.asarray(x) for x in (first.latency_ms, first.mflops, first.params_m))
    reward = np.asarray(ctx.reward(jnp.asarray(accuracy), *costs)) * ctx.prices(archs)
    ok = second.ok & np.isfinite(reward)
    rewards = np.where(ok, reward, 0).astype(np.float32)
    return Finals(archs, first, accuracy, rewards, ok, jax.device_get(second.figures))
