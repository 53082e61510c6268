"""The best measured networks of a search, of which a full training and validation images choose.

A search ranks networks by short trainings, which a full one may rank otherwise. Each of the best is
therefore trained as long as the winner, on training images, and judged on validation images; the
one of the highest reward is then trained on both and tested. No test image has a part in the
choice: the best of several test accuracies would promise more than the network keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fnas_jax.core import limits
from fnas_jax.core import reward as rewards
from fnas_jax.core.keep import Keep
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Failed, UserError
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.base import Task

ACCURACY = Measure()


def ranked(
    result: Mapping[str, Any], tried: Sequence[Mapping[str, Any]], space: Space, count: int
) -> list[dict[str, Any]]:
    """The `count` best networks that a search has measured, each canonical form once.

    Each has `arch` (its canonical form), `text`, and `search`: `accuracy` and `reward` of the
    `reading` by which it ranks. Finalists come first, by their readings on equal terms ("finals"),
    then the others that were trained in full, by the first one ("search"). `result` is the content
    of result.json, `tried` what `trials.read` gives.
    """
    entries = [*_by_reward(result.get("finalists", ()), "finals")]
    whole = (t for t in tried if t["trained"] and t["ok"] and not t["stopped"])
    entries += _by_reward(whole, "search")
    if not entries:
        return []
    archs = jnp.asarray([arch for arch, _ in entries], jnp.int32)
    found: dict[tuple[int, ...], dict[str, Any]] = {}
    for form, (_, reading) in zip(np.asarray(space.canonical(archs)), entries, strict=True):
        arch = form.tolist()
        entry = {"arch": arch, "text": space.describe(form)["text"], "search": reading}
        found.setdefault(tuple(arch), entry)
    return list(found.values())[:count]


def _by_reward(measured: Any, reading: str) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """(arch, its reading) by falling reward, without those that have none; equal ones as given."""
    known = [m for m in measured if m["reward"] is not None]
    for entry in sorted(known, key=lambda m: -m["reward"]):
        figures = {name: entry[name] for name in ("accuracy", "reward")}
        yield list(entry["arch"]), {"reading": reading, **figures}


def hold(
    config: Any,
    task: Task,
    entries: Sequence[dict[str, Any]],
    key: jax.Array,
    say: Callable[[str], object],
    *kept: Keep,
) -> list[dict[str, Any]]:
    """`entries` of `ranked` with `rank`, from 1, and what `Task.compare` finds; the chosen one too.

    `reward` is that of the full training's validation accuracy, by the configuration; `chosen` is
    True of the highest, of equal ones the first. What is above a limit, by the latencies that count
    now, cannot be chosen: `above_limit` says why, and `say` is told. `kept` is for
    a task that `keeps`. Raises UserError where nothing
    is trained or no network is within the limits, and Failed where no training succeeds.
    """
    if task.compare is None:
        raise UserError(f"top: the task {task.name} trains no network that could be compared")
    if config.winner.steps == 0:
        raise UserError("top: winner.steps is 0, so no network would be trained")
    compared = task.compare(np.asarray([e["arch"] for e in entries], np.int32), key, say, *kept)
    reward = rewards.from_config(config, task.measure)
    found = [
        {"rank": i, **entry, **facts, "reward": _reward(reward, facts), "chosen": False}
        for i, (entry, facts) in enumerate(zip(entries, compared, strict=True), start=1)
    ]
    within = _within(config, found, say)
    known = [entry for entry in within if entry["reward"] is not None]
    if not known:
        raise Failed(f"top: the training of each of the {len(within)} networks failed")
    max(known, key=lambda entry: entry["reward"])["chosen"] = True
    return found


def _within(
    config: Any, found: Sequence[dict[str, Any]], say: Callable[[str], object]
) -> list[dict[str, Any]]:
    """Those that keep the limits; the others get `above_limit`. Raises UserError without any.

    The search has kept all of them, but maybe by another `latency.source`, or a calmer clock.
    """
    own = limits.from_config(config)
    for entry in found:
        why = limits.above(own, entry)
        if why:
            entry["above_limit"] = why
            say(f"{entry['text']} is left out: {why}")
    within = [entry for entry in found if "above_limit" not in entry]
    if not within:
        raise UserError(
            f"top: none of the {len(found)} networks is within the limits by latency.source"
            f" {config.latency.source}; of the first, {found[0]['above_limit']}"
        )
    return within


def _reward(reward: Callable[..., jax.Array], facts: Mapping[str, Any]) -> float | None:
    """None where the training failed, or the cost that the reward needs is not known."""
    if facts["accuracy"] is None:
        return None
    figures = (facts["accuracy"], *limits.in_force(facts).values())
    value = float(reward(*(jnp.asarray([x], jnp.float32) for x in figures))[0])
    return value if np.isfinite(value) else None


def table(entries: Sequence[Mapping[str, Any]], measure: Measure = ACCURACY) -> str:
    """What `hold` has found by `measure`, a line each; the chosen one has a star."""
    head = (
        f"{'rank':>6} {'search':>8} {'trained':>8} {'reward':>8} {'reference':>9} {'MFLOPs':>8}"
        f" {'params M':>9} {'ms':>8} {'seconds':>8}  network"
    )
    return "\n".join([head, *(_line(entry, measure) for entry in entries)])


def _line(entry: Mapping[str, Any], measure: Measure) -> str:
    star = "*" if entry["chosen"] else " "
    reference = entry.get("reference")
    standard = "-" if reference is None else measure.text(reference["accuracy"])
    return (
        f"{star}{entry['rank']:>5} {measure.text(entry['search']['accuracy']):>8}"
        f" {measure.text(entry['accuracy']):>8} {_number(entry['reward']):>8} {standard:>9}"
        f" {_number(entry['mflops']):>8} {_number(entry['params_m']):>9}"
        f" {_number(entry['latency_ms']):>8} {entry['seconds']:>8.1f}  {entry['text']}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
