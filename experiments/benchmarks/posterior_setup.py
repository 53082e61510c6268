"""The tasks of the benchmark `posterior`: small networks, and the methods that search them."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.flatten_util
import jax.numpy as jnp
import ml_collections
import numpy as np

from fnas_jax import iteration
from fnas_jax.core import config as config_lib
from fnas_jax.core.clock import Clock
from fnas_jax.core.types import Metrics
from fnas_jax.methods.base import SearchMethod
from fnas_jax.methods.baselines import ppo, random
from fnas_jax.methods.pgnas import build as pgnas
from fnas_jax.methods.spos import build as spos
from fnas_jax.registry import SPACES
from fnas_jax.spaces import macro
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import images, inherited
from fnas_jax.tasks.base import Evaluator, OneShot, Task
from fnas_jax.training import child

# Networks that train the supernet, and the share of them before phi is learnt. For macro and mnas
# tuned on these tasks; the others were never tuned, and have the default share.
TASKS = {
    "macro_mnist5k": (500, 0.35),
    "mnas_mnist5k": (650, 0.5),
    "cell_mnist5k": (650, 0.5),
    "mobilenetv3_mnist5k": (650, 0.5),
    "mixed_cell_mnist5k": (650, 0.5),
}
CHUNK = 8  # architectures judged by one call
RANDOM = 256  # children that random search may train at most


def configuration(task: str, options: argparse.Namespace) -> ml_collections.ConfigDict:
    """Small networks for images of 28x28 pixels."""
    config = config_lib.default()
    config.task.name = "images/mnist5k"
    config.space.name = task.rpartition("_")[0]
    config.space.blocks = 2
    config.space.width = 0.5
    config.space.strides = (1, 2)
    config.space.head = 64
    if config.space.name in ("cell", "mixed_cell"):
        config.space.update(width=1.0, cell_channels=8, cells_per_stage=1)
        config.task.image_size = 14  # a cell's first stage has the images' size
    if config.space.name == "mobilenetv3":
        config.space.update(stages=2, stem_stride=1, strides=(2, 2))  # 28 pixels, 14, 7
    config.children.batch_size = 32
    config.children.eval_batch = 64
    config.children.steps = options.child_steps
    config.akp.enabled = False
    steps, config.pgnas.warmup = TASKS[task]
    config.oneshot.steps = options.steps or steps
    config.search.budget = max(options.children, RANDOM)
    return config_lib.validate(config)


def make_space(config: ml_collections.ConfigDict) -> Space:
    """The Macro space with narrow layers, or a few blocks of the MNAS space."""
    if config.space.name == "macro":
        spec = macro.MacroSpec(channels=(8, 16, 32), stem=8, stem_stride=2, head=64)
        return macro.make(spec)
    return SPACES[config.space.name](config.space)


def changed(config: ml_collections.ConfigDict, **keys: Any) -> ml_collections.ConfigDict:
    """`config` with other values: `oneshot__steps=100`."""
    new = {name.replace("__", "."): value for name, value in keys.items()}
    return config_lib.validate(config_lib.nest(config_lib.flatten(config) | new))


def decaying_alike(config: ml_collections.ConfigDict, task: Task) -> Task:
    """`task`, whose supernets decay as the ELBO of PGNAS makes them.

    The rate is the prior's precision over the number of training images. That of children, which
    SPOS has by itself, is hundreds of times as much, and would be compared along with the sampling.
    """
    assert task.oneshot is not None
    return task._replace(oneshot=functools.partial(_decaying, config.pgnas.precision, task.oneshot))


def _decaying(precision: float, oneshot: Callable[[], OneShot]) -> OneShot:
    parts = oneshot()
    rate = precision / len(parts.data.train_labels)
    return parts._replace(settings=dataclasses.replace(parts.settings, weight_decay=rate))


def trained(method: SearchMethod, key: jax.Array) -> tuple[Any, float, float]:
    """(the method's state after its preparation, CPU seconds, mean nll in the end)."""
    assert method.prepare is not None
    state, nll = method.init(key), float("nan")
    start = time.process_time()
    for item in method.prepare(state, key):
        state, nll = item[0], item[1].get("nll", nll)
    jax.block_until_ready(state)
    return state, time.process_time() - start, nll


def compile_training(method: SearchMethod) -> None:
    """Trains once, as the operations between the parts and behind the last are compiled, too."""
    assert method.prepare is not None
    key = jax.random.key(0)
    for _ in method.prepare(method.init(key), key):
        pass


class InheritedAccuracy:
    """Accuracy of architectures with the weights of one supernet."""

    def __init__(self, task: Task):
        assert task.oneshot is not None
        self.parts = task.oneshot()
        parts = self.parts
        ctx = child.Context(parts.network, parts.settings, parts.pipeline, parts.objective)
        self._run = inherited.judging(ctx, parts.vmap)
        largest = jnp.asarray(task.space.largest)
        shapes = jax.eval_shape(parts.network.init, jax.random.key(0), largest)
        like = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        # The parameters of a supernet's vector [P]
        self.params = jax.flatten_util.ravel_pytree(like)[1]

    def __call__(self, params: Any, archs: np.ndarray) -> np.ndarray:
        """[N] accuracies of `archs` [N, T], each vector judged once."""
        if not len(archs):  # all that were drawn belonged to the search
            return np.zeros(0, np.float32)
        forms, back = np.unique(archs, axis=0, return_inverse=True)
        found = []
        for i in range(0, len(forms), CHUNK):
            some = np.resize(forms[i : i + CHUNK], (CHUNK, forms.shape[1]))
            active = np.arange(CHUNK) < len(forms[i : i + CHUNK])
            outcome = self._run(params, self.parts.data, jnp.asarray(some), jnp.asarray(active))
            found.append(np.asarray(outcome.accuracy)[active])
        return np.concatenate(found)[back.reshape(-1)]


def evolved(
    method: SearchMethod, state: Any, accuracy_of: InheritedAccuracy, params: Any, seed: int, n: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """(architectures [N, T], accuracies [N], CPU seconds) of the second stage of a one-shot method.

    At least `n` are asked for, by its own `ask` and `tell`, and judged with the weights `params`.
    """
    ask, tell = jax.jit(method.ask), jax.jit(method.tell)
    archs: list[np.ndarray] = []
    accuracy: list[np.ndarray] = []
    key, start = jax.random.fold_in(jax.random.key(seed), 3), time.process_time()
    while sum(map(len, archs)) < n:
        state, proposal = ask(state, jax.random.fold_in(key, len(archs)))
        archs.append(np.asarray(proposal.archs))
        accuracy.append(accuracy_of(params, archs[-1]))
        state = tell(state, proposal, judged_by(accuracy[-1]))
    spent = time.process_time() - start
    return np.concatenate(archs), np.concatenate(accuracy), spent


def judged_by(accuracy: np.ndarray) -> Metrics:
    """What a method is told of accuracies [N] that are the reward."""
    n, value = len(accuracy), jnp.asarray(accuracy)
    unknown, yes = jnp.full(n, jnp.nan), jnp.ones(n, bool)
    return Metrics(value, value, unknown, unknown, unknown, jnp.zeros(n), ok=yes, fresh=yes)


class Trained(NamedTuple):
    """A method whose children are trained from fresh weights."""

    method: SearchMethod
    evaluator: Evaluator
    steps: iteration.Steps


class Setup(NamedTuple):
    """What all seeds of a task share; built once, so that it is compiled once."""

    config: ml_collections.ConfigDict
    task: Task
    accuracy_of: InheritedAccuracy
    guided: SearchMethod  # PGNAS
    uniform: SearchMethod  # SPOS
    ppo: Trained
    random: Trained
    alone: np.ndarray  # [A, T] architectures to be ranked


def setup(name: str, options: argparse.Namespace) -> Setup:
    """The task with all its methods; each has done a little, so that nothing is left to compile."""
    config = configuration(name, options)
    task = images.build(config, make_space(config))
    space, key = task.space, jax.random.key(0)
    guided, _ = pgnas.build(config, space, task, None)
    uniform, _ = spos.build(config, space, decaying_alike(config, task), None)
    for method in (guided, uniform) if options.seeds else ():
        compile_training(method)
    both = ppo.build(config, space, task, None), (random.make(space, batch=1), task.evaluator)
    searches = [Trained(*pair, iteration.compiled(*pair)) for pair in both]
    drawn = np.asarray(space.canonical(space.sample(jax.random.key(99), 400)))
    _, index = np.unique(drawn, axis=0, return_index=True)
    alone = drawn[np.sort(index)][: options.alone]
    accuracy_of = InheritedAccuracy(task)
    if options.seeds:
        params = jax.jit(accuracy_of.parts.network.init)(key, jnp.asarray(alone[0]))
        accuracy_of(params, alone[:1])
        evolved(uniform, uniform.init(key), accuracy_of, params, seed=0, n=config.search.batch + 1)
    found = Setup(config, task, accuracy_of, guided, uniform, *searches, alone)
    if options.children and options.seeds:
        run_ppo(found, 0, most=1)
    if options.seeds:
        run_random(found, 0, seconds=0.0)
    return found


def run_ppo(ctx: Setup, seed: int, most: int) -> tuple[np.ndarray, float]:
    """(winner [T], CPU seconds) of PPO that trains `most` children from fresh weights."""
    state, seconds = _run(ctx, ctx.ppo, seed, lambda counts, seconds: counts["trained"] < most)
    return state.best_arch, seconds


def run_random(ctx: Setup, seed: int, seconds: float) -> tuple[np.ndarray, float, int]:
    """(winner [T], CPU seconds, children) of random search that starts no child after `seconds`.

    It trains one child at least, and RANDOM at most.
    """

    def unfinished(counts: dict[str, int], spent: float) -> bool:
        return spent < seconds and counts["proposed"] < RANDOM

    state, spent = _run(ctx, ctx.random, seed, unfinished)
    return state.best_arch, spent, state.counts["trained"]


def _run(
    ctx: Setup, search: Trained, seed: int, unfinished: Callable[[dict[str, int], float], bool]
) -> tuple[iteration.State, float]:
    """(the last state, CPU seconds) of at least one iteration."""
    key, clock = jax.random.key(seed), Clock()
    decisions = len(ctx.task.space.cardinalities)
    state = iteration.initial(search.method, search.evaluator, decisions, key)
    start, spent = time.process_time(), 0.0
    while not state.iteration or unfinished(state.counts, spent):
        state, _, _ = iteration.iterate(search.steps, state, key, clock)
        spent = time.process_time() - start
    clock.close()
    return state, spent
