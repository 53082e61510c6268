"""What a search comes to: the content of result.json, and what its figures are."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from fnas_jax import ending, pareto, simulated
from fnas_jax import finals as finals_lib
from fnas_jax.core import jsons, run_json, workdir
from fnas_jax.core import measure as measures
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import COSTS, UserError
from fnas_jax.iteration import COUNTS, FIGURES, State
from fnas_jax.knowledge import history
from fnas_jax.spaces.base import Space
from fnas_jax.tasks.base import Finals

if TYPE_CHECKING:
    from fnas_jax.loop import Context


def content(
    ctx: Context, state: State, finals: Finals | None, winner: dict[str, Any] | None
) -> dict[str, Any]:
    """All of it, but for what `write_json` makes of numbers that are not finite.

    `best` is the architecture that `winner` is about. Its figures are those by which it won; where
    that was a second reading, `first_accuracy` and `first_reward` stand beside it.
    """
    space, measure = ctx.task.space, ctx.task.measure
    listed = measures.valued(measure, readings(finals, space))
    won, rows = None if winner is None else best(ctx, state, finals), own_rows(ctx)
    counts = {name: state.counts[name] for name in COUNTS} | {"finalists": len(listed)}
    counts |= stopped(rows)
    shown = None
    if ending.trains_children(ctx.task, ctx.evaluator):
        shown = ending.images(ctx.config, ctx.task, ctx.evaluator, state, len(listed))
    return {
        "best": measures.valued(measure, won),
        "finalists": listed,
        "pareto": pareto.networks(rows, space, measure.sign),
        "winner": measures.valued(measure, winner),
        "counts": counts,
        "iterations": state.iteration,
        "seconds": ctx.clock.seconds(),
        "images": shown,
        simulated.NAME: simulated.result(ctx.task, rows, None if won is None else won["arch"]),
        "target": None if winner is None else target(ctx, state),
        "metric": measure._asdict(),
        "method": ctx.config.method.name,
        "space": space.name,
        "task": ctx.task.name,
        "seed": ctx.config.seed,
        "versions": workdir.versions(ctx.task.layers),
        "resumed": ctx.run.starts,
    }


def stopped(rows: history.Rows) -> dict[str, int]:
    """How many children were stopped early, and the training steps that they have not made.

    Nothing where none was.
    """
    early = rows.stopped > 0
    if not early.any():
        return {}
    saved = int((rows.steps - rows.stopped)[early].sum())
    return {"stopped": int(early.sum()), "steps_saved": saved}


_NUMBER = jsons.MAYBE_NUMBER
_MEASURE = {"name": str, "direction": str, "kind": str, "scale": jsons.NUMBER}
_NETWORK = {
    **dict.fromkeys(("accuracy", "value", "reward", *COSTS), _NUMBER),
    **dict.fromkeys(("first_accuracy", "first_value", "first_reward"), _NUMBER),
    "arch": [int],
    "description": {"text": str},
    "text": str,
}
_INTERVAL = {"metric": str, "low": _NUMBER, "high": _NUMBER, "method": str}
_KEPT = {
    "folder": str,
    "interval": (_INTERVAL, type(None)),
    "no_interval": (str, type(None)),
    "metrics": (dict, type(None)),
    "table": (dict, type(None)),
}
_WINNER = {
    **_NETWORK,
    "rank": (int, type(None)),
    "architectures": int,
    "searched_by": str,
    "finetuned": (_NETWORK, type(None)),
    "reference": (_NETWORK, type(None)),
    "kept": (_KEPT, type(None)),
    "metrics": (dict, type(None)),
}
_TARGET = {
    "cost": str,
    "target": jsons.NUMBER,
    "value": jsons.MAYBE_NUMBER,
    "met": (bool, type(None)),
}
# What others read of a result.json; earlier versions had less.
KINDS = {
    "best": (_NETWORK, type(None)),
    "winner": (_WINNER, type(None)),
    "finalists": [_NETWORK],
    "pareto": [_NETWORK],
    "counts": dict.fromkeys(COUNTS, int),
    "seconds": dict,
    simulated.NAME: ({"total": jsons.NUMBER, "to_best": _NUMBER}, type(None)),
    "target": ({"cost": str}, type(None)),
    "metric": _MEASURE,
    "method": str,
    "space": str,
    "task": str,
    "versions": dict,
}


WHOLE = ("best", "winner", "counts")  # what results of every version have


def read(folder: pathlib.Path, needed: Iterable[str] = WHOLE) -> dict[str, Any]:
    """The content of the result.json in `folder`, which has all that is `needed`.

    Raises UserError where it is missing or damaged.
    """
    path = folder / "result.json"
    found, what = jsons.read_record(path, KINDS, needed), repr(str(path))
    if "counts" in needed:
        jsons.record(found["counts"], {}, what, ("trained", "failed"))
    if found.get("best") is not None:
        jsons.record(found["best"], {}, what, ("arch", "accuracy", "reward", "description"))
        jsons.record(found["best"]["description"], {}, what, ("text",))
    for network in found.get("pareto", []):
        jsons.record(network, {}, what, ("arch", "text", "accuracy"))
    _check_numbers(found.get("seconds"), what)
    if found.get(simulated.NAME) is not None:
        jsons.record(found[simulated.NAME], {}, what, ("total", "to_best"))
    _check_winner(found.get("winner") or {}, what)
    target = found.get("target") or {}
    if target:
        jsons.record(target, _TARGET, what, ("cost", "target"))
    if target.get("met") is False:
        kinds = {"target": jsons.NUMBER, "value": jsons.NUMBER}
        jsons.record(target, kinds, what, ("cost", *kinds))
    return found


def _check_numbers(found: dict[str, Any] | None, what: str) -> None:
    """Raises UserError where an entry of `found` is no number, nor None."""
    jsons.record(found or {}, dict.fromkeys(found or {}, _NUMBER), what)


def _check_winner(winner: dict[str, Any], what: str) -> None:
    """Raises UserError where what is kept of a winner and its metrics are not as they are shown."""
    if winner.get("rank") is not None:
        jsons.record(winner, {}, what, ("architectures",))
    kept = winner.get("kept") or {}
    _check_numbers(winner.get("metrics"), what)
    _check_numbers(kept.get("metrics"), what)
    if kept:
        jsons.record(kept, {}, what, ("folder",))
    if kept.get("interval"):
        jsons.record(kept["interval"], {}, what, _INTERVAL)
    table = kept.get("table") or {"names": []}
    jsons.record(table, {**{name: [_NUMBER] for name in table}, "names": list}, what, ("names",))
    if len(set(map(len, table.values()))) > 1:
        raise UserError(f"{what} is damaged: the columns of its 'table' are of different lengths")


def measure(folder: pathlib.Path) -> Measure:
    """What the run in `folder` maximises or minimises; an accuracy where it is not written down."""
    if (folder / "run.json").exists():
        run = run_json.read_run(folder)
        if run.metric:
            return measures.written({"name": run.metric, **run._asdict()})
    exists = (folder / "result.json").exists()
    return measures.of_result(read(folder, ()) if exists else {})


def own_rows(ctx: Context) -> history.Rows:
    """Everything that the run has measured or predicted."""
    return history.rows(ctx.knowledge.history, ctx.task.space, trained=None, run_id=ctx.run.id)


def target(ctx: Context, state: State) -> dict[str, Any] | None:
    """Whether the winner keeps the soft target of the reward; None without one."""
    reward = ctx.config.reward
    if reward.cost == "none":
        return None
    value = dict(zip(FIGURES, state.best, strict=True))[reward.cost]
    known = None if np.isnan(value) else bool(value <= reward.target)
    return {"cost": reward.cost, "target": reward.target, "value": value, "met": known}


def best(ctx: Context, state: State, finals: Finals | None) -> dict[str, Any]:
    """The best of `state`, which `finals` have decided, in the form that was evaluated."""
    arch = np.asarray(ctx.evaluator.form(jnp.asarray(state.best_arch)[None]))[0]
    place = finals_lib.place(finals)
    return {
        "arch": arch,
        "description": ctx.task.space.describe(arch),
        "value": ctx.task.measure.sign * state.best[0],
        **dict(zip(FIGURES, state.best, strict=True)),
        **(
            {}
            if finals is None or place is None
            else first_reading(finals, place) | metrics(finals, place)
        ),
    }


def readings(finals: Finals | None, space: Space) -> list[dict[str, Any]]:
    """Each finalist with both readings, by falling first one; None where the second failed."""
    if finals is None:
        return []
    return [
        {
            "arch": arch,
            "text": space.describe(arch)["text"],
            **first_reading(finals, i),
            "accuracy": finals.accuracy[i] if finals.ok[i] else None,
            "reward": finals.reward[i] if finals.ok[i] else None,
            **metrics(finals, i),
        }
        for i, arch in enumerate(finals.archs)
    ]


def metrics(finals: Finals, i: int) -> dict[str, Any]:
    """All metrics of the second reading of finalist `i`, where the task has others than its own."""
    if finals.metrics is None:
        return {}
    known = {name: values[i] for name, values in finals.metrics.items()}
    return {"metrics": known if finals.ok[i] else None}


def first_reading(finals: Finals, i: int) -> dict[str, Any]:
    """The figures of finalist `i` in the search, under names of their own."""
    first = finals.first
    return {"first_accuracy": first.accuracy[i], "first_reward": first.reward[i]}
