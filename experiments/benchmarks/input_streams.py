"""Images that do not fit into memory: how fast a network trains on chunks of a file.

    python -m experiments.benchmarks.input_streams --json OUT

Random images in a .npy file, and a small network, which needs many of them. In turn: all images on
the devices (`resident`), chunks of which a thread reads the next one, as searches do (`ahead`), and
chunks that are read when they are needed (`in_turn`). The file is taken out of the system's cache
before each training, so that its rows come from the disk, as far as the system obliges.
"""

from __future__ import annotations

import argparse
import itertools
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed
from experiments.benchmarks.records import Record
from fnas_jax import registry
from fnas_jax.core import config as config_lib
from fnas_jax.core import devices, mapped
from fnas_jax.networks import elastic
from fnas_jax.objectives import classification
from fnas_jax.tasks import data as datasets
from fnas_jax.training import child, parallel, streaming
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline, unchanged

BENCHMARK, TASK = "input_streams", "random_images"
CLASSES, BATCH = 10, 64
Spans = Iterator[tuple[Data, int, int]]


def write_images(path: Path, count: int, side: int) -> None:
    """`count` random images of `side` pixels in three channels, in a .npy file."""
    rng = np.random.default_rng(0)
    found = np.lib.format.open_memmap(path, "w+", np.uint8, (count, side, side, 3))
    for first in range(0, count, 1000):
        found[first : first + 1000] = rng.integers(0, 256, found[first : first + 1000].shape)
    found.flush()


def unread(path: Path, count: int, side: int) -> mapped.Mapped:
    """The images of `write_images`, of which none is read before it is asked for."""
    size = count * side * side * 3
    shape = (count, side, side, 3)
    return mapped.mapped(path, path.stat().st_size - size, shape, np.dtype(np.uint8))


def forget(path: Path) -> None:
    """Takes a file out of the system's cache."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def trainee(side: int) -> child.Context:
    """A network of one block, half as wide as usual, and its training."""
    config = config_lib.default()
    config.space.blocks, config.space.strides, config.space.width = 1, (2,), 0.5
    config.space.stem_stride, config.space.head = 2, 64
    space = registry.build_space(config)
    network = elastic.fixed_network(space, np.zeros(7, np.int32), (side, side, 3), CLASSES)
    normalise = datasets.normalise
    settings = Children(batch_size=BATCH)
    mean, std = np.full(3, 128.0, np.float32), np.full(3, 64.0, np.float32)
    pipeline = Pipeline(lambda images: normalise(images, mean=mean, std=std), unchanged)
    return child.Context(network, settings, pipeline, classification.of(CLASSES))


def in_turn(data: Data, mesh: Mesh, steps: int, chunk: int) -> Spans:
    """As `streaming.spans`, each chunk read when it is needed."""
    for rows, (first, last) in streaming.visits(len(data.train_labels), BATCH, steps, chunk):
        yield streaming.placed(data, mesh, (rows, (first, last))), first, last


def train(
    made: tuple[parallel.Context, parallel.Compiled], spans: Spans, steps: int
) -> tuple[float, Any]:
    """(seconds, the network) of a training on `spans`."""
    ctx, compiled = made
    began = time.monotonic()
    key = devices.replicate(jax.random.key(0), ctx.mesh)
    progress = devices.replicate(compiled.begin(jax.random.key(0)), ctx.mesh)
    for data, first, last in spans:
        span = parallel.span(ctx, first, last, steps, first)
        progress = jax.block_until_ready(compiled.advance(data, key, progress, span))
    return time.monotonic() - began, progress


def run(options: argparse.Namespace) -> list[Record]:
    """All turns by each way, so that other programs disturb all alike."""
    devices.use_all_cores()
    count, side, chunk = options.images, options.side, options.chunk
    labels = np.random.default_rng(1).integers(0, CLASSES, count).astype(np.int32)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        path = Path(folder) / "images.npy"
        write_images(path, count, side)
        images = unread(path, count, side)
        data = Data(images, labels, images[:BATCH], labels[:BATCH])
        mesh = parallel.mesh_of(BATCH, count)
        made = parallel.make(trainee(side), mesh)
        per_epoch = count // chunk * (chunk // BATCH)
        steps = per_epoch * options.epochs
        whole = parallel.place(made[0], data, None)
        settings = made[0].child.settings
        ways: dict[str, Callable[[], Spans]] = {
            "resident": lambda: iter([(whole, 0, steps)]),
            "ahead": lambda: streaming.spans(settings, mesh, data, steps, chunk),
            "in_turn": lambda: in_turn(data, mesh, steps, chunk),
        }
        for way in ways.values():  # compiles
            train(made, itertools.islice(way(), 1), steps)
        speed: dict[str, list[float]] = {way: [] for way in ways}
        turns = itertools.product(range(options.turns), ways)
        for _, way in followed(BENCHMARK, turns, lambda t: f"turn {t[0]}, {t[1]}"):
            forget(path)
            speed[way].append(steps * BATCH / train(made, ways[way](), steps)[0])
    found = []
    for way, values in speed.items():
        found.append(records.over_seeds(BENCHMARK, TASK, way, "images_per_second", values))
        share = list(np.divide(values, speed["resident"]))
        found.append(records.over_seeds(BENCHMARK, TASK, way, "share_of_resident", share))
    return found


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--side", type=int, default=64, help="pixels")
    parser.add_argument("--chunk", type=int, default=5000, help="images")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--folder", help="where the file is written; the system's own by default")
    options = parser.parse_args(arguments)
    records.check_least(parser, options, 1, "epochs", "turns")
    records.check_least(parser, options, BATCH, "chunk")
    records.check_least(parser, options, options.chunk, "images")
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
