"""A plan: all that a search on images needs besides data and time.

`search.plan=auto` leaves everything but the task and `search.seconds` to it: space, size of the
networks, steps and number of children, and the winner's training. Keys that have another value than
their default are the user's, and stay. Images and measured children are all that it knows; it is
made once, when a search begins, and is part of the run's configuration from then on.
"""

from __future__ import annotations

import contextlib
import json
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import ml_collections
import numpy as np

from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core import config_json, devices, hosts, stages
from fnas_jax.core.types import UserError
from fnas_jax.layers import choose
from fnas_jax.planning import layout, price, schedule, speed, trial
from fnas_jax.planning.schedule import Facts, Schedule, Size, Speed
from fnas_jax.tasks import images, memory
from fnas_jax.tasks.context import TrainContext
from fnas_jax.tasks.data import Dataset

AUTO = "auto"  # of `search.plan`
# Spaces of our own whose channels `space.width` multiplies, of layers that all kernels compute
WIDENED = ("mnas", "mobilenetv3", "macro")
WIDTHS = (2.0, 1.5, 1.25, 1.0, 0.75, 0.5, 0.35, 0.25)  # that are tried, the widest first
JUDGED = 5000  # validation images suffice
# Of small images: Zagoruyko & Komodakis, Wide Residual Networks, BMVC 2016 (arXiv 1605.07146)
WEIGHT_DECAY = 5e-4
# What a plan may set.
KEYS = (
    *("space.blocks", "space.strides", "space.stem", "space.stem_stride", "space.head"),
    *("space.width", "children.steps", "search.budget", "winner.steps", "winner.reference"),
    *("winner.smoothing", "task.val_fraction", "task.augment.policy", "search.winner_share"),
    *("children.lr", "children.backend", "children.weight_decay", "winner.lr", "fnas.verify"),
    *price.KEYS,
)


class Plan(NamedTuple):
    """What was planned, and of what."""

    config: ml_collections.ConfigDict
    schedule: Schedule
    size: Size
    macs: float  # multiply-adds of its networks, the mean
    enough: bool  # the time leaves room for all


def settle(
    config: ml_collections.ConfigDict,
    folder: str | pathlib.Path,
    arrays: Mapping[str, np.ndarray] | None = None,
) -> ml_collections.ConfigDict:
    """`config` with what it leaves to a plan: that of the run in `folder`, or a new one.

    `arrays`: the image set, where it is in memory. On several hosts the first one plans. Raises
    UserError for a task that cannot be planned, and without `search.seconds`.
    """
    if config.search.plan != AUTO:
        return config
    text = ""
    if hosts.is_first():
        known = stored(config, pathlib.Path(folder).expanduser())
        text = json.dumps(new(config, arrays) if known is None else known)
    return changed(config, config_lib.flatten(json.loads(hosts.broadcast_text(text))))


def stored(config: ml_collections.ConfigDict, folder: pathlib.Path) -> dict[str, Any] | None:
    """What the run in `folder` was planned with and `config` leaves open; None without a plan."""
    before = config_json.known_config(folder)
    if before is None or before["search.plan"] != AUTO:
        return None
    found = {name: before[name] for name in left_open(config)}
    if found.get("children.backend") == "kernels_bf16" and not choose.has_short_products():
        print(
            "warning: this CPU has no products of bfloat16 numbers, by which the search was"
            " planned: it goes on with children.backend=auto",
            file=sys.stderr,
        )
        found["children.backend"] = "auto"
    return found


def new(
    config: ml_collections.ConfigDict, arrays: Mapping[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """{key: value} of a new plan for a search that begins now; says on stderr what it is."""
    began = time.monotonic()
    check(config)
    devices.enable_compilation_cache(config.jax.cache_dir)
    dataset = images.load(config, arrays)
    own = changed(config, of_data(config, dataset))
    if own.task.val_fraction != config.task.val_fraction:
        dataset = images.load(own, arrays)
    widths = fitting(own, dataset)
    usual = next((width for width in widths if width <= own.space.width), widths[0])
    with stages.at("planning, measuring how fast networks train"):
        measured = speed.measure(context(changed(own, {"space.width": usual}), dataset))
    facts = Facts(
        images=len(dataset.train_labels),
        judged=len(dataset.val_labels),
        devices=len(jax.devices()),
        batch=min(own.children.batch_size, len(dataset.train_labels)),
        halving=own.children.halving,
        rungs=own.children.rungs,
        brackets=own.children.brackets,
        winner_share=own.search.winner_share,
    )
    seconds = config.search.seconds - (time.monotonic() - began)
    plan = widest(own, dataset, facts, measured, seconds, widths)
    steps, tried = 0, None
    if "children.lr" in left_open(config):
        steps = trial.steps_within(facts, measured, plan.size, seconds)
    if steps:
        with stages.at("planning, trying learning rates"):
            tried = trial.run(context(plan.config, dataset), steps)
        seconds = config.search.seconds - (time.monotonic() - began)
        own = changed(own, of_trial(own, tried))
        plan = widest(own, dataset, facts, measured, seconds, widths)
        given = facts, plan.schedule, measured, plan.size, tried
        chosen = price.chosen(plan.config, left_open(plan.config), *given)
        plan = plan._replace(config=changed(plan.config, chosen))
    said = (*lines(plan, facts, config.search.seconds, seconds), *trial_lines(tried))
    for line in (*said, *price.lines(plan.config)):
        print(line, file=sys.stderr, flush=True)
    flat = config_lib.flatten(plan.config)
    return {name: flat[name] for name in left_open(config)}


def check(config: ml_collections.ConfigDict) -> None:
    """Raises UserError where there is nothing to plan."""
    if not config.task.name.startswith("images/"):
        raise UserError(
            f"search.plan=auto plans searches on images, and task.name is {config.task.name!r}"
        )
    if not config.search.seconds:
        raise UserError("search.plan=auto needs a time: search.seconds, of the whole search")


def left_open(config: ml_collections.ConfigDict) -> list[str]:
    """The keys that a plan may set and that have their default; of MNAS's, only in its space."""
    flat, keys = config_lib.flatten(config), config_lib.all_keys()
    return [name for name in settable(config.space.name) if flat[name] == keys[name].default]


def settable(space: str) -> list[str]:
    """Those of `KEYS` that a plan may set in a search of this space."""
    if space == "mnas":
        return list(KEYS)
    widens = space in WIDENED
    return [n for n in KEYS if not n.startswith("space.") or (widens and n == "space.width")]


def changed(
    config: ml_collections.ConfigDict, values: Mapping[str, Any]
) -> ml_collections.ConfigDict:
    """A copy with other values; validated."""
    return config_lib.validate(config_lib.nest(config_lib.flatten(config) | dict(values)))


def of_data(config: ml_collections.ConfigDict, dataset: Dataset) -> dict[str, Any]:
    """{key: value} of what follows from the images alone."""
    chosen = layout.of_side(min(dataset.image_shape[:2])) | {
        "task.augment.policy": "auto",
        "winner.reference": False,  # which would take as long as the winner
        "search.winner_share": schedule.WINNER_SHARE,
    }
    if config.task.objective == "classification":
        chosen["winner.smoothing"] = 0.1
    if min(dataset.image_shape[:2]) < layout.LARGE:
        chosen["children.weight_decay"] = WEIGHT_DECAY
    # Of several hosts nobody has asked the others.
    alone = jax.process_count() == 1 and config.space.name in WIDENED
    if alone and choose.has_short_products():
        chosen["children.backend"] = "kernels_bf16"
    judged = len(dataset.val_labels)
    if judged > JUDGED:
        chosen["task.val_fraction"] = max(config.task.val_fraction * JUDGED / judged, 0.01)
    return {name: chosen[name] for name in left_open(config) if name in chosen}


def of_trial(config: ml_collections.ConfigDict, tried: trial.Trial) -> dict[str, Any]:
    """{key: value} of what a trial has shown."""
    free, best = left_open(config), float(tried.rates[tried.best])
    # What is best for a short training is too high for a long one (Wu et al., Understanding
    # Short-Horizon Bias, ICLR 2018, arXiv 1803.02021).
    chosen = {"children.lr": best, "winner.lr": min(best, config.children.lr)}
    return {name: chosen[name] for name in chosen if {name, "children.lr"} <= set(free)}


def context(config: ml_collections.ConfigDict, dataset: Dataset) -> TrainContext:
    """What `config` says about the training of children."""
    return images.train_context(config, registry.build_space(config), dataset)


def fitting(config: ml_collections.ConfigDict, dataset: Dataset) -> tuple[float, ...]:
    """Those of `WIDTHS` whose children fit into memory; the user's own, where there is one.

    Raises UserError where none fits.
    """
    widths = WIDTHS if "space.width" in left_open(config) else (config.space.width,)
    for i, width in enumerate(widths[:-1]):
        with contextlib.suppress(UserError):
            memory.check(context(changed(config, {"space.width": width}), dataset))
            return widths[i:]
    memory.check(context(changed(config, {"space.width": widths[-1]}), dataset))
    return widths[-1:]


def widest(
    config: ml_collections.ConfigDict,
    dataset: Dataset,
    facts: Facts,
    measured: Speed,
    seconds: float,
    widths: tuple[float, ...],
) -> Plan:
    """The plan of the first of `widths` that leaves time for all, or of the last."""
    for width in widths:
        own = changed(config, {"space.width": width})
        ctx = context(own, dataset)
        size = speed.size_of(ctx, measured.moved)
        found = schedule.schedule(facts, measured, size, seconds)
        if enough := schedule.enough(facts, found, seconds):
            break
    values = {
        "children.steps": found.steps,
        "search.budget": found.children,
        "winner.steps": schedule.most_winner_steps(facts),
        # Once the critic knows something, few others are trained: a child for each device.
        "fnas.verify": max(min(facts.devices, own.search.batch // 2), 1),
    }
    return Plan(
        changed(own, {name: values[name] for name in values if name in left_open(config)}),
        found,
        size,
        speed.size_of(ctx).mean,
        enough,
    )


def trial_lines(tried: trial.Trial | None) -> list[str]:
    """What was tried in words."""
    if tried is None:
        return []
    pairs = zip(tried.rates, tried.loss, strict=True)
    losses = ", ".join(f"{rate:g}: {loss:.3f}" for rate, loss in pairs)
    return [
        f"plan: learning rate {tried.rates[tried.best]:g}, by the validation loss after"
        f" {tried.steps} steps ({losses})"
    ]


def lines(plan: Plan, facts: Facts, given: float, left: float) -> list[str]:
    """The plan in words; `given` of the user, of which `left` seconds are to come."""
    config, found = plan.config, plan.schedule

    def clock(seconds: float) -> str:
        return time.strftime("%H:%M", time.localtime(time.time() + seconds))

    epochs = config.children.steps * facts.batch / facts.images
    space = config.space.name
    space += f" of {config.space.blocks} blocks" if space == "mnas" else ""
    space += f", width {config.space.width:g}" if config.space.name in WIDENED else ""
    said = [
        f"plan: space {space}: {plan.macs / 1e6:.3g} MFLOPs on average",
        f"plan: {config.search.budget} children of {config.children.steps} steps"
        f" ({epochs:.2g} epochs), until {clock(found.search_seconds)}",
        f"plan: the winner about {found.winner_epochs:.3g} epochs, done at {clock(left)}",
    ]
    if not plan.enough:
        said.append(
            f"warning: {given:g} seconds are little for {facts.images + facts.judged} images of"
            f" this size: a plan wants {schedule.CHILDREN // 2} children of"
            f" {schedule.good_steps(facts)} steps and {schedule.WINNER_EPOCHS:g} epochs for the"
            " winner"
        )
    return said
