"""Meta-learning of the deep kernel: Reptile (Nichol et al. 2018, arXiv 1803.02999), or jointly.

Reptile repeats: pick tasks uniformly; from w, take k steps of Adam on the likelihood of
mini-batches of each task; move w a fraction toward the mean of where they end. `joint` sums the
tasks' losses and has one optimiser, for as many steps.

A mini-batch has rows of the task and as many of one other task (ours): likelihoods within a task
say nothing about phi and rho, which are what tasks have in common. What is kept are the weights
with the best mean Kendall's tau within tasks on rows held out: all of a fifth of the tasks, or,
of fewer than four tasks, a fifth of the rows.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fnas_jax.core.types import Array
from fnas_jax.methods.tnas import losses, networks
from fnas_jax.methods.tnas.losses import Rows
from fnas_jax.methods.tnas.networks import Weights
from fnas_jax.methods.tnas.source_tasks import SourceTasks
from fnas_jax.spaces.base import Space

METHODS = ("reptile", "joint")
CHECK_ROWS = 128  # at most, known and held out, of a check


class Config(NamedTuple):
    """Numbers of the training; core/config.py explains and documents the product's defaults."""

    method: str = "reptile"
    iterations: int = 200
    tasks: int = 4  # picked per iteration
    inner: int = 5  # steps k
    batch: int = 48  # rows of a mini-batch
    outer: float = 0.5  # Reptile's fraction at the start; it falls to 0 linearly
    lr: float = 1e-3  # of the encoders and the fusion
    lr_hyper: float = 1e-2  # of the process's hyper-parameters
    checks: int = 10  # times that the weights are judged


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


def split(history: SourceTasks, key: Array) -> Split:
    """Holds out a fifth of the tasks where there are four, else of the rows."""
    tasks, rows = history.mask.shape
    if tasks >= 4:
        held = jax.random.permutation(key, tasks)[: -(-tasks // 5)]
        check = jnp.zeros(tasks, bool).at[held].set(True)[:, None]
    else:
        check = jax.random.uniform(key, (tasks, rows)) < 0.2
    return Split(history.mask & ~check, history.mask & check)


def optimiser() -> optax.GradientTransformation:
    """Adam's directions of clipped gradients; `learn` gives each part of w its rate."""
    return optax.chain(optax.clip_by_global_norm(10.0), optax.scale_by_adam())


def init(weights: Weights) -> State:
    """Before the first iteration."""
    return State(weights, optimiser().init(weights), weights, jnp.float32(-jnp.inf), jnp.int32(0))


def gather(
    space: Space, net: networks.Config, w: Weights, history: SourceTasks, task: Array, row: Array
) -> Rows:
    """Rows at (task [B], row [B]) of the history, embedded by w."""
    codes = networks.task_codes(net, w, history.sample, history.vectors)
    xi = networks.embed(net, w, codes[task], networks.inputs(space, history.forms[task, row]))
    return Rows(xi, task, history.scores[task, row], jnp.ones(len(task), bool))


def draw(mask: Array, key: Array, task: Array, size: int) -> tuple[Array, Array]:
    """`size` different rows of `task` [] among mask [Q, R]: (row [size], valid [size])."""
    order = jnp.where(mask[task], jax.random.uniform(key, mask.shape[1:]), -1.0)
    value, row = jax.lax.top_k(order, min(size, mask.shape[1]))
    return row, value >= 0


def loss(
    space: Space,
    net: networks.Config,
    config: Config,
    w: Weights,
    history: SourceTasks,
    train: Array,
    task: Array,
    key: Array,
) -> Array:
    """NLL per row of a mini-batch of `task` [] and another one, less the log prior per row."""
    key_other, key_own, key_rows = jax.random.split(key, 3)
    known = train.any(axis=1)
    other = jnp.where(jnp.arange(len(known)) == task, False, known)
    weight = jnp.where(other.any(), other, known).astype(jnp.float32)
    second = jax.random.choice(key_other, len(known), p=weight / weight.sum())
    half = config.batch // 2
    rows = [draw(train, k, t, half) for k, t in ((key_own, task), (key_rows, second))]
    # A history of one task would be drawn from twice.
    repeated = (rows[1][0][:, None] == rows[0][0]).any(axis=1) & (second == task)
    valid = jnp.concatenate([rows[0][1], rows[1][1] & ~repeated])
    row = jnp.concatenate([rows[0][0], rows[1][0]])
    tasks = jnp.repeat(jnp.stack([task, second]), len(row) // 2)
    batch = gather(space, net, w, history, tasks, row)._replace(mask=valid)
    nll = losses.negative_log_likelihood(w.hyper, batch)
    prior = losses.log_prior(w.hyper, networks.start_hyper())
    return (nll - prior) / jnp.maximum(valid.sum(), 1)


def rates(config: Config, w: Weights) -> Weights:
    """The learning rate of each part of w."""
    slow = jax.tree.map(lambda _: config.lr, w)
    return slow._replace(hyper=jax.tree.map(lambda _: config.lr_hyper, w.hyper))


def iterate(
    space: Space,
    net: networks.Config,
    config: Config,
    state: State,
    history: SourceTasks,
    train: Array,
    key: Array,
) -> State:
    """One iteration of Reptile, or as many steps of joint training as its inner loop has."""
    adam, rate = optimiser(), rates(config, state.weights)
    key_pick, key_steps = jax.random.split(key)
    known = train.any(axis=1)
    picked = jax.random.choice(key_pick, len(known), (config.tasks,), p=known / known.sum())

    def objective(w: Weights, task: Array, key: Array) -> Array:
        return loss(space, net, config, w, history, train, task, key)

    def move(w: Weights, adam_state: optax.OptState, slope: Weights) -> tuple:
        slope = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), slope)
        direction, adam_state = adam.update(slope, adam_state)
        return jax.tree.map(lambda x, d, r: x - r * d, w, direction, rate), adam_state

    keys = jax.random.split(key_steps, (config.inner, config.tasks))
    if config.method == "joint":

        def together(carry: tuple, keys: Array) -> tuple[tuple, None]:
            w, adam_state = carry
            slope = jax.grad(lambda w: jax.vmap(objective, (None, 0, 0))(w, picked, keys).mean())(w)
            return move(w, adam_state, slope), None

        (w, adam_state), _ = jax.lax.scan(together, (state.weights, state.adam), keys)
        return state._replace(weights=w, adam=adam_state, iteration=state.iteration + 1)

    def inner(task: Array, keys: Array) -> Weights:
        def step(carry: tuple, key: Array) -> tuple[tuple, None]:
            w, adam_state = carry
            return move(w, adam_state, jax.grad(objective)(w, task, key)), None

        return jax.lax.scan(step, (state.weights, adam.init(state.weights)), keys)[0][0]

    ends = jax.vmap(inner)(picked, keys.swapaxes(0, 1))
    fraction = config.outer * (1 - state.iteration / config.iterations)
    w = jax.tree.map(lambda a, b: a + fraction * (b.mean(axis=0) - a), state.weights, ends)
    return state._replace(weights=w, iteration=state.iteration + 1)


def check(
    space: Space, net: networks.Config, w: Weights, history: SourceTasks, parts: Split, key: Array
) -> Array:
    """[] Kendall's tau within tasks, over all pairs, of the posterior at rows held out."""

    def some(mask: Array, key: Array) -> tuple[Rows, Array]:
        order = jnp.where(mask.reshape(-1), jax.random.uniform(key, (mask.size,)), -1.0)
        value, place = jax.lax.top_k(order, min(CHECK_ROWS, mask.size))
        rows = gather(space, net, w, history, *jnp.divmod(place, mask.shape[1]))
        return rows._replace(mask=value >= 0), value >= 0

    key_known, key_asked = jax.random.split(key)
    (known, _), (asked, valid) = some(parts.train, key_known), some(parts.check, key_asked)
    mean = losses.predict(w.hyper, known, asked.xi, asked.task).mean
    pairs = valid[:, None] & valid & (asked.task[:, None] == asked.task)
    agree = jnp.sign(mean[:, None] - mean) * jnp.sign(asked.score[:, None] - asked.score)
    return jnp.where(pairs, agree, 0.0).sum() / jnp.maximum(pairs.sum() - valid.sum(), 1)


def advance(
    space: Space,
    net: networks.Config,
    config: Config,
    state: State,
    history: SourceTasks,
    key: Array,
) -> State:
    """The next `iterations / checks` iterations and a check; keys depend on the iteration only."""
    key_split, key_check, key_steps = jax.random.split(key, 3)
    parts = split(history, key_split)

    def step(state: State, _: None) -> tuple[State, None]:
        folded = jax.random.fold_in(key_steps, state.iteration)
        return iterate(space, net, config, state, history, parts.train, folded), None

    state, _ = jax.lax.scan(step, state, None, length=-(-config.iterations // config.checks))
    tau = check(space, net, state.weights, history, parts, key_check)
    better = tau > state.tau
    best = jax.tree.map(lambda a, b: jnp.where(better, a, b), state.weights, state.best)
    return state._replace(best=best, tau=jnp.maximum(tau, state.tau))


def fit(
    space: Space,
    net: networks.Config,
    config: Config,
    weights: Weights,
    history: SourceTasks,
    key: Array,
) -> State:
    """A whole training as one pure function."""

    def chunk(state: State, _: None) -> tuple[State, None]:
        return advance(space, net, config, state, history, key), None

    return jax.lax.scan(chunk, init(weights), None, length=config.checks)[0]
