"""What a training step of a child takes by each way of training children, and its compilation.

    python -m experiments.benchmarks.child_steps --json OUT [--space mnas_large]

Random architectures on noise, batches of `--batch`, on the first device. `regional` has programs of
layers, `exact` one for each child, compiled side by side; `masked` and `branched` one for all of
them, which trains all at once, or one after another (`_alone`); `torch` is PyTorch as its users
write it, in channels_last, on a GPU in bfloat16 (`torch.autocast`), and `torch_graph` the same with
the whole step captured as a CUDA graph, so that Python launches nothing. `step_ms` is a step of a
child, from trainings of two lengths, so that judging is not in it; `prepare_s` is until all
children can train: compilation, or the first steps and the capture. Nothing is read from a cache.
"""

from __future__ import annotations

import argparse
import functools
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from experiments.benchmarks.throughput import common
from fnas_jax.core import devices
from fnas_jax.core.types import UserError
from fnas_jax.networks import elastic
from fnas_jax.objectives import classification
from fnas_jax.spaces import mnas
from fnas_jax.spaces.base import Space
from fnas_jax.tasks import ways
from fnas_jax.training import child, minibatches, population
from fnas_jax.training.config import Children
from fnas_jax.training.minibatches import Data, Pipeline

BENCHMARK = "child_steps"
LARGE = "mnas_large"  # the space of ImageNet's images
SPACES: dict[str, tuple[Callable[[], Space], int]] = {  # and pixels a side
    **{name: (make, common.SIDE) for name, make in common.SPACES.items()},
    LARGE: (mnas.make, 224),
}
WAYS = {  # (backend, whether one child after another)
    "regional": ("regional", True),
    "exact": ("exact", True),
    "masked": ("masked", False),
    "masked_alone": ("masked", True),
    "branched": ("branched", False),
    "branched_alone": ("branched", True),
}
TORCH = ("torch", "torch_graph")
PACKAGES = dict.fromkeys(TORCH, "torch")
JUDGED = 16  # images that a child is judged on
WARM = 5  # steps of PyTorch before anything is timed or captured


class Task(NamedTuple):
    """What all train."""

    space: Space
    side: int
    archs: np.ndarray  # [N, T]
    batch: int
    steps: int  # that are timed


class Timed(NamedTuple):
    """What a way takes."""

    prepare_s: float  # of all children together
    step_ms: float  # of a child


def task_of(options: argparse.Namespace) -> Task:
    """The task of a command line."""
    make, side = SPACES[options.space]
    space, n = make(), options.children
    archs = space.canonical(space.sample(jax.random.key(options.seed), n))
    return Task(space, options.side or side, np.asarray(archs), options.batch, options.steps)


def noise(task: Task, count: int) -> tuple[np.ndarray, np.ndarray]:
    """(images [count, side, side, 3] float32, labels [count] int32)."""
    shape = (count, task.side, task.side, common.CHANNELS)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    return images, (np.arange(count) % common.CLASSES).astype(np.int32)


def with_jax(backend: str, alone: bool, task: Task) -> Timed:
    """By this package."""
    sizes, n = (task.space, common.CHANNELS, common.CLASSES), len(task.archs)
    network = elastic.make(*sizes, backend)
    settings = Children(batch_size=task.batch, eval_batch=JUDGED)
    pipeline = Pipeline(lambda x: x, minibatches.unchanged)
    one = child.Context(network, settings, pipeline, classification.of(common.CLASSES))
    mesh = devices.children_mesh(jax.local_devices()[:1])
    ctx = population.Context(one, mesh, 1 if alone else n)
    run = population.make(ways.trained_by(backend, ctx, *sizes))
    data = Data(*noise(task, 4 * task.batch), *noise(task, JUDGED))
    keys = jax.random.key_data(jax.random.split(jax.random.key(1), n))
    given = devices.shard((jnp.asarray(task.archs), jnp.ones(n, bool), keys), mesh)
    shared = devices.replicate(data, mesh)

    def seconds(steps: int) -> float:
        start = time.perf_counter()
        jax.block_until_ready(run(shared, *given, devices.replicate(np.int32(steps), mesh)))
        return time.perf_counter() - start

    first, again = seconds(1), seconds(1)
    taken = seconds(1 + task.steps) - seconds(1)
    return Timed(first - again, 1000 * max(taken, 0.0) / task.steps / n)


def with_torch(captured: bool, task: Task) -> Timed:
    """By PyTorch; `captured`: the whole step as a CUDA graph. Raises UserError without a GPU."""
    import torch
    import torch.nn.functional as F  # noqa: N812

    from experiments.benchmarks.throughput import plain_torch

    device = plain_torch.DEVICE
    if captured and device.type != "cuda":
        raise UserError("the contestant torch_graph needs a GPU that PyTorch sees")
    torch.backends.cudnn.benchmark = False  # its trials take longer than a short training
    pixels, classes = map(torch.from_numpy, noise(task, task.batch))
    x = pixels.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last).to(device)
    y = classes.long().to(device)
    # Weights are new in each step: of a captured one, nothing may be kept from one to the next.
    short = functools.partial(
        torch.autocast, device.type, torch.bfloat16, device.type == "cuda", cache_enabled=False
    )

    def timed(step: Callable[[], Any], steps: int) -> float:
        start = time.perf_counter()
        for _ in range(steps):
            step()
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start

    found = []
    for arch in task.archs:
        module = plain_torch.network(arch, task.space)
        optimizer = torch.optim.SGD(module.parameters(), common.LR, common.MOMENTUM, nesterov=True)

        def step(module: Any = module, optimizer: Any = optimizer) -> None:
            optimizer.zero_grad(set_to_none=True)
            with short():
                loss = F.cross_entropy(module(x), y)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(module.parameters(), common.CLIP)
            optimizer.step()

        prepare = timed(step, WARM)
        if captured:
            start = time.perf_counter()
            aside, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
            aside.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(aside):
                step()
            torch.cuda.current_stream().wait_stream(aside)
            with torch.cuda.graph(graph):
                step()
            prepare += time.perf_counter() - start
        found.append((prepare, timed(graph.replay if captured else step, task.steps)))
    prepare_s, seconds = np.sum(found, axis=0)
    return Timed(float(prepare_s), 1000 * float(seconds) / task.steps / len(task.archs))


def run(options: argparse.Namespace) -> list[Record]:
    """The ways one after another. Raises UserError."""
    records.check_packages(options.methods, PACKAGES)
    task, made = task_of(options), []
    for name in followed(BENCHMARK, options.methods, lambda name: name):
        if name in TORCH:
            timed = with_torch(name == "torch_graph", task)
        else:
            timed = with_jax(*WAYS[name], task)
        say(f"{name}: prepared in {timed.prepare_s:.1f} s, {timed.step_ms:.2f} ms a step")
        for metric, value in timed._asdict().items():
            names = (BENCHMARK, options.space, name, metric)
            made.append(records.record(*names, value, options.children))
    return made


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--space", default=common.MNAS, help=f"one of {', '.join(SPACES)}")
    parser.add_argument("--side", type=int, default=0, help="pixels; 0: those of the space")
    parser.add_argument("--children", type=int, default=8, help="architectures")
    parser.add_argument("--batch", type=int, default=common.BATCH, help="images of a step")
    parser.add_argument("--steps", type=int, default=40, help="that are timed")
    parser.add_argument("--seed", type=int, default=0, help="of the architectures")
    usual = ("regional", "exact", "masked", "torch")
    records.add_names(parser, "--methods", usual, f"of {', '.join((*WAYS, *TORCH))}")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, (*WAYS, *TORCH))
    records.check_names(parser, "space", [options.space], SPACES)
    records.check_least(parser, options, 1, "children", "batch", "steps")
    records.check_least(parser, options, 0, "side")
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
