"""Runs by hand: what their files hold, without a search."""

import pathlib

import numpy as np

from fnas_jax.core.config import default
from fnas_jax.core.measure import Measure
from fnas_jax.plots import data
from fnas_jax.spaces import categorical

SPACE = categorical.choices({"depth": [1, 2, 3, 4], "wide": [1, 2, 3]})


def trial(value, reward=None, trained=True, ok=True, arch=(0, 0), text="a", **costs):
    """A record as `trials.read` gives them."""
    reward = value if reward is None else reward
    names = ("accuracy", "latency_ms", "mflops", "params_m", "seconds", "stopped")
    blank = dict.fromkeys(names)
    known = {"trained": trained, "ok": ok, "value": value if ok and trained else None}
    return {**blank, "text": text, "arch": list(arch), "reward": reward, **known, **costs}


def run(records, lines=(), stages=(), result=None, measure=None, name="a", **keys):
    """A `Run` of these records and lines of metrics."""
    config = default()
    config.task.name = "tabular/x.csv"
    with config.unlocked():
        config.update_from_flattened_dict(keys)
    records = [r | {"number": i} for i, r in enumerate(records)]
    return data.Run(
        folder=pathlib.Path("runs") / name,
        label=name,
        config=config,
        measure=Measure() if measure is None else measure,
        lines=list(lines),
        stages=list(stages),
        trials=data.table(records, lines, data.how_judged(config)),
        space=SPACE,
        result=result,
        records=records,
    )


def line(trained, predicted=0, seconds=0.0, **more):
    """A line of metrics.jsonl about an iteration."""
    return {
        "step": trained,
        "iteration": trained,
        "trained": trained,
        "predicted": predicted,
        "seconds/total": seconds,
        **more,
    }


def named(figure, name):
    """The x and y of the traces of this name, one after the other."""
    traces = [t for t in figure.data if t.name == name]
    assert traces, [t.name for t in figure.data]
    return tuple(np.concatenate([np.asarray(getattr(t, of), float) for t in traces]) for of in "xy")
