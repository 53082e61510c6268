"""The `Evaluator` and `Task` interfaces."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Array, Features, Metrics
from fnas_jax.layers.ops import Params
from fnas_jax.networks.base import Network
from fnas_jax.objectives.base import Objective
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.data import Dataset
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline


class TrainedNetwork(NamedTuple):
    """A network after its last training."""

    arch: np.ndarray  # [T] int32, in the form by which `variables` are named
    # "params" and "batch_stats" of `flax_reference.build(space, arch, classes)`, float32 numpy
    variables: dict[str, Any]
    # On the test images, by the arithmetic of its training; as `Metrics.accuracy`
    accuracy: float
    recipe: dict[str, Any]  # how it was trained; JSON-ready
    objective: Objective  # what it was trained for


class Judged(NamedTuple):
    """What is found out about a winner."""

    facts: dict[str, Any]  # JSON-ready
    network: TrainedNetwork | None = None  # None: none was trained, or the training failed


class Finals(NamedTuple):
    """Second readings of k finalists, on equal terms; sorted by the first, the best first."""

    archs: np.ndarray  # [k, T] int32, in the form that was evaluated
    first: Metrics  # of [k]: as the search read them
    accuracy: np.ndarray  # [k] float32, on validation images as in the search
    reward: np.ndarray  # [k] float32 of that accuracy and the costs of `first`
    ok: np.ndarray  # [k] bool: False where the second training failed
    metrics: dict[str, np.ndarray] | None = None  # [k] each: all of the second readings


class Apart(NamedTuple):
    """The large part of an evaluator's state, which stands beside its checkpoints, not in them."""

    get: Callable[[Any], Any]  # state -> the part, a pytree of arrays of fixed shapes
    put: Callable[[Any, Any], Any]  # (state, part or None) -> state


class Hooks(NamedTuple):
    """What an evaluator may do around the loop; None: nothing."""

    # A stage before the loop, as `SearchMethod.prepare`: (state, key) -> (state, metrics)..
    prepare: Callable[[Any, Array], Iterator[tuple[Any, dict[str, Any]]]] | None = None
    # (state, folder) -> state, before every checkpoint: gives what was learnt to the knowledge
    # store, and takes what other runs have learnt. Where the store holds what `apart` gives, the
    # folder gets a link to it (`core.apart.link`)
    sync: Callable[[Any, pathlib.Path], Any] | None = None
    # What checkpoints do not hold themselves: with `load_weights`, what that loads
    apart: Apart | None = None
    # On several hosts: what all but the first do until `hosts.broadcast_command` gives 0
    worker_loop: Callable[[], None] | None = None
    # (state, the method's state after its `prepare`) -> state with the weights that it trained;
    # an evaluator with this hook judges children with these and trains none
    load_weights: Callable[[Any, Any], Any] | None = None
    # (state, key) -> second readings of the best that `state` knows, of which it learns nothing;
    # None: there are not two of them. Evaluators whose first readings are on equal terms have none.
    finals: Callable[[Any, Array], Finals | None] | None = None
    # (state, arch [T], key) -> what only the evaluator can add about the winner
    finalize: Callable[[Any, Array, Array], Judged] | None = None


class Evaluator(NamedTuple):
    """`evaluate(eval_state, archs [N, T], mask [N], key) -> (eval_state, Metrics)`.

    An architecture whose canonical form is known to `eval_state`, or stands earlier in the same
    batch, is not evaluated again: it gets the first reading and `fresh` False. `eval_state` is a
    pytree of arrays of fixed shapes, so that it can be checkpointed.
    """

    init: Callable[[], Any]
    evaluate: Callable[[Any, Array, Array, Array], tuple[Any, Metrics]]
    jittable: bool  # True: pure, may stand inside jit, scan and vmap
    # [N, T] -> [N, T]: the form in which what is asked is evaluated and reported. Tables have a row
    # for each form of a network; of children, all forms are trained as one.
    form: Callable[[Array], Array] = lambda archs: archs
    # [] int32: how many networks could still be evaluated; 0 ends the search. None: nobody knows
    left: Callable[[Any], Array] | None = None
    # Scalars worth logging after an evaluation
    stats: Callable[[Any], dict[str, Array]] = lambda state: {}
    hooks: Hooks = Hooks()
    # All that makes its accuracies and costs comparable with others of the task, as canonical JSON
    # (`core.identity`): steps, data, where weights come from. "": unknown. The reward is no part of
    # it, because it can be computed anew.
    protocol: str = ""


class OneShot(NamedTuple):
    """What methods need that train one network for all architectures themselves."""

    network: Network  # elastic
    pipeline: Pipeline
    objective: Objective
    settings: Children
    data: Data  # training and validation images
    vmap: bool  # networks at once (accelerators), or one after another
    cost: Callable[[Array], tuple[Array, Array]]  # archs [N, T] -> parameters, multiply-adds, [N]
    # Fresh parameters -> those to start from, which are the knowledge pool's where it has any
    start: Callable[[Params], Params]
    # Judges with inherited weights; (eval state, params) -> eval state is its `load_weights`
    evaluator: Evaluator
    mesh: Mesh | None = None  # of devices that share each minibatch; None: one has all of it


class Task(NamedTuple):
    """One search problem: a space, and how its architectures are judged."""

    # E.g. "images/digits" or "tabular/nats_cifar10"; in the history, `evaluator.protocol` tells
    # tasks of one name apart
    name: str
    space: Space
    evaluator: Evaluator
    # (arch [T], key) -> the winner trained fully and tested beside a reference network (images), or
    # the table's own judgement (tabular). Called once, after the search.
    final: Callable[..., Judged]
    # (archs [K, T], key, told how far it is) -> facts of each after the training of `final`, judged
    # by validation images. None: nothing is trained
    compare: Callable[..., list[dict[str, Any]]] | None = None
    # Both take a `core.keep.Keep` as their last argument, and go on from what it has
    keeps: bool = False
    trains: bool = False  # its evaluator trains children for a number of steps
    # Numbers that tell data sets apart, for critics that know several; None: nothing known
    statistics: dict[str, float] | None = None
    # A few training images of each class, for the same purpose: uint8 [C, n, H, W, 1 or 3]
    sample_images: np.ndarray | None = None
    # What the winner takes and is tested on; None: there are no images
    dataset: Dataset | None = None
    # Builds what one-shot methods need; None: architectures can only be looked up
    oneshot: Callable[[], OneShot] | None = None
    measure: Measure = Measure()
    # [N, T] -> [N] bool, jittable: which ones exist and keep the hard limits, by the costs that are
    # known before anything is evaluated; None: all
    allowed: Callable[[Array], Array] | None = None
    # [M, T] int32, different: all that exist, and their canonical forms, where not all of the space
    # do, as in a table with gaps; None: all of it. Methods propose no others
    existing: Array | None = None
    # `Metrics.seconds` are those of trainings that others have done, and none of them pass here: a
    # digest of them all; "": they are not
    simulated: str = ""
    # The evaluator may refuse one that is allowed, which takes nothing of the budget
    refuses: bool = False
    # Raises UserError where no network known keeps the hard limits. For the start of a search: one
    # that has begun is gone on with, and its networks are trained again, however busy the machine
    check: Callable[[], None] | None = None
    # Raises UserError where the memory here does not suffice for a search; at each of its starts
    fits: Callable[[], None] | None = None
    said: tuple[str, ...] = ()  # lines about it for the start of a search
    layers: str = ""  # by what code the layers of its children are computed here; "": none are
    # What is known of every network before it is trained, for methods that predict: they find it
    # as `Space.features`. Built when it is asked for; None: nothing
    features: Callable[[], Features | None] = lambda: None
