"""The processes of a contestant, as `children_throughput` sees them."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from concurrent import futures
from typing import Any

import numpy as np

from experiments.benchmarks.throughput import common
from fnas_jax.core import devices


class Contestant:
    """A process that trains what it is sent; see `throughput.worker`."""

    def __init__(self, method: str, home: str, space: str):
        os.makedirs(home, exist_ok=True)
        own = {"HOME": home, "PYTHONWARNINGS": "ignore", "TF_CPP_MIN_LOG_LEVEL": "3"}
        worker = "experiments.benchmarks.throughput.worker"
        command = [sys.executable, "-m", worker, method, space]
        self.process = subprocess.Popen(
            [*command, f"{home}/cache"] if method.startswith("ours") else command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | own,
        )

    def answer(self, archs: np.ndarray, steps: int, seed: int) -> dict[str, Any]:
        """The answer to one job. Raises RuntimeError where the process has ended."""
        assert self.process.stdin is not None and self.process.stdout is not None
        job = {"archs": archs.tolist(), "steps": steps, "seed": seed}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a contestant ended without an answer")
        return json.loads(line)

    def close(self) -> None:
        """Ends the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def dealt(costs: np.ndarray, processes: int) -> list[list[int]]:
    """The places of `costs` [N] that each process gets, in its order.

    The costliest first, each to the process with the least so far.
    """
    shares: list[list[int]] = [[] for _ in range(processes)]
    loads = np.zeros(processes)
    for child in np.argsort(-costs, kind="stable"):
        least = int(loads.argmin())
        shares[least].append(int(child))
        loads[least] += costs[child]
    return shares


class PerCore:
    """A contestant of several processes, among which children are dealt out."""

    def __init__(self, method: str, home: str, space: str, processes: int):
        self.space = space
        self.running = [Contestant(method, home, space) for _ in range(processes)]
        for process in self.running:  # ready, so that no import is timed beside a training
            process.answer(np.zeros((0, 1), np.int32), 1, 0)

    def answer(self, archs: np.ndarray, steps: int, seed: int) -> dict[str, Any]:
        """As that of one `Contestant`; every child has the seed that it would have there."""
        shares = dealt(common.mflops(self.space, archs), len(self.running))

        def train(process: Contestant, share: list[int]) -> list[dict[str, Any]]:
            return [process.answer(archs[i : i + 1], steps, seed + i) for i in share]

        with futures.ThreadPoolExecutor(len(shares)) as threads:
            own = list(threads.map(train, self.running, shares))
        of_child: dict[int, dict[str, Any]] = {}
        for share, some in zip(shares, own, strict=True):
            of_child |= dict(zip(share, some, strict=True))
        each = [of_child[i] for i in range(len(archs))]
        return {
            "seconds": max(sum(a["seconds"] for a in some) for some in own),
            "compile_s": sum(a["compile_s"] for a in each),
            "accuracy": [a["accuracy"][0] for a in each],
            "step_ms": [a["step_ms"][0] for a in each],
            "peak_mib": sum(max((a["peak_mib"] for a in some), default=0.0) for some in own),
        }

    def close(self) -> None:
        """Ends the processes."""
        for process in self.running:
            process.close()


def start(name: str, home: str, space: str) -> Contestant | PerCore:
    """The processes of a contestant, for a space of `common.SPACES`."""
    if name.startswith("torch_per_core"):
        return PerCore(name, home, space, devices.cores())
    own = pathlib.Path(home, "bf16" if name.endswith("_bf16") else "float32")  # caches of its own
    return Contestant(name.replace("warm", "ours"), str(own), space)
