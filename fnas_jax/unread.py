"""Settings of the user's that no part of a search reads, so that these are not without a word.

By whole sections and plain switches: whose each is stands in tables. What is read in some
searches of a method only is not known here.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.planning import plan

# Sections of our methods, and who reads them; others are of no method.
METHODS = {
    "ppo": ("ppo", "fnas"),
    "evolution": ("evolution",),
    "gp": ("gp",),
    "bananas": ("bananas",),
    "tpe": ("tpe", "bohb"),
    "fnas": ("fnas",),
    "uac": ("fnas",),
    "aeb": ("fnas",),
    "tnas": ("tnas",),
    "oneshot": registry.ONE_SHOT,
    "pgnas": ("pgnas",),
    "spos": ("spos",),
    "features": registry.PREDICT,
}
_CELLS = ("cell", "mixed_cell", "mixed_chain")
# Keys of our spaces, and who reads them
SPACES = {
    "space.blocks": ("mnas",),
    "space.stages": ("mobilenetv3",),
    "space.width": plan.WIDENED,
    "space.strides": ("mnas", "mobilenetv3"),
    "space.stem": ("mnas",),
    "space.stem_stride": ("mnas", "mobilenetv3"),
    "space.head": ("mnas",),
    "space.cell_channels": _CELLS,
    "space.cells_per_stage": _CELLS,
    "space.cardinalities": ("categorical",),
    "akp.weights": ("mnas",),
}
# Sections and keys of tasks with images alone; so is `space`. And of tables alone
IMAGES = (
    *("children", "akp", "winner", "task.augment", "latency", "features.proxies"),
    *("reward.training", "reward.training_mean", "reward.training_moved"),
    *("task.image_size", "task.val_fraction", "task.test_fraction", "task.labels"),
    *("task.cache_dir", "task.alpha", "task.split_seed", "task.objective", "task.class_weights"),
)
TABLES = (
    *("task.noisy", "task.direction", "task.decisions", "task.time", "task.missing_costs"),
    "search.simulated_seconds",
)
STOPPING = ("children.halving", "children.rungs", "children.brackets")
# A key that others need to have another value than the first: {key: (value, those, none but these)}
SWITCHES: dict[str, tuple[Any, tuple[str, ...]]] = {
    "akp.enabled": (False, ("akp.capacity", "akp.mib", "akp.rounds", "akp.weights")),
    "children.halving": (0, ("children.rungs", "children.brackets")),
    "reward.cost": ("none", ("reward.target", "reward.alpha", "reward.beta")),
    "reward.training": (0, ("reward.training_mean", "reward.training_moved")),
    "search.seconds": (0, ("search.winner_share",)),
    "fnas.verify": (0, ("fnas.verify_every",)),
    "gp.acquisition": ("ei", ("gp.beta",)),
    "winner.policy": ("none", ("winner.policy_layers", "winner.policy_magnitude")),
}


def line(config: Any) -> str:
    """What to say of the keys of `config` that have a value of the user's and no effect; ''."""
    why: dict[str, list[str]] = {}
    for name, reason in found(config).items():
        why.setdefault(reason, []).append(name)
    if not why:
        return ""
    each = "; ".join(f"{', '.join(names)} ({reason})" for reason, names in why.items())
    return f"without effect here: {each}"


def found(config: Any) -> dict[str, str]:
    """{key: why it has no effect} of keys with another value than their default.

    Parts of the user's own may read any key that could be meant for them. What a plan chose is not
    the user's.
    """
    flat, keys = config_lib.flatten(config), config_lib.all_keys()
    chosen = plan.settable(config.space.name) if config.search.plan == plan.AUTO else ()
    given = [name for name, key in keys.items() if flat[name] != key.default and name not in chosen]
    reasons: dict[str, str] = {}
    for rule in (_by_task, _by_space, _by_method, _by_switch):
        for name, reason in rule(config, flat, given):
            reasons.setdefault(name, reason)
    return reasons


def _within(name: str, sections: tuple[str, ...]) -> bool:
    """Whether the key `name` is one of `sections`, or in one."""
    return any(name == section or name.startswith(section + ".") for section in sections)


def _by_task(config: Any, flat: dict[str, Any], given: list[str]) -> Iterator[tuple[str, str]]:
    kind = config.task.name.partition("/")[0]
    if kind not in registry.TASKS:
        return
    for name in given:
        if kind == "images" and name in TABLES:
            yield name, "of tables, and this task has images"
        elif kind == "tabular" and name.startswith("space."):
            yield name, "a table has a space of its own"
        elif kind == "tabular" and _within(name, IMAGES):
            yield name, "a table trains no networks"


def _by_space(config: Any, flat: dict[str, Any], given: list[str]) -> Iterator[tuple[str, str]]:
    if config.space.name not in registry.SPACES:
        return
    for name in given:
        if config.space.name not in SPACES.get(name, (config.space.name,)):
            yield name, f"not of space.name={config.space.name}"


def _by_method(config: Any, flat: dict[str, Any], given: list[str]) -> Iterator[tuple[str, str]]:
    own = config.method.name
    if own not in registry.METHODS:
        return
    for name in given:
        if own not in METHODS.get(name.partition(".")[0], (own,)):
            yield name, f"not of method.name={own}"
        elif own in registry.ONE_SHOT and name in STOPPING:
            yield name, f"method.name={own} trains one network for all children"


def _by_switch(config: Any, flat: dict[str, Any], given: list[str]) -> Iterator[tuple[str, str]]:
    for switch, (off, others) in SWITCHES.items():
        if flat[switch] == off:
            for name in given:
                if name in others:
                    yield name, f"{switch} is {off}"
