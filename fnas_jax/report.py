"""`python -m fnas_jax.report`: one page of HTML about a search, finished or not."""

from __future__ import annotations

import html
import json
import os
import pathlib
import sys
from collections.abc import Sequence
from typing import Any

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

from fnas_jax import outcome, registry
from fnas_jax.core import cli, disk, svg, workdir
from fnas_jax.core import config as config_lib
from fnas_jax.core.logging import metric_lines
from fnas_jax.core.measure import Measure
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import history, store
from fnas_jax.knowledge.history import Group

USAGE = """Writes report.html, a page without other files, about the search of a workdir.

  python -m fnas_jax.report --workdir=runs/a"""

ACCURACY = Measure()
STYLE = """body{font:15px/1.5 sans-serif;margin:2em auto;max-width:56em;color:#222}
td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}table{border-collapse:collapse}
code{overflow-wrap:anywhere}"""


def write(folder: str) -> pathlib.Path:
    """Writes the report of the run in `folder`. Raises UserError where there is none."""
    config = workdir.read_config(folder)
    path = pathlib.Path(folder).expanduser()
    result = outcome.read(path) if (path / "result.json").exists() else None
    target = path / workdir.REPORT
    known = _knowledge(workdir.knowledge_folder(path, config))
    metrics, measure = metric_lines(path / "metrics.jsonl"), outcome.measure(path)
    text = page(config, metrics, result, known, measure)
    with disk.replacing(target) as file:
        file.write(text)
    return target


def page(
    config: Any,
    metrics: list[dict[str, Any]],
    result: dict[str, Any] | None,
    knowledge: str = "",
    measure: Measure = ACCURACY,
) -> str:
    """The whole page; `result` None: the search still runs; `knowledge`: its last section."""
    name = f"{config.method.name} on {config.task.name}"
    loop = [m for m in metrics if "iteration" in m]
    training = [m for m in metrics if m.get("stage") == "prepare" and "nll" in m]
    sections = [f"<h1>{html.escape(name)}</h1>"]
    if result is None:
        sections.append("<p>The search has not finished yet.</p>")
    else:
        sections += [_best(result), _finalists(result, measure)]
        sections += [_winner(result, measure), _each(result), _counts(result)]
    sections += [
        _section("Search", _plot(*_readings(loop, measure), "evaluations")),
        _section(
            "Training of the supernet (nats per image)",
            _plot(training, "step", ("nll", "kl", "kl_weights", "kl_cost"), "log entries"),
        ),
        _section(
            "Entropy of the posterior (nats)", _plot(training, "step", ("entropy",), "log entries")
        ),
        _posterior(config, training),
        knowledge,
    ]
    body = "\n".join(section for section in sections if section)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{html.escape(name)}'
        f"</title><style>{STYLE}</style></head>\n<body>\n{body}\n</body></html>\n"
    )


def _plot(entries: list[dict[str, Any]], x: str, names: Sequence[str], x_label: str) -> str:
    series = {
        name: [(m[x], m[name]) for m in entries if None not in (m.get(x), m.get(name))]
        for name in names
    }
    return svg.lines({name: points for name, points in series.items() if points}, x_label, "value")


def _readings(
    loop: list[dict[str, Any]], measure: Measure
) -> tuple[list[dict[str, Any]], str, tuple[str, ...]]:
    """The iterations with the task's own metric as it was returned, and what is plotted of them."""
    names = {name: name.replace("accuracy", measure.name) for name in ("best_accuracy", "accuracy")}
    entries = [
        {"trained": m.get("trained")}
        | {names[n]: None if m.get(n) is None else measure.sign * m[n] for n in names}
        for m in loop
    ]
    return entries, "trained", tuple(names.values())


def _posterior(config: Any, training: list[dict[str, Any]]) -> str:
    """Pi of the last log entry that has it, a row for each slot."""
    known = [m for m in training if "pi" in m]
    if not known:
        return ""
    names: Sequence[str] = [f"slot {i}" for i in range(len(known[-1]["pi"]))]
    if config.space.name in registry.SPACES:
        names = registry.build_space(config).names
    rows = dict(zip(names, known[-1]["pi"], strict=True))
    return _section("Posterior: probability of each choice", svg.heat_map(rows))


def _best(result: dict[str, Any]) -> str:
    best = result["best"]
    if best is None:
        return "<p>No architecture gave a result.</p>"
    text = html.escape(best["description"]["text"])
    return _section("Best architecture", f"<p><code>{text}</code></p>")


def _finalists(result: dict[str, Any], measure: Measure) -> str:
    """Both readings of each finalist; results of earlier versions, and of many tasks, have none."""
    found = result.get("finalists", [])
    if not found:
        return ""
    head = ("", f"{measure.name} at first", measure.name, "reward at first", "reward", "")
    best = result["best"] or {}
    winner = best if "first_reward" in best else {}
    body = [
        (
            str(number),
            *(measure.text(entry.get(name)) for name in ("first_accuracy", "accuracy")),
            *(_number(entry.get(name)) for name in ("first_reward", "reward")),
            "winner" if winner and entry.get("arch") == winner["arch"] else "",
        )
        for number, entry in enumerate(found, start=1)
    ]
    return _section("Finalists, trained again on equal terms", _table([head, *body]))


def _winner(result: dict[str, Any], measure: Measure) -> str:
    """Metric and cost of the winner in the search, after it, and of its reference.

    Of a task that nothing judges again, the first of these only.
    """
    best, winner = result["best"], result["winner"]
    if best is None or winner is None:
        return ""
    first = best.get("first_accuracy", best["accuracy"])
    rows = {"in the search": best | {"accuracy": first}}
    rows |= {"as a finalist": best} if "first_reward" in best else {}
    rows["after it"] = winner
    rows |= {
        label: winner[name]
        for label, name in (("fine-tuned", "finetuned"), ("reference network", "reference"))
        if winner.get(name)
    }
    head = ("", measure.name, "MFLOPs", "parameters (millions)", "latency (ms)")
    fields = ("mflops", "params_m", "latency_ms")
    if measure.kind == "number":
        rows = {"in the search": best}
    body = [
        (label, measure.text(row.get("accuracy")), *(_number(row.get(f)) for f in fields))
        for label, row in rows.items()
    ]
    return _section("Winner", _table([head, *body]))


def _each(result: dict[str, Any]) -> str:
    """What the kept winner comes to on test images: all metrics, and of each class or label."""
    kept = (result["winner"] or {}).get("kept") or {}
    if not kept.get("metrics"):
        return ""
    between = kept.get("interval") or {"metric": ""}
    rows = [
        (name, _number(value, 6), _ends(between) if name == between["metric"] else "")
        for name, value in kept["metrics"].items()
    ]
    body = _table([("", "value", "95% interval"), *rows])
    if kept.get("no_interval"):
        body += f"<p>{html.escape('No interval: ' + kept['no_interval'])}.</p>"
    if kept.get("table"):
        columns = {name: values for name, values in kept["table"].items() if name != "names"}
        body += "<br>" + _table(
            [
                ("", *columns),
                *(
                    (str(name), *map(_number, values))
                    for name, *values in zip(kept["table"]["names"], *columns.values(), strict=True)
                ),
            ]
        )
    return _section("Winner on test images", body)


def _ends(interval: dict[str, Any]) -> str:
    return f"{_number(interval['low'])} to {_number(interval['high'])} ({interval['method']})"


def _counts(result: dict[str, Any]) -> str:
    counts = [(name, str(value)) for name, value in result["counts"].items()]
    times = (result.get("seconds") or {}).items()
    seconds = [(f"{name}, s", f"{value:.1f}") for name, value in times if value is not None]
    facts = [(name, str(result[name])) for name in ("seed", "resumed") if name in result]
    return _section("Counts and times", _table([("", ""), *counts, *seconds, *facts]))


def _knowledge(folder: pathlib.Path) -> str:
    """What the knowledge store in `folder` holds, of all runs; '' where there is none."""
    title = "Knowledge store, all runs"
    if not store.exists(folder):
        return ""
    try:
        with store.existing(folder) as connection:
            groups = history.groups(connection)
    except UserError as error:
        return _section(title, f"<p>{html.escape(f'It cannot be read: {error}')}</p>")
    if not groups:
        return ""
    head = ("task", "protocol", "space", "measured", "failed", "predicted", "runs")
    protocols = differences(groups)
    body = [
        (
            group.task,
            protocols[group.protocol],
            f"{group.space} {group.space_key}".strip(),
            *(str(n) for n in (group.measured, group.failed, group.predicted, group.runs)),
        )
        for group in groups
    ]
    return _section(title, _table([head, *body]))


def differences(groups: Sequence[Group]) -> dict[str, str]:
    """For each protocol its digest, and the settings that others of the same task have otherwise.

    Protocols of earlier versions are unknown.
    """
    flat = {g.protocol: config_lib.flatten(json.loads(g.settings or "{}")) for g in groups}
    words = {}
    for own, settings in flat.items():
        tasks = {g.task for g in groups if g.protocol == own}
        rivals = {g.protocol for g in groups if g.task in tasks and g.protocol} - {own}
        told = [
            f"{name}={value}"
            for name, value in settings.items()
            if any(flat[rival].get(name) != value for rival in rivals)
        ]
        label = own or "not written down"
        words[own] = f"{label}: {', '.join(told)}" if told else label
    return words


def _number(value: float | None, digits: int = 4) -> str:
    return "" if value is None else f"{value:.{digits}g}"


def _table(rows: Sequence[Sequence[str]]) -> str:
    cells = [
        "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in row)
        for tag, row in zip(("th", *["td"] * len(rows)), rows, strict=False)
    ]
    return f"<table><tr>{'</tr><tr>'.join(cells)}</tr></table>"


def _section(title: str, body: str) -> str:
    return f"<h2>{html.escape(title)}</h2>\n{body}" if body else ""


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if argv is None else argv
        values = cli.parse_flags(given, cli.define_workdir, USAGE)
        print(f"written to {write(cli.require(values, 'workdir'))}")

    return cli.run_command(body)


if __name__ == "__main__":
    signals.leave(command())
