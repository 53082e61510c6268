"""PyTorch with one thread; `children_throughput` starts such a process for each core."""

from __future__ import annotations

import torch

from experiments.benchmarks.throughput.plain_torch import answer

__all__ = ["answer", "begin"]


def begin() -> None:
    """Before anything is computed."""
    torch.set_num_threads(1)
