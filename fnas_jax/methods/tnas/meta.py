"""Meta-learning of the deep kernel: Reptile (Nichol et al. 2018, arXiv 1803.02999), or jointly.

Reptile repeats: pick tasks uniformly; from w, take k steps of Adam on the likelihood of
mini-batches of each task; move w a fraction toward the mean of where they end. `joint` sums the
tasks' losses and has one optimizer, for as many steps.

A mini-batch has rows of the task and as many of one other task (ours): likelihoods within a task
say nothing about phi and rho, which are what tasks have in common. What is kept are the weights
with the best mean Kendall's tau within tasks on rows held out: all of a fifth of the tasks, or,
of fewer than four tasks, a fifth of the rows.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnas_jax.core.types import Array
from fnas_jax.methods.tnas import losses, networks
from fnas_jax.methods.tnas.config import Tnas
from fnas_jax.methods.tnas.losses import Rows
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space

CHECKS = 10  # times that the weights are judged
CHECK_ROWS = 128  # at most, known and held out, of a check


class Context(NamedTuple):
    """What a training works with; nothing that changes."""

    space: Space
    config: Tnas
    source: SourceTasks
    checks: int = CHECKS


class State(NamedTuple):
    """Of a training."""

    weights: Weights
    adam: optax.OptState  # of `joint`
    best: Weights
    tau: Array  # [] of `best` on what is held out; -inf before any check
    iteration: Array  # [] int32


class Split(NamedTuple):
    """Which rows teach and which judge."""

    train: Array  # [Q, R] bool
    check: Array  # [Q, R] bool


def split(source: SourceTasks, key: Array) -> Split:
    """Holds out a fifth of the tasks where there are four, else of the rows."""
    tasks, rows = source.mask.shape
    if tasks >= 4:
        held_out = jax.random.permutation(key, tasks)[: -(-tasks // 5)]
        check = jnp.zeros(tasks, bool).at[held_out].set(True)[:, None]
    else:
        check = jax.random.uniform(key, (tasks, rows)) < 0.2
    return Split(source.mask & ~check, source.mask & check)


def optimizer() -> optax.GradientTransformation:
    """Adam's directions of clipped gradients; `rates` gives each part of w its rate."""
    return optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())


def init(weights: Weights) -> State:
    """Before the first iteration."""
    return State(weights, optimizer().init(weights), weights, jnp.float32(-jnp.inf), jnp.int32(0))


def draw(mask: Array, key: Array, task: Array, size: int) -> tuple[Array, Array]:
    """`size` different rows of `task` [] among mask [Q, R]: (row [size], valid [size])."""
    order = jnp.where(mask[task], jax.random.uniform(key, mask.shape[1:]), -1.0)
    value, row = jax.lax.top_k(order, min(size, mask.shape[1]))
    return row, value >= 0


def loss(ctx: Context, train: Array, w: Weights, task: Array, key: Array) -> Array:
    """NLL per row of a mini-batch of `task` [] and another one, less the log prior per row.

    `train` [Q, R] are the rows that may be drawn; `config.batch` of them are.
    """
    key_other, key_own, key_rows = jax.random.split(key, 3)
    known = train.any(axis=1)
    other = jnp.where(jnp.arange(len(known)) == task, False, known)
    weight = jnp.where(other.any(), other, known).astype(jnp.float32)
    second = jax.random.choice(key_other, len(known), p=weight / weight.sum())
    half = ctx.config.batch // 2
    rows = [draw(train, k, t, half) for k, t in ((key_own, task), (key_rows, second))]
    # A history of one task would be drawn from twice.
    repeated = (rows[1][0][:, None] == rows[0][0]).any(axis=1) & (second == task)
    valid = jnp.concatenate([rows[0][1], rows[1][1] & ~repeated])
    row = jnp.concatenate([rows[0][0], rows[1][0]])
    tasks = jnp.repeat(jnp.stack([task, second]), len(row) // 2)
    batch = losses.embed_rows(ctx.space, ctx.config, w, ctx.source, tasks, row)
    nll = losses.negative_log_likelihood(w.hyper, batch._replace(mask=valid))
    prior = losses.log_prior(w.hyper, networks.start_hyper())
    return (nll - prior) / jnp.maximum(valid.sum(), 1)


def rates(config: Tnas, w: Weights) -> Weights:
    """The learning rate of each part of w."""
    slow = jax.tree.map(lambda _: config.lr, w)
    return slow._replace(hyper=jax.tree.map(lambda _: config.lr_hyper, w.hyper))


def move(
    config: Tnas, w: Weights, adam: optax.OptState, slope: Weights
) -> tuple[Weights, optax.OptState]:
    """One step of Adam; what is not finite of the `slope` counts as 0."""
    slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), slope)
    direction, adam = optimizer().update(slope, adam)
    return jax.tree.map(lambda x, d, r: x - r * d, w, direction, rates(config, w)), adam


def iterate(ctx: Context, state: State, train: Array, key: Array) -> State:
    """One iteration of Reptile, or as many steps of joint training as its inner loop has."""
    key_pick, key_steps = jax.random.split(key)
    known = train.any(axis=1)
    # Picked with replacement: more than there are would only repeat them.
    count = min(ctx.config.tasks, len(known))
    picked = jax.random.choice(key_pick, len(known), (count,), p=known / known.sum())
    keys = jax.random.split(key_steps, (ctx.config.inner, count))
    step = joint if ctx.config.meta == "joint" else reptile
    return step(ctx, state, train, picked, keys)._replace(iteration=state.iteration + 1)


def joint(ctx: Context, state: State, train: Array, picked: Array, keys: Array) -> State:
    """A step of one Adam on the mean loss of the `picked` tasks [P], for each of keys [k, P]."""
    objective = functools.partial(loss, ctx, train)

    def mean(w: Weights, keys: Array) -> Array:
        return jax.vmap(objective, (None, 0, 0))(w, picked, keys).mean()

    def step(carry: tuple, keys: Array) -> tuple[tuple, None]:
        w, adam = carry
        return move(ctx.config, w, adam, jax.grad(mean)(w, keys)), None

    (w, adam), _ = jax.lax.scan(step, (state.weights, state.adam), keys)
    return state._replace(weights=w, adam=adam)


def reptile(ctx: Context, state: State, train: Array, picked: Array, keys: Array) -> State:
    """A fraction of the way to the mean of where the `picked` tasks [P] end; keys [k, P]."""
    learn = functools.partial(inner_loop, ctx, state.weights, train)
    ends = jax.vmap(learn)(picked, keys.swapaxes(0, 1))
    fraction = ctx.config.outer * (1 - state.iteration / ctx.config.iterations)
    w = jax.tree.map(lambda a, b: a + fraction * (b.mean(axis=0) - a), state.weights, ends)
    return state._replace(weights=w)


def inner_loop(ctx: Context, w: Weights, train: Array, task: Array, keys: Array) -> Weights:
    """Where k steps of a fresh Adam on `task` [] lead from w; keys [k]."""
    slope = jax.grad(functools.partial(loss, ctx, train))

    def step(carry: tuple, key: Array) -> tuple[tuple, None]:
        w, adam = carry
        return move(ctx.config, w, adam, slope(w, task, key)), None

    return jax.lax.scan(step, (w, optimizer().init(w)), keys)[0][0]


def check(ctx: Context, w: Weights, parts: Split, key: Array) -> Array:
    """[] Kendall's tau within tasks, over all pairs, of the posterior at rows held out."""
    key_known, key_asked = jax.random.split(key)
    known, asked = (
        some_rows(ctx, w, parts.train, key_known),
        some_rows(ctx, w, parts.check, key_asked),
    )
    mean = losses.predict(w.hyper, known, asked.xi, asked.task).mean
    pairs = asked.mask[:, None] & asked.mask & (asked.task[:, None] == asked.task)
    agree = jnp.sign(mean[:, None] - mean) * jnp.sign(asked.score[:, None] - asked.score)
    return jnp.where(pairs, agree, 0.0).sum() / jnp.maximum(pairs.sum() - asked.mask.sum(), 1)


def some_rows(ctx: Context, w: Weights, mask: Array, key: Array) -> Rows:
    """At most `CHECK_ROWS` random rows among the mask [Q, R], embedded by w."""
    order = jnp.where(mask.reshape(-1), jax.random.uniform(key, (mask.size,)), -1.0)
    value, index = jax.lax.top_k(order, min(CHECK_ROWS, mask.size))
    task, row = jnp.divmod(index, mask.shape[1])
    rows = losses.embed_rows(ctx.space, ctx.config, w, ctx.source, task, row)
    return rows._replace(mask=value >= 0)


def advance(ctx: Context, state: State, key: Array) -> State:
    """The next `iterations / checks` iterations, rounded up, and a check.

    None beyond the last, from where on the way that Reptile takes would be negative. Keys depend on
    the iteration only.
    """
    key_split, key_check, key_steps = jax.random.split(key, 3)
    parts = split(ctx.source, key_split)

    total = ctx.config.iterations
    end = jnp.minimum(state.iteration + -(-total // ctx.checks), total)

    def step(state: State) -> State:
        folded = jax.random.fold_in(key_steps, state.iteration)
        return iterate(ctx, state, parts.train, folded)

    state = jax.lax.while_loop(lambda state: state.iteration < end, step, state)
    tau = check(ctx, state.weights, parts, key_check)
    better = tau > state.tau
    best = jax.tree.map(lambda a, b: jnp.where(better, a, b), state.weights, state.best)
    return state._replace(best=best, tau=jnp.maximum(tau, state.tau))


def fit(ctx: Context, weights: Weights, key: Array) -> State:
    """A whole training as one pure function."""

    def chunk(state: State, _: None) -> tuple[State, None]:
        return advance(ctx, state, key), None

    return jax.lax.scan(chunk, init(weights), None, length=ctx.checks)[0]
