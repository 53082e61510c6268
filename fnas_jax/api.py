"""The Python interface: what the commands do, on arrays and in notebooks.

    import fnas_jax
    result = fnas_jax.search(x_train, y_train, x_test, y_test, budget=64, workdir="runs/a")
    print(result)
    result.trials, result.pareto, result.counts

One code path: a search from here and one by `python -m fnas_jax.main` are the same run.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections
import numpy as np

from fnas_jax import loop, opening, parts
from fnas_jax.core import config as config_lib
from fnas_jax.core import config_file, config_json, devices, frames, identity
from fnas_jax.core.types import UserError
from fnas_jax.parts import Parts
from fnas_jax.results import Result
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import data
from fnas_jax.tasks.readers import objects

LOG = logging.getLogger(__name__)


def search(
    x_train: Any = None,
    y_train: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    *,
    x_val: Any = None,
    y_val: Any = None,
    class_names: Any = None,
    budget: int | None = None,
    workdir: str | os.PathLike[str] | None = None,
    config: str | os.PathLike[str] | ml_collections.ConfigDict | None = None,
    space: str | Space | None = None,
    task: str | Callable[..., Any] | None = None,
    method: str | Callable[..., Any] | None = None,
    **overrides: Any,
) -> Result:
    """Searches a network for images, or on any task of a configuration; trains and tests the best.

    The same call with the same `workdir` goes on with an interrupted search, and returns at once
    what a finished one has found.

    Args:
      x_train: images [n, H, W] or [n, H, W, C], uint8 or any numbers; None: `task` or `config`
        says what is searched on.
      y_train: by `task.objective`: n class numbers, or names; 0 or 1 for each of L labels [n, L];
        values [n] or [n, R]; masks [n, H, W] of class numbers, 255: none.
      x_test: images that only the winner is judged on; without them, a part of the training images.
      y_test: theirs, as `y_train`.
      x_val: images that the search judges by; without them, a part of the training images.
      y_val: theirs, as `y_train`.
      class_names: a text for each class number, label or value.
      budget: architectures that are trained (`search.budget`).
      workdir: folder that the run writes to; None: a new one among the system's temporary ones.
      config: a file with `get_config()`, or its result; None: all defaults.
      space: `space.name`, or a space.
      task: `task.name`, e.g. "images/digits", or what builds a task, e.g. of `from_function`; not
        beside arrays.
      method: `method.name`, or what builds a method (`parts.Parts`).
      **overrides: other keys, as `children={"steps": 200}` or `**{"children.steps": 200}`; a key
        of two values, also of those above, is refused.

    Raises:
      UserError: wrong input, in one sentence, before anything is trained.
    """
    own = _own(space, task, method)
    given = {"search.budget": budget, "space.name": space, "task.name": task, "method.name": method}
    given |= {f"{k}.name": parts.name_of(k, v) for k, v in own._asdict().items() if v is not None}
    arrays = _arrays(x_train, y_train, x_test, y_test, x_val, y_val, class_names)
    if arrays is not None:
        named = config_lib.collect(overrides).get("task.name")
        given["task.name"] = f"images/{data.name_of(arrays)}"
        for name, value in {"task": task, "task.name": named}.items():
            if value not in (None, given["task.name"]):
                raise UserError(f"{name} is {value!r} beside arrays; give one of the two")
    return _run(config_lib.nest(_settings(config, given, overrides)), workdir, arrays, own)


def resume(
    folder: str | os.PathLike[str],
    x_train: Any = None,
    y_train: Any = None,
    x_test: Any = None,
    y_test: Any = None,
    *,
    x_val: Any = None,
    y_val: Any = None,
    class_names: Any = None,
    space: Space | None = None,
    task: Callable[..., Any] | None = None,
    method: Callable[..., Any] | None = None,
) -> Result:
    """Goes on with the search in `folder`, by its own configuration; a finished one is read.

    A search on arrays or with objects needs the same ones again, unless it is finished. Raises
    UserError where there is no search, or these are others, or the search began without such.
    """
    path = pathlib.Path(folder).expanduser()
    config = config_json.read_config(path)
    arrays = _arrays(x_train, y_train, x_test, y_test, x_val, y_val, class_names)
    own = _own(space, task, method)
    _check_needed(config, arrays, {"space": space, "task": task, "method": method})
    if (path / "result.json").exists():
        return Result(path, arrays, own)
    return _run(config, path, arrays, own)


def _run(
    config: ml_collections.ConfigDict,
    folder: str | os.PathLike[str] | None,
    arrays: Mapping[str, np.ndarray] | None,
    own: Parts,
) -> Result:
    config = config_lib.validate(config)
    devices.use_all_cores()
    if folder is None:
        folder = tempfile.mkdtemp(prefix="fnas_jax_")
        LOG.warning("the run is written to %s; workdir says where else", folder)
    path = pathlib.Path(folder).expanduser()
    try:
        builder = functools.partial(opening.build, arrays=arrays, own=own)
        loop.run(config, path, builder, arrays)
    except UserError:
        with contextlib.suppress(OSError):  # nothing was begun in a new folder: none is left
            path.rmdir()
        raise
    except Exception as error:
        frames.ask_to_report(error)
        raise
    return Result(path, arrays, own)


def _check_needed(
    config: ml_collections.ConfigDict,
    arrays: Mapping[str, np.ndarray] | None,
    own: Mapping[str, Any],
) -> None:
    """Raises UserError for arrays or parts that a run of `config` did not begin with."""
    needed = identity.in_memory(config_lib.flatten(config))
    if arrays is not None and identity.IMAGES not in needed:
        raise UserError(
            f"arrays were given, and the search began on {config.task.name}: leave them out"
        )
    for kind, part in own.items():
        if part is not None and f"{kind}=.." not in needed:
            raise UserError(
                f"{kind} was given, and the search began with {kind}.name {config[kind].name!r},"
                " which it goes on with: leave it out"
            )


def _own(space: Any, task: Any, method: Any) -> Parts:
    """Those of the three that are objects, not names. Raises UserError for what can be neither."""
    for kind, part in (("task", task), ("method", method)):
        if not (part is None or isinstance(part, str) or callable(part)):
            raise UserError(
                f"{kind} is {type(part).__name__}; it must be a name or a function that builds one"
            )
    if not (space is None or isinstance(space, str | Space)):
        raise UserError(f"space is {type(space).__name__}; it must be a name or a Space")
    own = {"space": space, "task": task, "method": method}
    if space is not None and getattr(task, "space", None) is not None:
        raise UserError("space was given beside a task that has a space of its own")
    return Parts(**{k: None if isinstance(part, str) else part for k, part in own.items()})


def _settings(
    config: str | os.PathLike[str] | ml_collections.ConfigDict | None,
    given: Mapping[str, Any],
    overrides: Mapping[str, Any],
) -> dict[str, Any]:
    """All keys with their values. Raises UserError for unknown ones, and for two values of one."""
    if isinstance(config, str | os.PathLike):
        config = config_file.load(os.fspath(config))
    settings = config_lib.flatten(config_lib.default() if config is None else config)
    chosen = {name: value for name, value in given.items() if value is not None}
    return settings | config_lib.collect(chosen, overrides)


def _arrays(
    x_train: Any, y_train: Any, x_test: Any, y_test: Any, x_val: Any, y_val: Any, class_names: Any
) -> dict[str, np.ndarray] | None:
    """The arrays that were given, by the names of an .npz file; None without training images."""
    found = {
        "x_train": x_train,
        "y_train": y_train,
        "x_val": x_val,
        "y_val": y_val,
        "x_test": x_test,
        "y_test": y_test,
    }
    present = {name: _array(name, array) for name, array in found.items() if array is not None}
    for name in present:
        other = ("y" if name[0] == "x" else "x") + name[1:]
        if other not in present:
            raise UserError(f"{name} was given without {other}")
    if present and "x_train" not in present:
        raise UserError(f"{', '.join(present)} were given without x_train and y_train")
    if class_names is not None:
        if not present:
            raise UserError("class_names was given without images")
        present["class_names"] = np.asarray(class_names, str)
    return present or None


def _array(name: str, given: Any) -> np.ndarray:
    """`given` as an array of numbers or texts. Raises UserError."""
    try:
        array = np.asarray(given)
    except ValueError as error:  # of lists of several lengths
        raise UserError(f"{name} is no array: {error}") from None
    if array.dtype.kind != "O":
        return array
    try:  # as pandas has texts
        return objects.plain(array.ravel().tolist()).reshape(array.shape)
    except ValueError as error:
        raise UserError(f"{name} is no array of numbers, or of texts: {error}") from None
