"""Tables of a report: trials, finalists, figures on test images, counts."""

from __future__ import annotations

import base64
import math
import shlex
from typing import Any

import numpy as np

from fnas_jax import trials as trials_lib
from fnas_jax.pages.elements import Cell, Markup, Table, join, paragraph, table, tag
from fnas_jax.plots.data import FAILED, PREDICTED, Run
from fnas_jax.simulated import NAME

TOP = 200  # trials in a page
CSV = 400_000  # bytes of text that a page holds for a download


def trials(run: Run) -> Markup:
    """The best of what was tried, to be sorted, and all of it as a CSV."""
    t = run.trials
    if not len(t.text):
        return Markup("")
    rank = np.where(t.measured, t.reward, -math.inf)
    order = np.lexsort((np.arange(len(rank)), t.kind == FAILED, t.kind == PREDICTED, -rank))[:TOP]
    costs = [c for c in ("mflops", "params_m", "latency_ms") if np.isfinite(t.costs[c]).any()]
    head = ("number", run.measure.name, "reward", *costs, "how", "network")
    rows: list[tuple[Cell, ...]] = [
        (
            int(i),
            float(t.value[i]),
            float(t.reward[i]),
            *(float(t.costs[c][i]) for c in costs),
            str(t.kind[i]),
            t.text[i],
        )
        for i in order
    ]
    most = f"The best {len(rows):,} of {len(t.text):,}. " if len(rows) < len(t.text) else ""
    words = f"{most}A click on a column sorts by it."
    listed = tag("div", table(Table(head, rows, sortable=True)), class_="long")
    return join([paragraph(words, "words"), download(run), listed])


def download(run: Run) -> Markup:
    """A link to all trials as a CSV within the page; of very many, the command that writes it."""
    command = f"fnas-jax trials --workdir={shlex.quote(str(run.folder))} --format=csv"
    content = trials_lib.as_csv(run.records)
    if len(content) > CSV:
        return tag("p", join(["All of them: ", tag("code", command)]))
    packed = base64.b64encode(content.encode()).decode()
    name = f"{run.folder.name or 'trials'}.csv"
    link = tag(
        "a",
        f"All {len(run.trials.text):,} as CSV",
        href=f"data:text/csv;base64,{packed}",
        download=name,
    )
    return tag("p", link)


def finalists(run: Run, result: dict[str, Any]) -> Markup:
    """Both readings of each finalist; results of earlier versions, and of many tasks, have none."""
    measure, best = run.measure, result["best"] or {}
    winner = best if "first_reward" in best else {}
    head = ("", f"{measure.name} at first", measure.name, "reward at first", "reward", "")
    rows = [
        (
            str(place),
            *(measure.text(entry.get(name)) for name in ("first_accuracy", "accuracy")),
            *(entry.get(name) for name in ("first_reward", "reward")),
            "winner" if winner and entry.get("arch") == winner["arch"] else "",
        )
        for place, entry in enumerate(result.get("finalists", []), start=1)
    ]
    return table(Table(head, rows))


def on_test_images(result: dict[str, Any]) -> Markup:
    """What the kept winner comes to on test images: all metrics, and of each class or label."""
    kept = (result["winner"] or {}).get("kept") or {}
    if not kept.get("metrics"):
        return Markup("")
    between = kept.get("interval") or {"metric": ""}
    ends = ""
    if between["metric"]:
        ends = f"{_six(between['low'])} to {_six(between['high'])} ({between['method']})"
    rows = [
        (name, _six(value), ends if name == between["metric"] else "")
        for name, value in kept["metrics"].items()
        if name != "value"  # what the accuracy, or its like, stands there as once more
    ]
    parts = [table(Table(("", "value", "95% interval"), rows))]
    if kept.get("no_interval"):
        parts.append(paragraph(f"No interval: {kept['no_interval']}."))
    if kept.get("table"):
        columns = {name: values for name, values in kept["table"].items() if name != "names"}
        names = kept["table"]["names"]
        of = [(str(n), *x) for n, *x in zip(names, *columns.values(), strict=True)]
        parts.append(table(Table(("", *columns), of, sortable=True)))
    return join(parts)


def _six(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"


def counts(result: dict[str, Any]) -> Markup:
    """What was counted, and seconds."""
    rows: list[tuple[Cell, ...]] = [(name, str(value)) for name, value in result["counts"].items()]
    times = (result.get("seconds") or {}).items()
    rows += [(f"{name}, s", f"{value:.1f}") for name, value in times if value is not None]
    simulated = (result.get(NAME) or {}).items()
    rows += [(f"simulated {n}, s", f"{x:.1f}") for n, x in simulated if x is not None]
    rows += [(name, str(result[name])) for name in ("seed", "resumed") if name in result]
    return table(Table(("", ""), rows))
