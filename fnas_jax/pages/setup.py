"""How a search was set up, and the commands that repeat it, go on with it and use what it found."""

from __future__ import annotations

import shlex
from typing import Any

from fnas_jax.core import config as config_lib
from fnas_jax.core import identity, workdir
from fnas_jax.core.types import UserError
from fnas_jax.knowledge import store, task_data
from fnas_jax.pages import network
from fnas_jax.pages.elements import Markup, code, facts, folded, join, paragraph, tag
from fnas_jax.plots.data import Run

LONG = 300  # characters of a value
SAID = ("task.name", "space.name", "method.name", "seed")  # in commands, at defaults too


def changed(run: Run) -> dict[str, Any]:
    """The keys of a run that differ from their defaults, flat."""
    usual = config_lib.flatten(config_lib.default())
    return {
        n: x for n, x in config_lib.flatten(run.config).items() if n not in usual or x != usual[n]
    }


def config(run: Run) -> Markup:
    """What was changed first, all else folded."""
    own = changed(run)
    rest = {n: x for n, x in config_lib.flatten(run.config).items() if n not in own}
    words = "Keys that are not as they are by default; the others are folded below."
    return join(
        [
            paragraph(words, "words"),
            facts([(name, tag("code", _short(value))) for name, value in own.items()]),
            folded(
                f"{len(rest)} keys at their defaults",
                facts([(name, tag("code", _short(value))) for name, value in rest.items()]),
            ),
        ]
    )


def _short(value: Any) -> str:
    found = repr(value)
    return found if len(found) <= LONG else f"{found[: LONG // 2]} .. {found[-LONG // 2 :]}"


def commands(run: Run) -> Markup:
    """To repeat, to go on, to use: as they have to be typed."""
    missing = identity.in_memory(config_lib.flatten(run.config))
    place = shlex.quote(str(run.folder))
    parts: list[object] = []
    if missing:
        given = ", ".join(missing)
        words = "Arrays or objects of the search are in no file: Python gives the same ones again."
        again = f"import fnas_jax\n\nfnas_jax.resume({str(run.folder)!r}, {given})"
        parts += [tag("h3", "Go on, or read the result"), paragraph(words, "words"), code(again)]
    else:
        parts += [tag("h3", "Repeat"), code(search(run, "NEW_WORKDIR"))]
        if run.result is None:
            parts += [tag("h3", "Go on"), code(search(run, str(run.folder)))]
        else:
            words = "With a higher search.budget, the same command and workdir go on with it."
            parts += [
                tag("h3", "Go on"),
                paragraph(words, "words"),
                code(search(run, str(run.folder))),
            ]
    if network.kept_folder(run) is not None:
        steps = 2 * run.config.winner.steps
        use = [
            f"fnas-jax export --workdir={place} --out=shipped",
            f"fnas-jax retrain --workdir={place} --config.winner.steps={steps}",
        ]
        parts += [tag("h3", "Use, train longer"), code("\n".join(use))]
    again = f"fnas-jax report {place}\nfnas-jax trials --workdir={place}"
    parts += [tag("h3", "This page, and all trials"), code(again)]
    return join(parts)


def search(run: Run, folder: str) -> str:
    """The command of this search, of all keys that are changed, in another `folder`."""
    flat = config_lib.flatten(run.config)
    keys = {name: flat[name] for name in SAID} | changed(run)
    given = [f"--config.{name}={value}" for name, value in keys.items()]
    words = [*given, f"--workdir={folder}"]
    return " \\\n    ".join(["fnas-jax search", *map(shlex.quote, words)])


def versions(run: Run) -> Markup:
    """Of what the results depend on."""
    found = (run.result or {}).get("versions") or {}
    return facts([(str(name), str(value)) for name, value in found.items()])


def data(run: Run) -> Markup:
    """What is known of the images or the table; by `best/`, or what the store was told."""
    rows: list[tuple[str, object]] = [("task", run.config.task.name)]
    known = network.data_facts(run, network.result_arch(run))
    return facts([*rows, *known] if known else [*rows, *stored(run)])


def stored(run: Run) -> list[tuple[str, str]]:
    """What the knowledge store was told of the task's images; [] where it was not."""
    folder = workdir.knowledge_folder(run.folder, run.config)
    if not store.exists(folder):
        return []
    try:
        with store.existing(folder) as known:
            every = task_data.task_statistics(known)
    except UserError:  # told where the store itself is shown
        return []
    # Of several sizes of one set, nothing here says which is the run's.
    own = [x for key, x in every.items() if key.partition(" (")[0] == run.config.task.name]
    if len(own) != 1:
        return []
    return [
        (str(name), f"{value:.6g}" if isinstance(value, float) else str(value))
        for name, value in own[0].items()
    ]
