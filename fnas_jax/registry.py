"""From a configuration's names to spaces, tasks and methods; the one place that knows all."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ml_collections
import numpy as np

from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.methods.base import SearchMethod
from fnas_jax.spaces import categorical, cell, macro, mnas
from fnas_jax.spaces.base import Space
from fnas_jax.spaces.widen import widen
from fnas_jax.tasks.base import Evaluator, Task

SPACES: dict[str, Callable[[Any], Space]] = {
    "mnas": lambda s: mnas.make(s.blocks, s.width, s.strides, s.stem, s.stem_stride, s.head),
    "macro": lambda s: widen(macro.make(), s.width),
    "cell": lambda s: cell.make(s.cell_channels, s.cells_per_stage),
    "categorical": lambda s: categorical.make(s.cardinalities),
}
# Modules with a `build`; only the chosen ones are imported.
TASKS = {"images": "fnas_jax.tasks.images", "tabular": "fnas_jax.tasks.tabular"}
METHODS = {
    "random": "fnas_jax.methods.baselines.random",
    "evolution": "fnas_jax.methods.baselines.evolution",
    "local": "fnas_jax.methods.baselines.local",
    "gp": "fnas_jax.methods.baselines.gp",
    "bananas": "fnas_jax.methods.baselines.bananas",
    "ppo": "fnas_jax.methods.baselines.ppo",
    "fnas": "fnas_jax.methods.fnas.build",
    "tnas": "fnas_jax.methods.tnas.build",
    "pgnas": "fnas_jax.methods.pgnas.build",
    "spos": "fnas_jax.methods.spos.build",
}


@dataclass(frozen=True)
class Method:
    """The section `method`."""

    name: str = config_lib.key("fnas", "search method", choices=tuple(METHODS))


# The dataclass of every section of the configuration, in the order of --help. They are imported
# when the keys are first asked for, so their modules should hold little else.
SECTIONS = {
    "": "fnas_jax.core.sections.Run",
    "space": "fnas_jax.spaces.config.Space",
    "task": "fnas_jax.tasks.config.Task",
    "task.augment": "fnas_jax.tasks.config.Augment",
    "children": "fnas_jax.training.config.Children",
    "reward": "fnas_jax.core.sections.Reward",
    "latency": "fnas_jax.core.sections.Latency",
    "search": "fnas_jax.core.sections.Search",
    "method": "fnas_jax.registry.Method",
    "ppo": "fnas_jax.methods.rl.config.Ppo",
    "evolution": "fnas_jax.methods.baselines.config.Evolution",
    "gp": "fnas_jax.methods.baselines.config.Gp",
    "bananas": "fnas_jax.methods.baselines.config.Bananas",
    "fnas": "fnas_jax.methods.fnas.config.Fnas",
    "uac": "fnas_jax.methods.fnas.config.Uac",
    "aeb": "fnas_jax.methods.fnas.config.Aeb",
    "akp": "fnas_jax.knowledge.config.Akp",
    "tnas": "fnas_jax.methods.tnas.config.Tnas",
    "oneshot": "fnas_jax.methods.oneshot.config.Oneshot",
    "pgnas": "fnas_jax.methods.pgnas.config.Pgnas",
    "winner": "fnas_jax.core.sections.Winner",
    "knowledge": "fnas_jax.core.sections.Knowledge",
    "log": "fnas_jax.core.sections.Log",
    "jax": "fnas_jax.core.sections.Jax",
}
Builder = Callable[[ml_collections.ConfigDict, Knowledge], tuple[Task, SearchMethod, Evaluator]]


def build_task(
    config: ml_collections.ConfigDict,
    knowledge: Knowledge | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> Task:
    """The task of the configuration; tabular tasks bring their space. Raises UserError.

    `arrays`: the image set, where it is in memory.
    """
    kind = config.task.name.partition("/")[0]
    if kind not in TASKS:
        near = config_lib.nearest(kind, TASKS)
        raise UserError(
            f"task.name is {config.task.name!r}; it starts with images/ or tabular/{near}"
        )
    name = config.space.name
    if name not in SPACES:
        near = config_lib.nearest(name, SPACES)
        raise UserError(f"space.name is {name!r}; allowed are {', '.join(SPACES)}{near}")
    try:
        space = None if kind == "tabular" else SPACES[name](config.space)
        in_memory = {} if arrays is None else {"arrays": arrays}
        return importlib.import_module(TASKS[kind]).build(config, space, knowledge, **in_memory)
    except ValueError as error:  # a space's complaint about its options
        raise UserError(str(error)) from error


def build_all(
    config: ml_collections.ConfigDict,
    knowledge: Knowledge,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> tuple[Task, SearchMethod, Evaluator]:
    """What the configuration names, as `build_task`. Raises UserError."""
    task = build_task(config, knowledge, arrays)
    module = importlib.import_module(METHODS[config.method.name])
    try:
        return task, *module.build(config, task.space, task, knowledge)
    except ValueError as error:  # a method's complaint about its numbers or the space
        raise UserError(str(error)) from error
