"""One iteration of a search: ask, evaluate, tell, and what is to be kept of it. Nothing on disk."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from fnas_jax.core import apart
from fnas_jax.core.clock import PARTS, Clock
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import Metrics, Proposal
from fnas_jax.knowledge.history import Row
from fnas_jax.methods.base import Best, SearchMethod
from fnas_jax.tasks.base import Evaluator

INIT, PREPARE, ASK, EVALUATE, FINAL, FINALISTS = range(6)  # purposes of random keys
FIGURES = ("accuracy", "reward", "latency_ms", "mflops", "params_m")
# `prepared`: children trained before the search, of which nothing was measured
# `over_limit`: networks that a hard limit kept from being trained
COUNTS = ("trained", "predicted", "replayed", "failed", "prepared", "over_limit")


class State(NamedTuple):
    """All that a checkpoint holds."""

    method: Any  # the method's own pytree
    evaluator: Any  # the evaluator's own pytree
    step: int  # steps of the method's `prepare` (and one for its end), then one per iteration
    iteration: int
    prepared: int  # stages before the loop that are finished: the evaluator's, the method's
    counts: dict[str, int]
    best_arch: np.ndarray  # [T] int32 as it was asked for, -1 before the first
    best: np.ndarray  # [5] float64, FIGURES of the best architecture
    seconds: dict[str, float]
    apart: int = apart.NONE  # in a checkpoint: version of what stands beside it (`core.apart`)


class Steps(NamedTuple):
    """The compiled functions of a search."""

    ask: Callable[..., Any]
    evaluate: Callable[..., Any]
    tell: Callable[..., Any]
    # (method state, evaluator state) -> best, stats
    report: Callable[[Any, Any], tuple[Best, dict[str, jax.Array]]]
    form: Callable[..., Any]  # `Evaluator.form`
    details: Callable[[Any], dict[str, jax.Array]]  # `SearchMethod.details`


def initial(method: SearchMethod, evaluator: Evaluator, decisions: int, key: jax.Array) -> State:
    """The state before anything was asked; also the template that checkpoints are read into."""
    return State(
        method=method.init(jax.random.fold_in(key, INIT)),
        evaluator=evaluator.init(),
        step=0,
        iteration=0,
        prepared=0,
        counts=dict.fromkeys((*COUNTS, "proposed"), 0),
        best_arch=np.full(decisions, -1, np.int32),
        best=np.full(len(FIGURES), np.nan),
        seconds=dict.fromkeys(PARTS, 0.0),
    )


def compiled(method: SearchMethod, evaluator: Evaluator) -> Steps:
    """Everything that is pure under `jit`; evaluators that train children compile by themselves."""
    evaluate = jax.jit(evaluator.evaluate) if evaluator.jittable else evaluator.evaluate

    summary = jax.jit(functools.partial(report, method, evaluator))
    tell, details = jax.jit(method.tell), jax.jit(method.details)
    return Steps(jax.jit(method.ask), evaluate, tell, summary, evaluator.form, details)


def report(
    method: SearchMethod, evaluator: Evaluator, state: Any, of_evaluator: Any
) -> tuple[Best, dict[str, jax.Array]]:
    """(best so far, what is worth logging) of the method's and the evaluator's states."""
    return method.best(state), method.stats(state) | evaluator.stats(of_evaluator)


def iterate(
    steps: Steps, state: State, key: jax.Array, clock: Clock
) -> tuple[State, list[Row], dict[str, Any]]:
    """(state after one iteration, rows for the history, scalars for the log).

    `key` is the run's; the iteration's own are folded from it, so nothing about keys is stored.
    """
    key_ask, key_evaluate = (_key(key, purpose, state.iteration) for purpose in (ASK, EVALUATE))
    with clock.part("method"):
        asked, proposal = jax.block_until_ready(steps.ask(state.method, key_ask))
    with clock.part("children"):
        inputs = (state.evaluator, proposal.archs, proposal.train_mask, key_evaluate)
        evaluated, metrics = jax.block_until_ready(steps.evaluate(*inputs))
    with clock.part("method"):
        updated = jax.block_until_ready(steps.tell(asked, proposal, metrics))
        best, stats = steps.report(updated, evaluated)
        forms = steps.form(proposal.archs)
    proposal, metrics, best, stats, forms = jax.device_get((proposal, metrics, best, stats, forms))
    best_arch, figures = _best(state, best, proposal, metrics)
    state = state._replace(
        method=updated,
        evaluator=evaluated,
        iteration=state.iteration + 1,
        counts=_count(state.counts, proposal, metrics, stats),
        best_arch=best_arch,
        best=figures,
    )
    scalars = _scalars(state, metrics) | pairs(proposal, metrics) | stats
    return state, _rows(proposal._replace(archs=forms), metrics), scalars


def details(steps: Steps, state: State) -> dict[str, Any]:
    """`SearchMethod.details` as nested lists for the log, to four decimals."""
    found = jax.device_get(steps.details(state.method))
    return {name: np.round(np.asarray(x, float), 4).tolist() for name, x in found.items()}


def pairs(proposal: Proposal, metrics: Metrics) -> dict[str, Any]:
    """Under "pairs" what the method had predicted of networks newly trained in full, and what came.

    Lists of rewards "predicted" and "measured", and "std" of the prediction, at most N long; {}
    where it had predicted nothing that counts.
    """
    known = metrics.fresh & metrics.ok & np.isfinite(proposal.predicted)
    known &= np.isfinite(proposal.uncertainty)
    if metrics.stopped is not None:
        known &= metrics.stopped == 0
    if not known.any():
        return {}
    of = {"predicted": proposal.predicted, "measured": metrics.reward, "std": proposal.uncertainty}
    return {"pairs": {n: np.round(np.asarray(x, float)[known], 6).tolist() for n, x in of.items()}}


def _key(key: jax.Array, purpose: int, iteration: int) -> jax.Array:
    """The key of a purpose in an iteration; `key` is the run's."""
    return jax.random.fold_in(jax.random.fold_in(key, purpose), iteration)


def _count(
    counts: dict[str, int], proposal: Proposal, metrics: Metrics, stats: dict[str, Any]
) -> dict[str, int]:
    """`counts` after one more iteration.

    The stat `replayed` counts samples drawn again, `over_limit` all networks above a limit so far.
    """
    return {
        "trained": counts["trained"] + int(metrics.fresh.sum()),
        # So that trained and predicted ones are the rows of the history, whatever is fresh.
        "predicted": counts["predicted"] + int((~proposal.train_mask & ~metrics.fresh).sum()),
        "replayed": counts["replayed"] + int(stats.get("replayed", 0)),
        "failed": counts["failed"] + int((metrics.fresh & ~metrics.ok).sum()),
        "prepared": counts["prepared"],
        "over_limit": int(stats.get("over_limit", 0)),
        "proposed": counts["proposed"] + len(metrics.fresh),
    }


def _best(
    state: State, best: Best, proposal: Proposal, metrics: Metrics
) -> tuple[np.ndarray, np.ndarray]:
    """The method's best architecture [T] and its FIGURES [5], found where it was proposed."""
    if not np.isfinite(best.reward) or np.array_equal(best.arch, state.best_arch):
        return state.best_arch, state.best
    same = np.flatnonzero(np.all(proposal.archs == best.arch, axis=1) & metrics.ok)
    if len(same) == 0:  # a method may know its best from before the loop
        unknown = dict.fromkeys(FIGURES, np.nan) | {"reward": float(best.reward)}
        return np.asarray(best.arch, np.int32), np.array(list(unknown.values()))
    figures = [float(getattr(metrics, name)[same[0]]) for name in FIGURES]
    return np.asarray(best.arch, np.int32), np.array(figures)


def _rows(proposal: Proposal, metrics: Metrics) -> list[Row]:
    """A row for each newly trained and each predicted architecture; known ones have theirs."""
    rows, figures = [], dict[str, Any]()
    for i, arch in enumerate(proposal.archs):
        if metrics.fresh[i]:
            figures = {name: float(getattr(metrics, name)[i]) for name in (*FIGURES, "seconds")}
            if metrics.stopped is not None:
                figures["stopped"] = int(metrics.stopped[i])
            rows.append(Row(i, arch, trained=True, ok=bool(metrics.ok[i]), **figures))
        elif not proposal.train_mask[i]:
            figures = dict.fromkeys((*FIGURES, "seconds"), np.nan)
            figures["reward"] = float(proposal.predicted[i])
            rows.append(Row(i, arch, trained=False, ok=True, **figures))
    return rows


def _scalars(state: State, metrics: Metrics) -> dict[str, Any]:
    """What is logged of an iteration besides the method's own statistics."""
    new = metrics.fresh & metrics.ok
    return {
        "iteration": state.iteration,
        "new": int(metrics.fresh.sum()),
        **{name: state.counts[name] for name in ("trained", "predicted", "failed", "proposed")},
        "best_accuracy": state.best[0],
        "best_reward": state.best[1],
        "accuracy": metrics.accuracy[new].mean() if new.any() else None,
        "reward": metrics.reward[new].mean() if new.any() else None,
    }


def line(scalars: dict[str, Any], measure: Measure) -> str:
    """The line of an iteration for the terminal, of a task with this `measure`."""
    accuracy, best, reward = (scalars[n] for n in ("accuracy", "best_accuracy", "best_reward"))
    sign = measure.sign
    mean = f"{scalars['new']} new, all failed" if scalars["new"] else "none new"
    if accuracy is not None:
        mean = f"mean {measure.name} {sign * accuracy:.4f}"
    start = f"iteration {scalars['iteration']}: {mean}"
    # Known networks are proposed again; without them and without predictions, all are trained ones.
    others = [f"{scalars['predicted']} predicted"] if scalars["predicted"] else []
    others += (
        [f"{scalars['proposed']} proposed"] if scalars["proposed"] > scalars["trained"] else []
    )
    counts = "".join(f", {text}" for text in others)
    if np.isnan(reward):
        return f"{start}, no result yet{counts}"
    paid = "" if reward == best else f" (reward {reward:.4f})"
    return f"{start}, best {sign * best:.4f}{paid}{counts}"
