"""From a configuration's names to spaces, tasks and methods; the one place that knows all."""

from __future__ import annotations

import importlib
import json
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_collections
import numpy as np

from fnas_jax import ending, parts, simulated
from fnas_jax.core import config as config_lib
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.base import SearchMethod
from fnas_jax.networks import proxies
from fnas_jax.parts import Parts
from fnas_jax.spaces import (
    categorical,
    cell,
    known,
    macro,
    mixed_cell,
    mixed_chain,
    mnas,
    mobilenetv3,
)
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.widen import widen
from fnas_jax.tasks import features, latency
from fnas_jax.tasks.base import Evaluator, Task

SPACES: dict[str, Callable[[Any], Space]] = {
    "mnas": lambda s: mnas.make(s.blocks, s.width, s.strides, s.stem, s.stem_stride, s.head),
    "mobilenetv3": lambda s: mobilenetv3.make(s.stages, s.width, s.strides, s.stem_stride),
    "macro": lambda s: widen(macro.make(), s.width),
    "cell": lambda s: cell.make(s.cell_channels, s.cells_per_stage),
    "mixed_cell": lambda s: mixed_cell.make(s.cell_channels, s.cells_per_stage),
    "mixed_chain": lambda s: mixed_chain.make(s.cell_channels, s.cells_per_stage),
    "categorical": lambda s: categorical.make(s.cardinalities),
}
LOG = logging.getLogger(__name__)
LOG.setLevel(logging.INFO)  # what methods go by is told
NONE = Parts()  # no part was given as an object
# Modules with a `build`; only the chosen ones are imported.
TASKS = {"images": "fnas_jax.tasks.images", "tabular": "fnas_jax.tasks.tabular"}
METHODS = {
    "random": "fnas_jax.methods.baselines.random",
    "evolution": "fnas_jax.methods.baselines.evolution",
    "local": "fnas_jax.methods.baselines.local",
    "gp": "fnas_jax.methods.baselines.gp",
    "bananas": "fnas_jax.methods.baselines.bananas",
    "tpe": "fnas_jax.methods.baselines.tpe",
    "hyperband": "fnas_jax.methods.baselines.random",
    "bohb": "fnas_jax.methods.baselines.tpe",
    "ppo": "fnas_jax.methods.baselines.ppo",
    "fnas": "fnas_jax.methods.fnas.build",
    "tnas": "fnas_jax.methods.tnas.build",
    "pgnas": "fnas_jax.methods.pgnas.build",
    "spos": "fnas_jax.methods.spos.build",
}


@dataclass(frozen=True)
class Method:
    """The section `method`."""

    name: str = config_lib.key(
        "fnas", f"search method: {', '.join(METHODS)}, a plug-in or MODULE:ATTRIBUTE of your own"
    )


PREDICT = ("gp", "bananas", "fnas", "tnas")  # those that read `Space.features`
# Those whose children stop early, in all brackets; and what they are otherwise
EARLY = {"hyperband": "random", "bohb": "tpe"}
ETA = 3  # their `children.halving`, as in the examples of Hyperband's and BOHB's authors
ONE_SHOT = ("pgnas", "spos")  # those that train one network for all children
# The dataclass of every section of the configuration, in the order of --help. They are imported
# when the keys are first asked for, so their modules should hold little else.
SECTIONS = {
    "": "fnas_jax.core.sections.Run",
    "space": "fnas_jax.spaces.config.Space",
    "task": "fnas_jax.tasks.config.Task",
    "task.augment": "fnas_jax.tasks.config.Augment",
    "children": "fnas_jax.training.config.Children",
    "reward": "fnas_jax.core.sections.Reward",
    "limits": "fnas_jax.core.sections.Limits",
    "latency": "fnas_jax.core.sections.Latency",
    "features": "fnas_jax.core.sections.Features",
    "search": "fnas_jax.core.sections.Search",
    "method": "fnas_jax.registry.Method",
    "ppo": "fnas_jax.methods.rl.config.Ppo",
    "evolution": "fnas_jax.methods.baselines.config.Evolution",
    "gp": "fnas_jax.methods.baselines.config.Gp",
    "bananas": "fnas_jax.methods.baselines.config.Bananas",
    "tpe": "fnas_jax.methods.baselines.config.Tpe",
    "fnas": "fnas_jax.methods.fnas.config.Fnas",
    "uac": "fnas_jax.methods.fnas.config.Uac",
    "aeb": "fnas_jax.methods.fnas.config.Aeb",
    "akp": "fnas_jax.knowledge.config.Akp",
    "tnas": "fnas_jax.methods.tnas.config.Tnas",
    "oneshot": "fnas_jax.methods.oneshot.config.Oneshot",
    "pgnas": "fnas_jax.methods.pgnas.config.Pgnas",
    "spos": "fnas_jax.methods.spos.config.Spos",
    "winner": "fnas_jax.tasks.config.Winner",
    "knowledge": "fnas_jax.core.sections.Knowledge",
    "log": "fnas_jax.core.sections.Log",
    "jax": "fnas_jax.core.sections.Jax",
}
Builder = Callable[[ml_collections.ConfigDict, Knowledge], tuple[Task, SearchMethod, Evaluator]]


def build_task(
    config: ml_collections.ConfigDict,
    knowledge: Knowledge | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    own: Parts = NONE,
) -> Task:
    """The task of the configuration; tables and functions bring their space. Raises UserError.

    `arrays`: the image set, where it is in memory; `own`: parts that were given as objects.
    """
    kind = config.task.name.partition("/")[0]
    build = find_task(config.task.name, own)
    find_space(config.space.name, own)  # a table has its own, but a wrong name is a mistake
    with parts.building("space", config.space.name, config.space.name not in SPACES):
        space = None if kind == "tabular" else build_space(config, own)
    in_memory = {} if arrays is None else {"arrays": arrays}
    with parts.building("task", config.task.name, kind not in TASKS):
        task = build(config, space, knowledge, **in_memory)
    if not isinstance(task, Task):
        made = type(task).__name__
        raise UserError(f"task.name is {config.task.name!r}, which made {made}, not a Task")
    if config.latency.source != latency.DEVICE and task.dataset is None:
        raise UserError(
            f"latency.source is {config.latency.source!r}, and the task {task.name} trains no"
            " networks whose latency it could say"
        )
    named = own.task is None and kind not in TASKS  # it is known by the name it was found by
    return task._replace(name=config.task.name) if named else task


def completed(config: ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    """`config`, or a copy with what its method makes of settings that have their defaults.

    Raises UserError for a method whose children stop early where no task of ours trains any.
    """
    name, kind, own = config.method.name, config.task.name.partition("/")[0], config.children
    if name not in EARLY:
        return config
    if kind == "tabular":
        raise UserError(
            f"method.name is {name!r}, whose children stop early, and {config.task.name} trains"
            f" none: without that it is {EARLY[name]!r}"
        )
    if own.halving and own.brackets > 1:
        return config
    whole = config.copy_and_resolve_references()
    whole.children.halving = own.halving or ETA
    whole.children.brackets = own.brackets if own.brackets > 1 else own.rungs + 1
    return whole


def find_task(name: str, own: Parts = NONE) -> Callable[..., Any]:
    """What builds the task `name`: (config, space, knowledge) -> Task. Raises UserError."""
    kind = name.partition("/")[0]
    if kind in TASKS and "/" in name:
        return importlib.import_module(TASKS[kind]).build
    if "/" in name and ":" not in name:
        raise UserError(
            f"task.name is {name!r}; it starts with images/ or tabular/, or is"
            f" python:MODULE:ATTRIBUTE{nearest(kind, TASKS)}"
        )
    found = parts.find("task", name, own.task, [f"{kind}/.." for kind in TASKS])
    if not callable(found):
        raise UserError(f"task.name is {name!r}, a {type(found).__name__}, which builds no task")
    return found


def build_space(config: ml_collections.ConfigDict, own: Parts = NONE) -> Space:
    """The space that the configuration names. Raises UserError."""
    found = find_space(config.space.name, own)
    if not isinstance(found, Space):
        return found(config.space)
    if config.space.width != 1:
        raise UserError(
            f"space.width is {config.space.width:g}, and the space {config.space.name!r} is made"
            " already: give it other widths where it is made, and leave space.width at 1"
        )
    return found


def space_of_run(identity: str, config: ml_collections.ConfigDict) -> Space:
    """The space of a run: one of ours, or as much of it as its `Space.identity` says. UserError."""
    ours = config.space.name in SPACES and config.task.name.startswith("images/")
    if ours or not identity:  # earlier versions did not write it
        return build_space(config)
    said = json.loads(identity)
    found = known.alike(identity)
    return found or categorical.make(said["cardinalities"], said["name"], said["names"])


def find_space(name: str, own: Parts = NONE) -> Any:
    """The space `name`, or what makes it of the section `space`. Raises UserError."""
    return SPACES[name] if name in SPACES else parts.find("space", name, own.space, SPACES)


def goes_by_features(method: str) -> bool:
    """Whether a method of this name may read `Space.features`; those of the user's own may."""
    return method not in METHODS or method in PREDICT


def informed(task: Task, method: str, own: bool = False) -> Space:
    """The task's space, as a method of this name gets it; `own`: the task is the user's own.

    Methods that predict, and those of the user's own, may go by what is known of networks before
    they are trained. Raises UserError where a task of the user's own says that wrongly.
    """
    if not goes_by_features(method):
        return task.space
    with parts.building("task", task.name, own):
        known = task.features()
        if own and known is not None:
            features.check(known, task.space, task.existing)
    if known is not None:
        LOG.info("methods know of networks before they are trained: %s", ", ".join(known.names))
    return task.space._replace(features=known)


def build_all(
    config: ml_collections.ConfigDict,
    knowledge: Knowledge,
    arrays: Mapping[str, np.ndarray] | None = None,
    own: Parts = NONE,
    tell: Callable[[Task], None] | None = None,
) -> tuple[Task, SearchMethod, Evaluator]:
    """What the configuration names, as `build_task`, for a search. Raises UserError.

    Also where children do not fit into memory, and where no network keeps its limits, unless the
    search has begun already (`knowledge.begun`).
    The task is handed to `tell` before the method is built.
    """
    config = completed(config)
    name = config.method.name
    if name in METHODS:
        build = importlib.import_module(METHODS[name]).build
    else:
        build = parts.find("method", name, own.method, METHODS)
    task = build_task(config, knowledge, arrays, own)
    simulated.check(config.search, task)
    if tell is not None:
        tell(task)
    if task.fits is not None:
        task.fits()
    if task.check is not None and not knowledge.begun:
        task.check()
    ours = own.task is None and config.task.name.partition("/")[0] in TASKS
    space = informed(task, name, own=not ours)
    if not ours and goes_by_features(name) and config.features.proxies:
        known = () if space.features is None else space.features.names
        if not set(proxies.NAMES) & set(known):
            LOG.warning("the task %s, your own, has no zero-cost proxies", task.name)
    if not ours and name in EARLY:
        said = name, EARLY[name], task.name
        LOG.warning("%s is %s, unless the task %s, your own, has children stop early", *said)
    with parts.building("method", name, name not in METHODS):
        found = build(config, space, task, knowledge)
    if isinstance(found, SearchMethod):
        found = (found, task.evaluator)
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], SearchMethod)):
        made = type(found).__name__
        raise UserError(f"method.name is {name!r}, which made {made}, not a SearchMethod")
    ending.check(config.search, task, found[1])
    return task, *found
