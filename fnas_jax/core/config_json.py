"""config.json, the one configuration of a run: read, and compared with what is asked for now."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from typing import Any

import ml_collections

from fnas_jax.core import about as abouts
from fnas_jax.core import checkpoint, config_values, identity, jsons, mending, run_json
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError

# Keys of the end of a search
ENDS = ("budget", "max_proposals", "seconds", "images", "simulated_seconds", "winner_share")


def read_config(workdir: str | pathlib.Path) -> ml_collections.ConfigDict:
    """The configuration of the run in `workdir`. Raises UserError where there is none."""
    folder = pathlib.Path(workdir).expanduser()
    path = folder / "config.json"
    if not path.exists():
        began = any(
            (folder / name).exists() for name in ("run.json", mending.CHECKPOINTS, "result.json")
        )
        advice = "; the command that began the search writes it again" if began else ""
        raise UserError(
            f"{str(workdir)!r} is not the workdir of a run: it has no config.json{advice}"
        )
    flat = stored_keys(path)
    try:
        unknown = next((name for name in flat if name not in config_lib.all_keys()), None)
        if unknown is not None:
            raise config_lib.unknown_key(unknown)
        return config_lib.validate(config_lib.nest(flat))
    except UserError as error:
        raise UserError(f"{str(path)!r}: {error}") from None


def known_config(folder: pathlib.Path) -> dict[str, Any] | None:
    """All keys of the run in `folder`, by its newest checkpoint where config.json is not there.

    None where no run is.
    """
    path = folder / "config.json"
    if path.exists():
        return config_lib.flatten(read_config(folder))
    return _by_checkpoint(folder)


def _by_checkpoint(folder: pathlib.Path) -> dict[str, Any] | None:
    about = abouts.parse(checkpoint.newest_about(folder / mending.CHECKPOINTS))
    return None if about is None else config_lib.modernize(config_lib.flatten(about.config))


def as_begun(folder: pathlib.Path, config: ml_collections.ConfigDict) -> dict[str, Any]:
    """{key: value} of what the run in `folder` has of before there was a key.

    As far as `config` leaves it at today's default, so that the command that began a search goes on
    with it. What it was begun with on purpose is kept in the same way: whether there was a key
    then, its config.json does not say for ever.
    """
    try:
        old = known_config(folder)
    except UserError:  # what is damaged is mended from the checkpoint, which tells the same
        old = _by_checkpoint(folder)
    if old is None:
        return {}
    new, keys = config_lib.flatten(config), config_lib.all_keys()
    return {
        name: value
        for name, value in config_lib.BEFORE.items()
        if old[name] == value and new[name] == keys[name].default
    }


def stored_keys(path: pathlib.Path) -> dict[str, Any]:
    """The keys and values of a run's config.json, under the names of today.

    Raises UserError where it is missing or damaged.
    """
    flat = config_lib.flatten(jsons.read_record(path, {}))
    if not {"seed", "space.name", "task.name", "method.name"} <= flat.keys():  # of every version
        raise UserError(f"{str(path)!r} is damaged: it is no configuration of a search")
    found = config_lib.modernize(flat)
    for name, key in config_lib.all_keys().items():
        if not config_values.suits(key, found[name]):
            kind = config_values.kind(key)
            raise UserError(
                f"{str(path)!r} is damaged: {name} is {found[name]!r:.40}; it must be {kind}"
            )
    return found


def may_change(name: str) -> bool:
    """Whether a run may go on with another value of key `name`.

    More or less of the search, as far as it is not done yet (`check_budget`), or another end of it;
    what was searched so far stays what it is.
    """
    # Another code computes the same but for rounding, and a machine may not have that of another.
    free = (*(f"search.{key}" for key in ENDS), "task.cache_dir", "children.backend")
    return name in free or name.startswith(("winner.", "log.", "jax."))


def extends(folder: pathlib.Path, config: ml_collections.ConfigDict) -> bool:
    """Whether the run in `folder` is to go on otherwise than it began, as `opened` let pass.

    How it logs, and where programs are cached, changes nothing of what it finds.
    """
    path = folder / "config.json"
    if not path.exists():
        return False
    old, new = stored_keys(path), config_lib.flatten(config)
    names = (name for name in new if not name.startswith(("log.", "jax.")))
    return any(old.get(name) != new[name] for name in names)


def refuse_changes(
    folder: pathlib.Path, old: Mapping[str, Any], config: ml_collections.ConfigDict
) -> None:
    """Raises UserError if `config` differs from the `old` keys of the run in `folder`.

    But for those that may change.
    """
    new = config_lib.flatten(config)
    missing = "not set"
    differences = [
        f"{name} ({old.get(name, missing)} there, {new.get(name, missing)} now)"
        for name in sorted(old.keys() | new.keys())
        if old.get(name, missing) != new.get(name, missing)
        and not (name in old and name in new and may_change(name))
    ]
    if not differences:
        return
    forgotten = [name for name in identity.in_memory(old) if name not in identity.in_memory(new)]
    if forgotten:
        raise UserError(
            f"the search in workdir {str(folder)!r} was begun in Python, on what was in"
            f" memory: fnas_jax.resume({str(folder)!r}, {', '.join(forgotten)}) goes on with"
            " it, and reads a finished one; this configuration is another one"
        )
    advice = (
        "; give the command that began it, another search.budget or other winner.* and log.*"
        " keys, or another --workdir"
    )
    if _format(folder) not in (run_json.FORMAT, *run_json.READABLE):
        advice = (
            ". It was begun by another version of fnas_jax, whose defaults differ: finish it with"
            " that version, or start a new workdir; report and retrain still read it"
        )
    raise UserError(
        f"workdir {str(folder)!r} belongs to a run with another configuration:"
        f" {', '.join(differences)}{advice}"
    )


def _format(folder: pathlib.Path) -> int:
    """Of the checkpoints of the run in `folder`; today's where no start was written down."""
    path = folder / "run.json"
    return run_json.read_run(folder).format if path.exists() else run_json.FORMAT
