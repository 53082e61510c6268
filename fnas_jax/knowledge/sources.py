"""Rows of other tasks that a search may learn from, made comparable with what it searches for.

- A task is its name and its protocol (`Evaluator.protocol`): the same images after another number
  of steps, or judged with inherited weights, are another task. Rows of the search's own name and
  protocol are left out.
- Rewards are computed anew from accuracy and costs, as the search defines them: the stored ones
  were other searches' mixtures of both. Each accuracy is read by the measure of its own protocol:
  the negative of an error is no accuracy. Where a protocol does not tell, its rows are left out.
- Decisions have a meaning in their space only, so rows of other spaces are left out.

Rows of earlier versions say neither protocol nor more of their space than its name. Such a row is
taken where its decisions exist in the space. Its protocol is one of its own, `UNKNOWN`, but for the
number of steps, which every version has written down.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from fnas_jax.core import identity
from fnas_jax.core import measure as measures
from fnas_jax.core import reward as rewards
from fnas_jax.core.measure import Measure
from fnas_jax.core.reward import Reward
from fnas_jax.knowledge import history, measured, pins, task_data
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.knowledge.measured import Group, Measured
from fnas_jax.knowledge.pins import Pin
from fnas_jax.spaces.base import Space

LOG = logging.getLogger(__name__)
MIN_ROWS = 20  # fewer rows of other tasks teach nothing
UNKNOWN = "unknown"
T = TypeVar("T")


class Asker(NamedTuple):
    """The search that asks."""

    space: Space
    task: str
    protocol: str  # `Evaluator.protocol`
    reward: Reward


class Counts(NamedTuple):
    """What became of the measured rows in the store; the first six are all of them."""

    used: int
    without_cost: int  # they lack what the reward needs
    unknown_metric: int  # of tables whose figures may be accuracies, losses or anything
    failed: int
    own: int  # of the search's own task and protocol
    other_spaces: dict[str, int]  # by name, which may be that of the search's own
    unknown_space: int  # of `used`: taken because their decisions fit
    unknown_protocol: int  # of `used`


class Sources(NamedTuple):
    """R rows of Q tasks."""

    decisions: np.ndarray  # [R, T] int32
    reward: np.ndarray  # [R] float64 by the search's own definition
    task: np.ndarray  # [R] int64 in 0..Q-1
    names: list[str]  # [Q] of the tasks, which several protocols may share
    protocols: list[str]  # [Q] digests; `UNKNOWN` and the steps where there is none
    counts: Counts
    # [Q] what the store knows of their data, by `task_data`; None: nothing
    statistics: Sequence[dict[str, float] | None] = ()
    images: Sequence[np.ndarray | None] = ()

    @property
    def labels(self) -> list[str]:
        """[Q] name and protocol, no two the same; as `task_data.data_key`, where there is one."""
        return [f"{n} ({p})" for n, p in zip(self.names, self.protocols, strict=True)]


def of_each(found: Sources, known: Mapping[str, T]) -> list[T | None]:
    """[Q] what is `known` by `task_data.data_key` of the tasks of `found`; None: nothing.

    Earlier versions knew the data of a task by its name.
    """
    pairs = zip(found.labels, found.names, strict=True)
    return [known.get(label, known.get(name)) for label, name in pairs]


def find(connection: sqlite3.Connection, asker: Asker, until: float = math.inf) -> Sources:
    """The measured rows that the store held at `until` (seconds since 1970)."""
    costs = () if asker.reward.cost == "none" else (asker.reward.cost,)
    rows = measured.read(connection, asker.space, costs, until)
    mine = identity.digest(asker.protocol) if asker.protocol else ""
    is_own = [(g.task, g.protocol) == (asker.task, mine) for g in rows.groups]
    measures_ = measures_of(connection, rows.groups)
    own, untold, halves = (
        np.array(of_groups, bool)[rows.group]
        for of_groups in (
            is_own,
            [m is None for m in measures_],
            [not g.protocol for g in rows.groups],
        )
    )
    reward = rewards_of(measures_, asker.reward, rows)
    other = rows.ok & ~own
    use = other & np.isfinite(reward)
    pairs = [(g.task, _label(g)) for g in rows.groups]
    tasks = sorted({pairs[i] for i in np.unique(rows.group[use])})
    place = np.array([tasks.index(pair) if pair in tasks else -1 for pair in pairs], np.int64)
    return Sources(
        decisions=rows.decisions[use],
        reward=reward[use],
        task=place[rows.group[use]],
        names=[name for name, _ in tasks],
        protocols=[p for _, p in tasks],
        counts=Counts(
            used=int(use.sum()),
            without_cost=int((other & ~use & ~untold).sum()),
            unknown_metric=int((other & untold).sum()),
            failed=int((~rows.ok & ~own).sum()),
            own=int(own.sum()),
            other_spaces=rows.others,
            unknown_space=int((use & ~rows.known).sum()),
            unknown_protocol=int((use & halves).sum()),
        ),
    )


def measures_of(connection: sqlite3.Connection, groups: Sequence[Group]) -> list[Measure | None]:
    """[G] what the accuracies of each group of rows measure, as `measure_of`."""
    known = history.descriptions(connection)
    return [measure_of(known.get(group.protocol, "")) for group in groups]


def rewards_of(measured_by: Sequence[Measure | None], reward: Reward, rows: Measured) -> np.ndarray:
    """[R] float64: each row's reward by the measure [G] of its own group, e.g. of another metric.

    NaN where that is not known.
    """
    found = np.full(len(rows.ok), np.nan)
    # Groups that measure the same at once: each number of rows is a program of its own.
    for measure in dict.fromkeys(m for m in measured_by if m is not None):
        own = np.array([m == measure for m in measured_by])[rows.group]
        costs = {name: cost[own] for name, cost in rows.costs.items()}
        found[own] = rewards.recompute(reward, rows.accuracy[own], **costs, measure=measure)
    return found


def measure_of(protocol: str) -> Measure | None:
    """What the accuracies of rows of a protocol measure: an accuracy where it says nothing else.

    None where it only has the name of a table's column, and that is not one of accuracies: earlier
    versions wrote no more of losses.
    """
    said = json.loads(protocol) if protocol else {}
    if "measure" in said:
        return measures.written(said["measure"])
    metric = said.get("metric", {})  # functions say name and direction, tables a column
    return measures.named(metric) if isinstance(metric, str) else measures.written(metric)


def load(asker: Asker, knowledge: Knowledge) -> Sources | None:
    """What `find` finds of what the run may know; None where it is less than `MIN_ROWS`.

    That is what it has found when it began, whatever has become of the store since. One line of the
    log says what was left out and what is known by half only.
    """
    found = pinned(asker, knowledge)
    counts = found.counts
    # What was left out by the rules of every search is no reason to disturb.
    odd = counts.without_cost or counts.unknown_metric or counts.other_spaces
    odd = odd or counts.unknown_space
    if odd or counts.unknown_protocol or counts.used:
        loud = odd or counts.unknown_protocol or counts.used < MIN_ROWS
        LOG.log(logging.WARNING if loud else logging.INFO, "%s", describe(asker, found))
    return found if counts.used >= MIN_ROWS else None


def pinned(asker: Asker, knowledge: Knowledge) -> Sources:
    """What the run has found when it began, with what is known of the tasks' data.

    Found now, and written down, where that is not yet done.
    """
    path = knowledge.pinned
    known = None if path is None else pins.read(path, knowledge.run)
    if known is not None:
        return Sources(**known._asdict() | {"counts": Counts(**known.counts)})
    found = find(knowledge.history, asker, knowledge.until)
    found = found._replace(
        statistics=of_each(found, task_data.task_statistics(knowledge.history)),
        images=of_each(found, task_data.task_images(knowledge.history)),
    )
    if path is not None:
        pin = Pin(**found._asdict() | {"counts": found.counts._asdict()})
        pins.write(path, knowledge.run, pin)
    return found


def describe(asker: Asker, found: Sources) -> str:
    """What became of the store's rows, in a line."""
    counts = found.counts
    start = f"the history has {counts.used} rows of {len(found.names)} other tasks to learn from"
    if counts.used < MIN_ROWS:
        start += f", which is too few ({MIN_ROWS} are needed)"
    same, others = asker.space.name, dict(counts.other_spaces)
    differing = others.pop(same, 0)
    left = [
        (counts.without_cost, _without(asker.reward)),
        (counts.unknown_metric, "of tables whose metric was not written down"),
        (differing, f"of another space named {same}"),
        *((count, f"of space {name}") for name, count in others.items()),
        (counts.own, "of this task and protocol"),
        (counts.failed, "that failed"),
    ]
    halves = [
        (counts.unknown_protocol, "of a protocol that was not written down"),
        (counts.unknown_space, f"that say of their space only its name {same}"),
    ]
    parts = [start]
    for title, entries in (("left out", left), ("among those taken", halves)):
        told = ", ".join(f"{count} {what}" for count, what in entries if count)
        parts += [f"{title}: {told}"] if told else []
    return "; ".join(parts)


def _without(reward: Reward) -> str:
    needed = "accuracy" if reward.cost == "none" else reward.cost
    return f"without {needed}, which the reward needs"


def _label(group: Group) -> str:
    return group.protocol or f"{UNKNOWN}, {group.steps} steps"
