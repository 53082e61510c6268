"""The `Evaluator` and `Task` interfaces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from fnas_jax.core.types import Array, Metrics
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Network
from fnas_jax.spaces.base import Space
from fnas_jax.training import child


class Evaluator(NamedTuple):
    """`evaluate(eval_state, archs [N, T], mask [N], key) -> (eval_state, Metrics)`.

    An architecture whose canonical form is known to `eval_state`, or stands earlier in the same
    batch, is not evaluated again: it gets the first reading and `fresh` False. `eval_state` is a
    pytree of arrays of fixed shapes, so that it can be checkpointed.
    """

    init: Callable[[], Any]
    evaluate: Callable[[Any, Array, Array, Array], tuple[Any, Metrics]]
    jittable: bool  # True: pure, may stand inside jit, scan and vmap
    # A stage before the loop, as `SearchMethod.prepare`: (state, key) -> (state, metrics)..
    prepare: Callable[[Any, Array], Iterator[tuple[Any, dict[str, Any]]]] | None = None
    # Gives what was learnt to the knowledge store and takes what others learnt; called before
    # every checkpoint
    exchange: Callable[[Any], Any] = lambda state: state
    # Scalars worth logging after an evaluation
    stats: Callable[[Any], dict[str, Array]] = lambda state: {}
    # On several hosts: what all but the first do until `hosts.order` is 0. None: the first needs no
    # help
    serve: Callable[[], None] | None = None
    # (state, the method's state after its `prepare`) -> state with what is needed of it
    adopt: Callable[[Any, Any], Any] | None = None
    # (state, arch [T], key) -> JSON-ready facts of the winner that only the evaluator can add
    finish: Callable[[Any, Array, Array], dict[str, Any]] | None = None


class OneShot(NamedTuple):
    """What methods need that train one network for all architectures themselves."""

    network: Network  # elastic
    pipeline: child.Pipeline
    settings: child.Settings
    data: child.Data  # training and validation images
    classes: int
    vmap: bool  # networks at once (accelerators), or one after another
    cost: Callable[[Array], tuple[Array, Array]]  # archs [N, T] -> parameters, multiply-adds, [N]
    # Fresh parameters -> those to start from: with the blocks of the knowledge pool, where it has
    # any
    start: Callable[[Params], Params]
    # Judges with inherited weights; (eval state, params) -> eval state is its `adopt`
    evaluator: Evaluator


class Task(NamedTuple):
    """One search problem: a space, and how its architectures are judged."""

    name: str  # e.g. "images/digits" or "tabular/nats_cifar10"; the key of the history
    space: Space
    evaluator: Evaluator
    # (arch [T], key) -> JSON-ready dict: the winner trained fully and tested beside a reference
    # network (images), or the table's own judgement (tabular). Called once, after the search.
    final: Callable[[Array, Array], dict[str, Any]]
    info: dict[str, Any]  # JSON-ready facts for the log, e.g. number of images, what is measured
    # Numbers that tell data sets apart, for critics that know several; None: nothing known
    statistics: dict[str, float] | None = None
    # A few training images of each class, for the same purpose: uint8 [C, n, H, W, 1 or 3]
    sample_images: np.ndarray | None = None
    # Builds what one-shot methods need; None: architectures can only be looked up
    oneshot: Callable[[], OneShot] | None = None
