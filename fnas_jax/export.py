"""`python -m fnas_jax.export`: the network that a search has left, for other programs."""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from fnas_jax.core import signals

if __name__ == "__main__":
    signals.starting()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # before JAX loads: no chatter from XLA

import jax.numpy as jnp
import numpy as np
from absl import flags

from fnas_jax import outcome, pareto, registry
from fnas_jax.core import cli, config_json, disk, exits, mapped, stages
from fnas_jax.core.mapped import Images, Mapped
from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError
from fnas_jax.objectives.base import Objective
from fnas_jax.ship import best, figures, formats, inputs, judge
from fnas_jax.ship.labels import check_count
from fnas_jax.ship.model import BATCH, Model, in_batches, load, numbers_each
from fnas_jax.tasks import protocols
from fnas_jax.tasks.base import Task

DEFAULT = ("safetensors", "flax", "jax")
# Of probabilities, and of values in deviations of the training images: float32 in other orders of
# summation, through all layers
ATOL = 1e-3
ROUNDED = 4  # values may differ by so many of their last places, too, however far from 0 they are
DIFFERING = 1e-4  # share of answers of labels or pixels: where scores are a rounding from a tie
USAGE = f"""Writes the network that a search has left in formats of other programs.

  python -m fnas_jax.export --workdir=runs/a --out=shipped --format={",".join(DEFAULT)}

Each is loaded again, by itself and without fnas_jax, and judges the test images of the task; one
that does not answer as the kept network does is not left there, and the exit code is 1."""


class Test(NamedTuple):
    """What every format has to repeat."""

    images: np.ndarray  # [N, H, W, C] as stored
    objective: Objective
    targets: np.ndarray  # [N, ..]
    answers: np.ndarray  # [N, ..] by the network as it is kept
    scores: np.ndarray  # [N, ..] by it


class Differs(Exception):
    """An exported network is not the one that is kept."""


def define(values: flags.FlagValues) -> None:
    """Declares the flags of this command."""
    cli.define_workdir(values)
    flags.DEFINE_string("out", "", "folder that the formats are written to", flag_values=values)
    flags.DEFINE_list(
        "format", list(DEFAULT), f"some of {', '.join(formats.FORMATS)}", flag_values=values
    )
    flags.DEFINE_integer(
        "pick",
        None,
        "only if this network is what is kept: 0 the winner, else its number in the front, from 1",
        flag_values=values,
    )


def export(
    folder: str | pathlib.Path,
    out: pathlib.Path,
    names: str | Sequence[str],
    images: Any = None,
    labels: Any = None,
    pick: int | Mapping[str, Any] | None = None,
    build: Callable[[Any], Task] | None = None,
) -> bool:
    """Writes each format to a folder of its name in `out`, once it is judged; False: one differs.

    `names` are some of `formats.FORMATS`, or one.

    Judged by `images` and `labels`, as `Model.evaluate` takes them; None: by the test images of the
    task, which `build` makes of the configuration (None: `registry.build_task`). `pick` is the
    network that has to be the kept one, as `held` says. Raises UserError for a search without
    network, or another than that, changed data, an unknown format, or missing packages.
    """
    names = [names] if isinstance(names, str) else list(dict.fromkeys(names))
    if not names:
        raise UserError(f"no format was given; allowed are {', '.join(formats.FORMATS)}")
    for name in names:
        if name not in formats.FORMATS:
            allowed = f"allowed are {', '.join(formats.FORMATS)}{nearest(name, formats.FORMATS)}"
            raise UserError(f"format is {name!r}; {allowed}")
        formats.check(name)
    kept = best.locate(pathlib.Path(folder).expanduser())
    model = load(kept)
    if pick is not None:
        held(folder, model, pick)
    if images is None and labels is not None:
        raise UserError("labels were given without images")
    with stages.at("the network on test images"):
        test = test_of(folder, model, build) if images is None else given(model, images, labels)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise disk.unusable(f"{str(out)!r} cannot be written", error) from None
    print(f"{'kept':<12} {said(test, test.scores)}: {model.description}")
    equal = []
    for name in names:  # each, whatever the others do
        with stages.at(f"writing and checking {name}"):
            equal.append(write(out, name, model, kept, test))
    return all(equal)


def held(folder: str | pathlib.Path, model: Model, pick: int | Mapping[str, Any]) -> None:
    """Raises UserError unless `model` is `pick` of the search in `folder`, as `retrain` takes it.

    Of the others the search has figures only: their weights are not kept.
    """
    found = outcome.read(pathlib.Path(folder).expanduser(), ("best",))
    number = pareto.number(found, pick)
    wanted = pareto.choose(found, number)
    if wanted["arch"] != model.arch:
        again = f" --pick={number}" if number else ""
        raise UserError(
            f"{best.NAME}/ holds {model.description}, and not {pareto.words(wanted)}, of which no"
            f" weights are kept: python -m fnas_jax.retrain --workdir={folder}{again} (from Python,"
            f" Result.retrain(pick={number})) trains it first"
        )


def given(model: Model, images: Any, labels: Any) -> Test:
    """Images and labels of a user. Raises UserError without labels, and as `Model.evaluate`."""
    if labels is None:
        raise UserError("images were given without labels, so an export cannot be judged by them")
    targets = model.targets(labels)
    fitted = inputs.fitted(model.inputs, inputs.checked(model.inputs, images))
    check_count(len(fitted), len(targets))
    return Test(fitted, model.objective, targets, *model.predict(fitted))


def test_of(
    folder: str | pathlib.Path, model: Model, build: Callable[[Any], Task] | None = None
) -> Test:
    """The test images of the search in `folder`. Raises UserError where they have changed."""
    config = config_json.read_config(folder)
    with config.unlocked():  # only the images are needed, not what said which networks are fast
        config.latency.source = "device"
    task = (build or registry.build_task)(config)
    dataset, known = task.dataset, model.architecture["data"]["fingerprint"]
    if dataset is None or protocols.fingerprint(dataset) != known:
        raise UserError(
            f"the images of {task.name} are not those that the network was trained on and tested"
            " with, so an export cannot be judged"
        )
    images, classes = dataset.test_images, dataset.test_labels
    count = judging(model, images)
    if count < len(images):  # what is handed to other programs at once
        print(f"exports are judged by the first {count} of {len(images)} images")
        images, classes = images[:count], classes[:count]
    images = np.asarray(images)
    return Test(images, model.objective, classes, *in_batches(model, images, BATCH))


def judging(model: Model, images: Images) -> int:
    """How many of the images judge an export.

    As many as have scores, and are themselves where they stay in their file, of `MAPPED_FROM` bytes
    at most.
    """
    of_one = 4 * numbers_each(model)
    if isinstance(images, Mapped):
        of_one = max(of_one, images.nbytes // len(images))
    return max(1, min(len(images), mapped.MAPPED_FROM // of_one))


def write(out: pathlib.Path, name: str, model: Model, kept: pathlib.Path, test: Test) -> bool:
    """Writes one format and says how it did; False: it differs, and is not left there."""
    check = functools.partial(compare, name, test)
    try:
        best.replace(out / name, formats.files_of(name, model, kept), check)
    except Differs as error:
        print(f"{name:<12} {error}; it is not written")
        return False
    print(f"{'':<12} written to {out / name}")
    return True


def compare(name: str, test: Test, folder: pathlib.Path) -> None:
    """Judges what stands in `folder` and prints its figure. Raises Differs."""
    try:
        if name == "safetensors":
            answers, scores = load(folder).predict(test.images)
        else:
            module = "model" if name == "flax" else "load"
            answers, scores = judge.outcome(folder, module, test.images)
    except (RuntimeError, UserError) as error:
        raise Differs(f"cannot be loaded: {error}") from None
    largest = apart(test, scores)
    unit = " deviations" if test.objective.known.spread else ""
    text = f"{said(test, scores)}, {test.objective.pair[1]} within {largest:.1e}{unit}"
    if not same(test, answers) or not largest <= ATOL:
        raise Differs(f"{text}, differs from {said(test, test.scores)} of the network that is kept")
    print(f"{name:<12} {text}")


def apart(test: Test, scores: np.ndarray) -> float:
    """The largest difference of `scores` [N, ..] from those of the kept network.

    Of values in deviations of the training images, whatever their unit, and beyond what rounding
    makes of values that are large beside their deviation. Not a number where one of them is none.
    """
    spread = test.objective.known.spread
    if not spread:
        return float(np.abs(scores - test.scores).max())
    exact = np.asarray(test.scores, np.float64)
    rounding = ROUNDED * np.spacing(np.abs(test.scores, dtype=np.float32))
    return float((np.maximum(np.abs(scores - exact) - rounding, 0) / np.asarray(spread)).max())


def said(test: Test, scores: np.ndarray) -> str:
    """What the scores come to by the metric of the search, as far as scores tell the outputs."""
    objective, count = test.objective, len(scores)
    parts = (slice(start, start + BATCH) for start in range(0, count, BATCH))
    found = ((np.asarray(objective.undo(jnp.asarray(scores[p]))), test.targets[p]) for p in parts)
    value = figures.in_parts(objective, found, count).value(objective)
    return f"test {objective.measure.name} {objective.measure.text(value)}"


def same(test: Test, answers: np.ndarray) -> bool:
    """Whether the answers are those of the kept network, as far as scores do not decide it.

    Of classes as many are right. Of several labels or of pixels, which are many, a few may differ.
    Values are their own scores.
    """
    if answers.dtype.kind == "f":
        return True
    if test.answers.ndim > 1:
        return bool(np.mean(answers != test.answers) <= DIFFERING)
    return int((answers == test.targets).sum()) == int((test.answers == test.targets).sum())


def command(argv: Sequence[str] | None = None) -> int:
    """Runs the command with `argv` (without the program's name); returns the exit code."""
    equal = [True]

    def body() -> None:
        values = cli.parse_flags(sys.argv[1:] if argv is None else argv, define, USAGE)
        folder, out = cli.require(values, "workdir"), cli.require(values, "out")
        place = pathlib.Path(out).expanduser()
        equal[0] = export(folder, place, values.format, pick=values.pick)

    code = exits.run_command(body)
    return code if equal[0] else 1


if __name__ == "__main__":
    signals.leave(command())
