"""What the history's file holds of the data of tasks, beside their evaluations.

Numbers and a sample of images, by which methods that know several tasks tell them apart.
"""

from __future__ import annotations

import json
import math
import sqlite3
from typing import Any

import numpy as np

from fnas_jax.core import identity, jsons
from fnas_jax.knowledge import schema


def data_key(task: str, protocol: str) -> str:
    """What the data of a task is known by; `protocol` as `Evaluator.protocol`.

    By its name alone where the protocol is unknown: another image size makes other data.
    """
    return f"{task} ({identity.digest(protocol)})" if protocol else task


def record_task(
    connection: sqlite3.Connection, task: str, statistics: dict[str, float], protocol: str = ""
) -> None:
    """Writes the numbers that describe the data of a task, in place of those that were there."""
    values = (data_key(task, protocol), json.dumps(statistics, sort_keys=True))
    with schema.transaction(connection):
        connection.execute("INSERT OR REPLACE INTO tasks VALUES (?, ?)", values)


def task_statistics(connection: sqlite3.Connection) -> dict[str, dict[str, float]]:
    """By `data_key`, the numbers of every task that the store was told of."""
    found = connection.execute("SELECT task, statistics FROM tasks").fetchall()
    return {key: _read(key, text, {}) for key, text in found}


def record_images(
    connection: sqlite3.Connection, task: str, images: np.ndarray, protocol: str = ""
) -> None:
    """Writes the sample uint8 [C, n, H, W, channels] of a task's training images."""
    pixels = np.ascontiguousarray(images, np.uint8).tobytes()
    values = (data_key(task, protocol), json.dumps(images.shape), pixels)
    with schema.transaction(connection):
        connection.execute("INSERT OR REPLACE INTO samples VALUES (?, ?, ?)", values)


def task_images(connection: sqlite3.Connection) -> dict[str, np.ndarray]:
    """By `data_key`, the samples of images of every task that the store was told of."""
    found = connection.execute("SELECT task, shape, images FROM samples").fetchall()
    return {key: _images(key, shape, images) for key, shape, images in found}


def _images(key: str, shape: str, images: bytes) -> np.ndarray:
    """Those of a row of the table. Raises what SQLite raises of damage."""
    sizes = _read(key, shape, [int])
    if len(sizes) != 5 or min(sizes) < 0 or math.prod(sizes) != len(images):
        raise sqlite3.DatabaseError(f"the images of {key!r} are none of the shape {sizes}")
    return np.frombuffer(images, np.uint8).reshape(sizes)


def _read(key: str, text: str, kind: Any) -> Any:
    """The JSON that `text` is, of a kind as `jsons.fits` has it. Raises as `_images` does."""
    try:
        found = jsons.parse(text)
    except (ValueError, TypeError) as error:
        raise sqlite3.DatabaseError(f"what it has of {key!r} cannot be read: {error}") from None
    if not jsons.fits(found, kind):
        raise sqlite3.DatabaseError(f"what it has of {key!r} is {found!r}")
    return found
