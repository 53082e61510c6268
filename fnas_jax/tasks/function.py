"""A task that is a Python function of the decisions: `from_function`."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import numpy as np

from fnas_jax.core import attributes, budget, callables, identity, limits
from fnas_jax.core import reward as rewards
from fnas_jax.core.limits import Limits, within
from fnas_jax.core.measure import DIRECTIONS, Measure
from fnas_jax.core.types import COSTS, Array, Metrics, UserError
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import cache, features, remaining
from fnas_jax.tasks.base import Evaluator, Judged, Task
from fnas_jax.tasks.cache import EvaluationCache
from fnas_jax.tasks.workers import Workers

LOG = logging.getLogger(__name__)

Function = Callable[[dict[str, Any]], float | Mapping[str, float]]


@dataclass(frozen=True)
class FunctionTask:
    """What `from_function` returns: it builds the task from a configuration."""

    space: Space
    function: Function
    name: str
    measure: Measure
    workers: int

    def __call__(self, config: Any, space: Space | None = None, knowledge: Any = None) -> Task:
        """The task. Raises UserError for a reward that it cannot have."""
        workers = Workers(self.function, self.workers)
        capacity = budget.places(config.search, refused=False)  # what is above a limit has failed
        reward = rewards.define(config, self.measure)
        own = limits.from_config(config)
        ctx = Context(self, workers, reward.compute, own, reward.cost)
        return Task(
            name=self.name,
            space=self.space,
            evaluator=Evaluator(
                init=functools.partial(cache.empty, capacity, len(self.space.cardinalities)),
                evaluate=functools.partial(evaluate, ctx),
                jittable=False,
                form=jax.jit(self.space.canonical),
                left=remaining.of(self.space),
                protocol=identity.text(
                    {
                        "kind": "function",
                        "metric": {
                            "name": self.measure.name,
                            "direction": self.measure.direction,
                        },
                        "source": source_of(self.function, self.name),
                    }
                ),
            ),
            final=lambda arch, key: Judged({"measures": "nothing beyond the search"}),
            measure=self.measure,
            features=functools.partial(features.of, config.features, self.space, None, {}),
        )


def source_of(function: Function, name: str) -> str:
    """Digest of what the function is, by which a run notices another one of its `name`.

    "", and a warning, where that cannot be said (`core.callables`). Raises UserError where its file
    has changed since it was imported.
    """
    try:
        return callables.digest(function)
    except attributes.Edited:
        raise
    except UserError as error:
        LOG.warning("another function than that of %s would not be noticed: %s", name, error)
        return ""


def from_function(
    space: Space,
    function: Function,
    *,
    name: str | None = None,
    metric: str = "accuracy",
    direction: str = "maximize",
    workers: int = 0,
) -> FunctionTask:
    """A task whose networks are judged by `function`.

    `function` is given the decisions as `space.describe` has them, e.g. {"depth": 2, "op":
    "conv"} (of the spaces mnas, macro and cell the whole description), and returns the metric, or a
    dict with it and any of latency_ms, mflops and params_m. NaN, or an exception, is a network that
    failed. What was judged once is never judged again. The reward of an accuracy, in [0, 1], is
    that of `config.reward`; of any other metric, `measure.bounded`.

    Args:
      space: e.g. of `spaces.categorical.choices`.
      function: as above.
      name: what the history knows the task by; "python:MODULE:FUNCTION" by default.
      metric: what the function returns, or the key of it.
      direction: "maximize" or "minimize".
      workers: processes that call it side by side; 0: this one does. Where one dies, that
        network has failed, and the search goes on.

    Raises:
      UserError: another direction, an accuracy to minimise, fewer than no workers, or a function
        whose file has changed since it was imported.
    """
    callables.keep(function)
    if direction not in DIRECTIONS:
        raise UserError(f"direction is {direction!r}; allowed are {', '.join(DIRECTIONS)}")
    if metric == "accuracy" and direction != "maximize":
        raise UserError("an accuracy is maximised; metric= names what is to be minimised")
    if workers < 0:
        raise UserError(f"workers is {workers}; allowed is 0 or more")
    own = getattr(function, "__qualname__", type(function).__qualname__)
    name = name or f"python:{getattr(function, '__module__', '')}:{own}"
    kind = "share" if metric == "accuracy" else "number"
    return FunctionTask(space, function, name, Measure(metric, direction, kind), workers)


class Context(NamedTuple):
    """What the evaluator reads."""

    task: FunctionTask
    workers: Workers
    reward: Callable[[Array, Array, Array, Array], Array]
    limits: Limits
    cost: str  # that the reward needs, or "none"


def evaluate(
    ctx: Context, known: EvaluationCache, archs: Array, mask: Array, key: Array
) -> tuple[EvaluationCache, Metrics]:
    """As `Evaluator.evaluate`; a network above a limit fails afterwards, as nobody knew before."""
    canonical = ctx.task.space.canonical(archs)
    lookup = cache.look_up(known, canonical, mask)
    places = np.flatnonzero(lookup.new)
    if not len(places):
        return known, cache.recall(known, lookup)
    start = time.monotonic()
    described = [ctx.task.space.describe(np.asarray(canonical[i])) for i in places]
    answers = ctx.workers.map([d.get("decisions", d) for d in described])
    # Figures stay float64, as the function has them; only methods are told float32.
    figures = np.full((len(archs), 1 + len(COSTS)), np.nan)
    for place, of_one, answer in zip(places, described, answers, strict=True):
        figures[place] = read_answer(ctx.task.measure, of_one["text"], answer)
        if np.isfinite(figures[place, 0]):
            check_costs(ctx, of_one["text"], figures[place, 1:])
    seconds = np.where(lookup.new, (time.monotonic() - start) / len(places), 0.0)
    latency, mflops, params = figures[:, 1:].T
    allowed = np.asarray(within(ctx.limits, latency, mflops, params))
    ok = np.asarray(lookup.new) & np.isfinite(figures[:, 0]) & allowed
    accuracy: Any = np.where(ok, figures[:, 0], 0.0)
    reward = ctx.reward(accuracy, latency, mflops, params)
    now: dict[str, Any] = {
        "accuracy": accuracy,
        "reward": np.where(ok, reward, 0.0),
        "latency_ms": latency,
        "mflops": mflops,
        "params_m": params,
        "seconds": seconds,
        "ok": ok,
        "fresh": np.asarray(lookup.new),
    }
    known = cache.remember(known, lookup, canonical, Metrics(**now))
    recalled = jax.device_get(cache.recall(known, lookup))._asdict()  # float32
    return known, Metrics(**{n: np.where(lookup.new, now[n], recalled[n]) for n in now})


def check_costs(ctx: Context, text: str, costs: np.ndarray) -> None:
    """Raises UserError where the function left out a cost [3] that is needed."""
    needed = {name: f"limits.{name}" for name, limit in ctx.limits._asdict().items() if limit}
    if ctx.cost != "none":
        needed[ctx.cost] = "reward.cost"
    for name, value in zip(COSTS, costs, strict=True):
        if name in needed and not np.isfinite(value):
            raise UserError(
                f"the function returned no {name} for {text}, which {needed[name]} needs"
            )


def read_answer(measure: Measure, text: str, answer: Any) -> tuple[float, ...]:
    """(metric to maximise, latency_ms, mflops, params_m) of what the function returned.

    NaN where unknown. Whatever is no number is a failure, and said. Raises UserError for a dict
    without the metric.
    """
    if isinstance(answer, Exception):
        notes = "".join(f" ({note})" for note in getattr(answer, "__notes__", ()))
        LOG.warning("%s failed: %s: %s%s", text, type(answer).__name__, answer, notes)
        LOG.debug("the traceback of that", exc_info=answer)
        return (math.nan,) * (1 + len(COSTS))
    if not isinstance(answer, Mapping):
        answer = {measure.name: answer}
    if measure.name not in answer:
        raise UserError(
            f"the function returned {sorted(answer)} for {text}, without the metric"
            f" {measure.name!r}; metric= of from_function says which one counts"
        )
    try:
        value = float(answer[measure.name])
        costs = [float(answer.get(name, math.nan)) for name in COSTS]
    except (TypeError, ValueError, OverflowError):
        LOG.warning("%s failed: the function returned %r", text, answer)
        return (math.nan,) * (1 + len(COSTS))
    if not math.isfinite(value):
        LOG.warning("%s failed: %s is %s", text, measure.name, value)
    elif measure.name == "accuracy" and not 0 <= value <= 1:
        raise UserError(
            f"the function returned the accuracy {value:g} for {text}; accuracies lie in 0 to 1,"
            " metric= of from_function names another figure"
        )
    return measure.sign * value, *costs
