"""What a search came to: the winner, its accuracy and cost, what was asked for and missed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from fnas_jax import simulated
from fnas_jax.core import jsons, workdir
from fnas_jax.core import limits as limits_lib
from fnas_jax.core.limits import UNITS
from fnas_jax.core.types import COSTS
from fnas_jax.pages import network
from fnas_jax.pages.elements import Markup, Table, capital, join, number, paragraph, table, tag
from fnas_jax.plots import best_so_far, data
from fnas_jax.plots.data import FAILED, PREDICTED, STOPPED, Run

# What is counted beside trained ones, or, of those that were stopped early, among them
JUDGED = {"stopped": STOPPED, "predicted": PREDICTED, "failed": FAILED}
SHORT = {"latency_ms": "ms", "mflops": "MFLOPs", "params_m": "M parameters"}


class Card(NamedTuple):
    """One fact of the summary."""

    name: str
    value: str
    more: str = ""
    good: bool | None = None  # None: neither good nor bad


def cards(run: Run) -> list[Card]:
    """The facts of a run, the most important first."""
    if run.result is None:
        return [*_best_so_far(run), _progress(run), *_spent(run)]
    if run.result["best"] is None:
        return [Card("Winner", "none", "no architecture gave a result", False), _progress(run)]
    found = [*_tested(run, run.result), _searched(run, run.result), *_cost(run.result)]
    return [*found, *bounds(run, run.result), _progress(run), *_spent(run)]


def _tested(run: Run, result: dict[str, Any]) -> list[Card]:
    """The winner after the search, and beside its reference."""
    winner = result["winner"] or {}
    value = winner.get("accuracy")
    if value is None:
        return []
    metric, images = run.measure.name, run.config.task.name.startswith("images/")
    name = f"Test {metric}" if images else f"{capital(metric)} by the table"
    found = [Card(name, run.measure.text(value), _interval(run, winner))]
    if winner.get("rank") is not None:
        found.append(Card("Rank", f"{winner['rank']}", f"of {winner['architectures']:,} rows"))
    reference = winner.get("reference") or {}
    if reference.get("accuracy") is not None:
        found.append(
            Card("Reference network", run.measure.text(reference["accuracy"]), _costs(reference))
        )
    return found


def _interval(run: Run, winner: dict[str, Any]) -> str:
    """Between what values the metric lies with 95%, by how many images; or why nobody knows."""
    kept = winner.get("kept") or {}
    accuracy = network.kept(run, network.result_arch(run)).record.get("accuracy") or {}
    images = accuracy.get("test_images")
    of = f" ({images:,} test images)" if images else ""
    between = kept.get("interval")
    if between and None not in (between["low"], between["high"]):
        sign = run.measure.sign if between["metric"] == run.measure.name else 1.0
        ends = [run.measure.text(sign * between[end]) for end in ("low", "high")]
        return f"95%: {ends[0]} to {ends[1]}{of}"
    if kept.get("no_interval"):
        return f"no interval: {kept['no_interval']}"
    return of.strip(" ()")


def _searched(run: Run, result: dict[str, Any]) -> Card:
    best, count = result["best"], len(result.get("finalists", ()))
    more = f"best of {count} trained again" if "first_reward" in best else "as the search read it"
    if best.get("reward") is not None and not best_so_far.same_scale(run):
        more += f"; reward {best['reward']:.4g}"
    return Card(
        f"{capital(run.measure.name)} in the search",
        run.measure.text(best["accuracy"]),
        more,
    )


def _cost(result: dict[str, Any]) -> list[Card]:
    known = {
        **result["best"],
        **{k: v for k, v in (result["winner"] or {}).items() if k in COSTS and v is not None},
    }
    words = [
        f"{number(known[c])} {SHORT[c]}"
        for c in ("mflops", "params_m", "latency_ms")
        if known.get(c) is not None
    ]
    return [Card("Cost", words[0], ", ".join(words[1:]))] if words else []


def _costs(facts: dict[str, Any]) -> str:
    return ", ".join(
        f"{number(facts[c])} {SHORT[c]}" for c in ("mflops", "params_m") if facts.get(c) is not None
    )


def bounds(run: Run, result: dict[str, Any]) -> list[Card]:
    """Hard limits and the soft target of the reward: kept or missed. Nothing where none was set."""
    found: list[Card] = []
    facts = {c: result["best"].get(c) for c in COSTS} | {
        c: x
        for c, x in (result["winner"] or {}).items()
        if (c in COSTS and x is not None) or c == "latency_by_source"
    }
    limits = limits_lib.from_config(run.config)
    if limits.any:
        said = ", ".join(f"{n} {x:g}" for n, x in limits._asdict().items() if x)
        missed = limits_lib.above(limits, facts)
        found.append(Card("Limits", "missed" if missed else "kept", missed or said, not missed))
    target = result.get("target")
    if target:
        unit, met = UNITS.get(target["cost"], target["cost"]), target.get("met")
        words = {True: "met", False: "missed", None: "unknown"}[met]
        value = number(target.get("value"))
        found.append(
            Card(
                "Target",
                words,
                f"{target['target']:g} {unit}; it has {value or 'an unknown one'}",
                met,
            )
        )
    return found


def _best_so_far(run: Run) -> list[Card]:
    """Of a search without a result."""
    value = best_value(run)
    if value is None:
        return [Card("Best so far", "none yet")]
    holder = best_so_far.curve(run.trials, "evaluations").holder[-1:]
    costs = {name: float(c[row]) for name, c in run.trials.costs.items() for row in holder}
    words = [f"{number(x)} {SHORT[n]}" for n, x in costs.items() if not math.isnan(x)]
    text = run.measure.text(run.measure.sign * value)
    return [Card("Best so far", text, ", ".join(words))]


def best_value(run: Run) -> float | None:
    """The metric of the best so far; by the metrics, where the history cannot be read."""
    curve = best_so_far.curve(run.trials, "evaluations")
    if len(curve.x):
        return float(curve.value[-1])
    if len(run.trials.text) or not run.lines:
        return None
    told = float(data.series(run.lines[-1:], "best_accuracy")[0])
    return run.measure.sign * told if math.isfinite(told) else None


def counts(run: Run) -> dict[str, int]:
    """Networks "trained", and those of JUDGED; by the metrics, where there is no history."""
    t, line = run.trials, run.lines[-1] if run.lines else {}
    found = {
        "trained": int(t.evaluations[-1]) if len(t.evaluations) else 0,
        **{name: int((t.kind == kind).sum()) for name, kind in JUDGED.items()},
    }
    if not len(t.text):
        found |= {name: line[name] for name in found if _is_count(line.get(name))}
    told = (run.result or {}).get("counts") or {}
    return found | {name: told[name] for name in found if name in told}


def _progress(run: Run) -> Card:
    """How many networks were judged of how many that may be."""
    found, budget = counts(run), run.config.search.budget
    words = [f"{found[name]:,} {name}" for name in JUDGED if found[name]]
    return Card("Evaluated", f"{found['trained']:,} of {budget:,}", ", ".join(words))


def _is_count(value: Any) -> bool:
    return jsons.fits(value, int) and jsons.fits(value, jsons.NUMBER)


def _spent(run: Run) -> list[Card]:
    total = seconds(run)
    starts = (run.result or {}).get("resumed")
    more = f"started {starts + 1} times" if starts else ""
    found = [] if total is None else [Card("Time", clock(total), more)]
    return [*found, *_simulated(run)]


def _simulated(run: Run) -> list[Card]:
    """Of a table with training times: what the networks took to train."""
    if run.result is not None:
        known = run.result.get(simulated.NAME)
    else:
        told: Any = run.lines[-1].get(simulated.NAME) if run.lines else None
        known = {"total": told} if jsons.fits(told, jsons.NUMBER) else None
    if not known:
        return []
    best = known.get("to_best")
    more = "" if best is None else f"the winner after {clock(best)}"
    return [Card("Simulated training", clock(known["total"]), more)]


def seconds(run: Run) -> float | None:
    """How long the search took, or has taken."""
    total: Any = ((run.result or {}).get("seconds") or {}).get("total")
    if total is None and run.lines:
        total = run.lines[-1].get("seconds/total")
    return float(total) if jsons.fits(total, jsons.NUMBER) else None


def clock(seconds: float) -> str:
    """A duration for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def state(run: Run) -> tuple[str, str]:
    """(how the search is, its class of style)."""
    if run.result is not None:
        return ("finished", "") if run.result["best"] is not None else ("found nothing", "bad")
    return ("running", "open") if workdir.is_held(run.folder) else ("interrupted", "bad")


def shown(run: Run) -> Markup:
    """The heading of a run and its facts, as cards."""
    words, kind = state(run)
    title = f"{run.config.method.name} on {run.config.task.name}"
    heading = tag("h1", join([title, tag("span", words, class_=f"state {kind}".strip())]))
    boxes = [card(one) for one in cards(run)]
    advice = (
        "" if run.result is not None else "The search has not finished yet. This page is as of now."
    )
    return join(
        [
            heading,
            paragraph(str(run.folder), "small"),
            paragraph(advice),
            tag("div", join(boxes), class_="cards"),
        ]
    )


def card(one: Card) -> Markup:
    """A fact in a box."""
    kind = "" if one.good is None else (" good" if one.good else " bad")
    parts = [tag("div", one.name, class_="name"), tag("div", one.value, class_="value")]
    if one.more:
        parts.append(tag("div", one.more, class_="more"))
    return tag("div", join(parts), class_=f"card{kind}")


def winners(run: Run, result: dict[str, Any]) -> Markup:
    """Metric and cost of the winner in the search, after it, and of its reference."""
    best, winner, measure = result["best"], result["winner"], run.measure
    if best is None or winner is None:
        return Markup("")
    first = best.get("first_accuracy")
    rows: dict[str, dict[str, Any]] = {
        "in the search": best | {"accuracy": first if "first_reward" in best else best["accuracy"]}
    }
    if "first_reward" in best:
        rows["as a finalist"] = best
    rows["after it"] = winner
    for label, name in (("fine-tuned", "finetuned"), ("reference network", "reference")):
        if winner.get(name):
            rows[label] = winner[name]
    if measure.kind == "number":
        rows = {"in the search": best}
    names = {"mflops": "MFLOPs", "params_m": "parameters (millions)", "latency_ms": "latency (ms)"}
    used = [name for name in names if any(row.get(name) is not None for row in rows.values())]
    body: Sequence[Any] = [
        (label, measure.text(row.get("accuracy")), *(row.get(name) for name in used))
        for label, row in rows.items()
    ]
    return table(Table(("", measure.name, *(names[name] for name in used)), body))
