"""What a finished search tells in a few lines, on the terminal and wherever it is logged."""

from __future__ import annotations

import os

from fnas_jax import simulated
from fnas_jax.core import measure as measures
from fnas_jax.core.limits import UNITS
from fnas_jax.core.types import COSTS


def summary(result: dict, folder: str) -> str:
    """What a finished search tells on the terminal."""
    best, winner, counts = result["best"], result["winner"], result["counts"]
    measure = measures.of_result(result)
    metric, text = measure.name, measure.text
    done = (winner or {}).get("searched_by", "trained")
    total = (result.get("seconds") or {}).get("total")
    lines = [f"{counts['trained']} architectures {done}"]
    lines[0] += "" if total is None else f" in {total:.0f} s"
    if counts.get("over_limit"):
        lines[0] += f", {counts['over_limit']} not, because they are above a limit"
    if counts.get("stopped"):
        lines[0] += f", {counts['stopped']} of them stopped early"
    if times := result.get(simulated.NAME):
        until = "" if times["to_best"] is None else f", {times['to_best']:,.0f} s up to the best"
        lines.append(f"training took {times['total']:,.0f} s by the table{until}")
    if best is None:
        lines.append("none of them gave a result")
    else:
        lines.append(f"best: {best['description']['text']}")
        lines.append(f"search {reading(result)}{final_readings(result)}")
    target = result.get("target")
    if target and target.get("met") is False:
        unit = UNITS.get(target["cost"], target["cost"])
        lines.append(f"it misses the target of {target['target']:g} {unit}: {target['value']:.4g}")
    if winner and winner.get("rank") is not None:
        rows = winner["architectures"]
        of = "1 row" if rows == 1 else f"{rows} rows"
        lines.append(f"rank {winner['rank']} of the {of} of the table")
    if winner and winner.get("accuracy") is not None:
        lines.append(f"final {metric} {text(winner['accuracy'])}{cost(winner)}{others(result)}")
    if winner and (tuned := winner.get("finetuned")):
        lines.append(f"the same from inherited weights {text(tuned.get('accuracy'))}")
    if winner and (reference := winner.get("reference")):
        lines.append(f"reference network {text(reference.get('accuracy'))}{cost(reference)}")
    if winner and winner.get("kept"):
        lines.append(f"the network is kept in {os.path.join(folder, winner['kept']['folder'])}")
    return "\n".join([*lines, f"written to {os.path.join(folder, 'result.json')}"])


def reading(result: dict) -> str:
    """The winner's figure in the search; results of earlier versions have accuracies only."""
    best, measure = result["best"], measures.of_result(result)
    if measure.kind == "number":  # whose reward is no figure that anybody knows
        return f"{measure.name} {measure.text(best['accuracy'])}"
    reward = "unknown" if best["reward"] is None else f"{best['reward']:.4f}"
    return f"{measure.name} {measure.text(best['accuracy'])}, reward {reward}"


def others(result: dict) -> str:
    """The interval of the kept winner, and its other metrics; results of before have neither."""
    measure, winner = measures.of_result(result), result["winner"]
    kept = winner.get("kept") or {}
    words = []
    if kept.get("interval") and kept["interval"]["metric"] == measure.name:
        values = (kept["interval"][end] for end in ("low", "high"))
        ends = (measure.text(None if x is None else measure.sign * x) for x in values)
        words.append(f"95% between {' and '.join(ends)}")
    metrics = winner.get("metrics") or {}
    words += [
        f"{name} {x:.4g}" for name, x in metrics.items() if name != measure.name and x is not None
    ]
    return f" ({', '.join(words)})" if words else ""


def final_readings(result: dict) -> str:
    """How the finals decided, where there were any; results of earlier versions had none."""
    best, count = result["best"], len(result.get("finalists", ()))
    if "first_reward" in best:
        first = measures.of_result(result).text(best.get("first_accuracy"))
        return f" (best of {count} trained again; at first {first})"
    return f" (none of the {count} best gave a result when trained again)" if count else ""


def cost(network: dict) -> str:
    """The words "at 1.23 MFLOPs", where they are known."""
    mflops = network.get("mflops")
    return "" if mflops is None else f" at {mflops:.3g} MFLOPs"


def figures(result: dict) -> dict[str, float | str | None]:
    """What it comes to by the tags of TensorBoard and the like; None where it is unknown."""
    best, winner = result["best"] or {}, result["winner"] or {}
    name = measures.of_result(result).name
    found: dict[str, float | str | None] = {
        "winner/accuracy": winner.get("accuracy"),
        f"winner/{name}": winner.get("value", winner.get("accuracy")),  # of a loss, itself
        **{f"winner/{name}": value for name, value in (winner.get("metrics") or {}).items()},
        **{f"winner/{name}": winner.get(name, best.get(name)) for name in COSTS},
        "winner/search_accuracy": best.get("accuracy"),
        "winner/search_reward": best.get("reward"),
    }
    return found | ({"winner/architecture": best["description"]["text"]} if best else {})
