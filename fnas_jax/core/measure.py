"""What a search is about: a metric by name, which way is better, and how it becomes a reward."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp

from fnas_jax.core.types import Array

DIRECTIONS = ("maximize", "minimize")
KINDS = ("share", "error", "fit", "number")
# Names of what is an accuracy, which cannot lie elsewhere than in 0..1 or 0..100; and of what is
# rarely meant to be maximised.
ACCURACY = re.compile(r"acc(uracy|\d|\b|_|$)|top[-_ ]?[15](\D|$)", re.IGNORECASE)
LOSS = re.compile(
    r"loss|(^|[^a-z])(err|errors?|mse|rmse|mae|perplexity|ppl|nll)([^a-z]|$)", re.IGNORECASE
)


class Measure(NamedTuple):
    """What `Metrics.accuracy` of a task holds: this, or its negative where less is better.

    `kind` says what values it has, and so its score (`score`):

    - "share": 0 to 1, more is better, e.g. accuracy, macro-F1, mean IoU;
    - "error": from 0, less is better, e.g. a loss; `scale` is the error of a trivial answer;
    - "fit": up to 1, more is better, 0 for a trivial answer, e.g. R2;
    - "number": anything.
    """

    name: str = "accuracy"
    direction: str = "maximize"  # one of DIRECTIONS
    kind: str = "share"  # one of KINDS
    scale: float = 1.0

    @property
    def sign(self) -> float:
        """What the figure is multiplied by, so that more is better; and back."""
        return 1.0 if self.direction == "maximize" else -1.0

    def text(self, accuracy: float | None) -> str:
        """`accuracy`, as `Metrics` has it, for people: 0.5 -> "50.00%", of no share "0.5"."""
        if accuracy is None:
            return "unknown"
        value = self.sign * accuracy
        return f"{100 * value:.2f}%" if self.kind == "share" else f"{value:.6g}"


def written(known: Mapping[str, Any]) -> Measure:
    """The measure of which this was written down, by the names of its fields.

    Earlier versions wrote neither kind nor scale, and of an accuracy nothing.
    """
    given = {name: known[name] for name in Measure._fields if name in known}
    found = Measure(**given)
    if given.get("kind"):
        return found
    return found._replace(kind="share" if found.name == "accuracy" else "number")


def of_result(result: Mapping[str, Any]) -> Measure:
    """The measure of the content of a result.json; an accuracy where it is not written down."""
    return written(result.get("metric", {}))


def named(metric: str) -> Measure | None:
    """What the name of a table's column says that its figures are: an accuracy, or None: unknown.

    Which is all that protocols of tables of accuracies say of it.
    """
    return Measure() if ACCURACY.search(metric) and not LOSS.search(metric) else None


def valued(measure: Measure, facts: Any) -> Any:
    """`facts` for JSON, with `value` beside each `accuracy`, at any depth: as `measure` has it.

    Of a loss an `accuracy`, which is more where the network is better, is the negative; so
    `first_value` beside `first_accuracy`, too. A `value` that is there stays.
    """
    if isinstance(facts, list):
        return [valued(measure, entry) for entry in facts]
    if not isinstance(facts, Mapping):
        return facts
    found: dict[str, Any] = {}
    for name, entry in facts.items():
        found[name] = valued(measure, entry)
        if name in ("accuracy", "first_accuracy"):
            native = name.replace("accuracy", "value")
            found[native] = facts.get(native, None if entry is None else measure.sign * entry)
    return found


def score(measure: Measure, accuracy: Array) -> Array:
    """[N] in [0, 1] of [N] as `Metrics.accuracy` has it: more is better, of failures it would be 0.

    A share is its own score. An error e has scale / (scale + e), a fit f has 1 / (2 - f): both are
    1/2 for a trivial answer. Of anything else it is `bounded`.
    """
    if measure.kind == "share":
        return accuracy
    if measure.kind == "error":
        return measure.scale / (measure.scale - accuracy)
    if measure.kind == "fit":
        return 1 / (2 - accuracy)
    return bounded(accuracy)


def bounded(value: Array) -> Array:
    """An increasing map of all numbers to (0, 1): the score of metrics of which nothing is known.

    0.5 + sign(v) L / (1 + L) / 2 with L = log(1 + |v|): failures, whose reward is 0, are the worst,
    and numbers a hundred-thousandth apart still differ in float32.
    """
    size = jnp.log1p(jnp.abs(value))
    return 0.5 + 0.5 * jnp.sign(value) * size / (1 + size)
