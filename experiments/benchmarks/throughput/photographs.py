"""One contestant of `children_memory` in a process of its own; prints a line of JSON.

    python -m experiments.benchmarks.throughput.photographs METHOD SIDE BATCH STEPS CHILD

METHOD is `ours` (both children at once, CHILD is 0), `ours_bf16` (the same by
`children.backend=kernels_bf16`) or `torch` (one of them, 0 or 1; a process for each). Images are
noise of so many pixels a side: memory does not depend on what is on them.
"""

from __future__ import annotations

import functools
import json
import os
import resource
import sys
from collections.abc import Callable

import numpy as np

from experiments.benchmarks.throughput import common

METHODS = ("ours", "ours_bf16", "torch")
CHILDREN = 2  # at once
_IMAGES = 256
_SAMPLE = 64
_MEAN, _DEVIATION = 127.0, 60.0


def peak() -> float:
    """MiB that this process had at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def children() -> np.ndarray:
    """[2, T]: of 64 random networks of the full MNAS space the middle one and the costliest."""
    import jax
    import jax.numpy as jnp

    from fnas_jax.networks import cost
    from fnas_jax.spaces import mnas

    space = mnas.make()
    archs = space.canonical(space.sample(jax.random.key(0), _SAMPLE))
    macs = np.asarray(cost.cost(space, (224, 224, 3), common.CLASSES)(jnp.asarray(archs))[1])
    order = np.argsort(macs)
    return np.asarray(archs)[order[[_SAMPLE // 2, -1]]]


def images(side: int) -> tuple[np.ndarray, np.ndarray]:
    """(uint8 [n, side, side, 3], classes [n])."""
    pixels = np.random.default_rng(0).integers(0, 255, (_IMAGES, side, side, 3), np.uint8)
    return pixels, (np.arange(_IMAGES) % common.CLASSES).astype(np.int32)


def ours(backend: str, side: int, batch: int, steps: int, child: int) -> dict[str, float]:
    """Both children at once, a device each: trained, then judged."""
    flag = f"--xla_force_host_platform_device_count={CHILDREN}"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}"
    import jax
    import jax.numpy as jnp

    from fnas_jax.core import devices, memory
    from fnas_jax.networks import elastic
    from fnas_jax.objectives import classification
    from fnas_jax.spaces import mnas
    from fnas_jax.training import child as child_lib
    from fnas_jax.training import minibatches, population
    from fnas_jax.training.config import Children
    from fnas_jax.training.minibatches import Data, Pipeline

    memory.return_after_compiling()
    mesh = devices.children_mesh(jax.local_devices()[:CHILDREN])
    pipeline = Pipeline(
        lambda x: (x.astype(np.float32) - _MEAN) / _DEVIATION, minibatches.unchanged
    )
    network = elastic.make(mnas.make(), common.CHANNELS, common.CLASSES, backend)
    objective = classification.of(common.CLASSES)
    one = child_lib.Context(network, Children(batch_size=batch), pipeline, objective)
    run = population.jitted(population.Context(one, mesh))
    data = devices.replicate(Data(*images(side), *images(side)), mesh)
    keys = jax.random.key_data(jax.random.split(jax.random.key(1), CHILDREN))
    given = devices.shard((jnp.asarray(children()), jnp.ones(CHILDREN, bool), keys), mesh)
    idle = peak()
    compiled = run.lower(data, *given, devices.replicate(np.int32(0), mesh)).compile()
    compiling = peak()
    jax.block_until_ready(compiled(data, *given, devices.replicate(np.int32(steps), mesh)))
    reserved = compiled.memory_analysis().temp_size_in_bytes / 2**20
    return {"idle": idle, "compiling": compiling, "peak": peak(), "reserved": reserved}


def torch(side: int, batch: int, steps: int, child: int) -> dict[str, float]:
    """One child, on one core: trained, then judged, as many images at a time as in training."""
    import torch as pytorch
    import torch.nn.functional as F  # noqa: N812

    from experiments.benchmarks.throughput import plain_torch
    from fnas_jax.spaces import mnas

    pytorch.set_num_threads(1)
    module = plain_torch.network(children()[child], mnas.make())
    pixels, labels = (pytorch.from_numpy(part) for part in images(side))
    idle = peak()
    optimizer = pytorch.optim.SGD(module.parameters(), lr=0.05, momentum=0.9, nesterov=True)

    def batch_of(i: int) -> tuple[pytorch.Tensor, pytorch.Tensor]:
        rows = slice(i * batch % _IMAGES, i * batch % _IMAGES + batch)
        x = (pixels[rows].permute(0, 3, 1, 2).float() - _MEAN) / _DEVIATION
        return x.contiguous(memory_format=pytorch.channels_last), labels[rows].long()

    for i in range(steps):
        optimizer.zero_grad()
        x, y = batch_of(i)
        F.cross_entropy(module(x), y).backward()
        optimizer.step()
    module.eval()
    with pytorch.inference_mode():
        for i in range(_IMAGES // batch):
            module(batch_of(i)[0])
    return {"idle": idle, "peak": peak()}


def main() -> int:
    """Prints the figures of the contestant, MiB."""
    method, *numbers = sys.argv[1:]
    contestants: dict[str, Callable[[int, int, int, int], dict[str, float]]] = {
        "ours": functools.partial(ours, "auto"),
        "ours_bf16": functools.partial(ours, "kernels_bf16"),
        "torch": torch,
    }
    found = contestants[method](*map(int, numbers))
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
