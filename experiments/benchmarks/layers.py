"""Where the time of a child goes: single layers, forward and backward, on one core.

    python -m experiments.benchmarks.layers --json OUT

Milliseconds of the value and all derivatives of a layer of 32 channels on 64 images of 16x16, each
by the kernels for CPUs, by XLA's code for that layer alone, and by PyTorch in channels_last; the
kernels and PyTorch also with products of bfloat16 numbers (`torch.autocast`). They take turns; the
least of `--repeats` counts.

Beside them stands the roofline of the core (Williams et al., Roofline, CACM 2009), for each type of
number: multiply-adds a second with what is in registers, bytes a second that are copied in memory,
and the milliseconds in which a layer could do its multiply-adds, or move each tensor that has to be
moved once, whichever is more. What share of it the kernels reach is told; caches, which hold a part
of the tensors, may take a layer beyond it.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

if "jax" not in sys.modules:
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false"  # one core each

import jax
import numpy as np

from experiments.benchmarks import records
from experiments.benchmarks.progress import followed, say
from experiments.benchmarks.records import Record
from fnas_jax.layers import compile_kernels, kernels, ops, parameters, reference
from fnas_jax.layers.choose import choose
from fnas_jax.layers.spec import CONV, MBCONV, NO_SKIP, RELU6, SEPCONV, LayerSpec, Slot

BENCHMARK = "layers"
BATCH, SIDE, CHANNELS = 64, 16, 32
NUMBERS = {"kernels": 4, "kernels_bf16": 2}  # bytes of what they keep
OPS = {"conv": CONV, "sepconv": SEPCONV, "mbconv": MBCONV}
LAYERS = (
    ("conv", 1, 3),
    ("conv", 1, 5),
    ("sepconv", 1, 3),
    ("sepconv", 1, 5),
    ("mbconv", 3, 3),
    ("mbconv", 3, 5),
    ("mbconv", 6, 3),
    ("mbconv", 6, 5),
)


def spec_of(op: str, expansion: int, kernel: int) -> LayerSpec:
    """The layer, without squeeze-excitation and skip."""
    middle = 0 if op == "conv" else expansion * CHANNELS
    return LayerSpec(OPS[op], kernel, CHANNELS, middle, CHANNELS, 0, NO_SKIP, RELU6)


def named(layer: tuple[str, int, int]) -> str:
    """What the records call it."""
    op, expansion, kernel = layer
    return f"{op}_e{expansion}_k{kernel}"


def macs(op: str, expansion: int, kernel: int) -> tuple[float, float]:
    """Multiply-adds of one forward pass: those of products, and of a depthwise convolution."""
    middle, pixels = expansion * CHANNELS, BATCH * SIDE**2
    if op == "conv":
        return pixels * kernel**2 * CHANNELS**2, 0.0
    products = middle * CHANNELS * (2 if op == "mbconv" else 1)
    return pixels * products, pixels * kernel**2 * middle


def with_jax(apply: Callable[..., Any], spec: LayerSpec) -> Callable[[], Any]:
    """By the backend whose function is `apply`, compiled."""
    key, slot = jax.random.key(0), Slot(1, (spec,))
    params = ops.realise(key, parameters.init(slot, spec))
    x = jax.random.normal(key, (BATCH, SIDE, SIDE, CHANNELS))

    def both(params: Any, x: Any) -> Any:
        y, pull = jax.vjp(lambda p, x: apply(slot, p, x, spec), params, x)
        return y, pull(x)

    compiled = jax.jit(both).lower(params, x).compile()
    return lambda: jax.block_until_ready(compiled(params, x))


def with_torch(short: bool, spec: LayerSpec) -> Callable[[], Any]:
    """The same layer as a module; `short`: convolutions in bfloat16."""
    import torch

    from experiments.benchmarks.throughput.plain_torch import Mobile

    torch.set_num_threads(1)
    module = Mobile(spec, 1).to(memory_format=torch.channels_last)
    x = torch.randn(BATCH, CHANNELS, SIDE, SIDE).to(memory_format=torch.channels_last)
    x.requires_grad_()

    def run() -> None:
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=short):
            y = module(x)
        y.backward(x.detach().to(y.dtype))

    return run


def milliseconds(contestants: dict[str, Callable[[], Any]], repeats: int) -> dict[str, float]:
    """The least time of each; they take turns."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            found[name].append(1000 * (time.perf_counter() - start))
    return {name: min(times[1:]) for name, times in found.items()}


def moved(op: str, expansion: int, number_bytes: int) -> float:
    """Bytes that both passes of the batch have to move, if each tensor is read or written once.

    `number_bytes`: of a result of a convolution, which is kept for the backward pass. Input, output
    and their derivatives are float32, and the input is read in both passes.
    """
    middle = expansion * CHANNELS
    kept = {"conv": 0, "sepconv": middle, "mbconv": 2 * middle}[op] + CHANNELS
    return BATCH * SIDE**2 * (5 * 4 * CHANNELS + 2 * number_bytes * kept)


def bandwidth() -> float:
    """Bytes a second that one core reads and writes, copying more than caches hold."""
    source, target = np.ones(2**26, np.float32), np.ones(2**26, np.float32)
    copy = functools.partial(np.copyto, target, source)
    return 2 * source.nbytes / (milliseconds({"copy": copy}, 3)["copy"] / 1000)


class Core(NamedTuple):
    """What one core can do, by measurement."""

    memory: float  # bytes a second
    peaks: dict[str, float]  # multiply-adds a second, by the factors of each of our contestants

    def roof_ms(self, own: str, layer: tuple[str, int, int]) -> float:
        """Milliseconds of a layer's multiply-adds or, where they are more, of what it moves.

        Depthwise convolutions are in float32 by both contestants.
        """
        products, depthwise = macs(*layer)
        computing = products / self.peaks[own] + depthwise / self.peaks["kernels"]
        return 1000 * max(3 * computing, moved(*layer[:2], NUMBERS[own]) / self.memory)


def core_of(ours: list[str]) -> Core:
    """What the core at hand can do. Raises UserError where it cannot run one of `ours`."""
    for name in ours:
        choose(name)  # compiles them, or says why not
    if not ours:
        return Core(0.0, {})
    return Core(bandwidth(), {name: compile_kernels.peak(n == 2) for name, n in NUMBERS.items()})


CONTESTANTS: dict[str, Callable[[LayerSpec], Callable[[], Any]]] = {
    "kernels": functools.partial(with_jax, kernels.apply),
    "kernels_bf16": functools.partial(with_jax, functools.partial(kernels.apply, short=True)),
    "xla": functools.partial(with_jax, reference.apply),
    "torch": functools.partial(with_torch, False),
    "torch_bf16": functools.partial(with_torch, True),
}
PACKAGES = {"torch": "torch", "torch_bf16": "torch"}


def run(options: argparse.Namespace) -> list[Record]:
    """The comparison, in a table too. Raises UserError."""
    records.check_packages(options.methods, PACKAGES)
    ours = [name for name in NUMBERS if name in options.methods]
    core, made = core_of(ours), []
    for name in ours:
        peak = core.peaks[name]
        say(f"{name}: {peak / 1e9:.0f} GMAC/s in registers, {core.memory / 1e9:.0f} GB/s in memory")
        made.append(records.record(BENCHMARK, "core", name, "peak_gmacs", peak / 1e9))
        made.append(records.record(BENCHMARK, "core", name, "memory_gb_s", core.memory / 1e9))
    head = "".join(f" {name:>12}" for name in options.methods)
    shares = "".join(f" {name + ' of roof':>20}" for name in ours)
    say(f"{'layer':14}{head}{shares}")
    for layer in followed(BENCHMARK, LAYERS, named):
        spec = spec_of(*layer)
        contestants = {name: CONTESTANTS[name](spec) for name in options.methods}
        found = milliseconds(contestants, options.repeats)
        name = named(layer)
        roofs = {own: core.roof_ms(own, layer) for own in ours}
        times = "".join(f" {ms:12.1f}" for ms in found.values())
        say(
            f"{name:14}{times}" + "".join(f" {ms / found[own]:>20.0%}" for own, ms in roofs.items())
        )
        for own, ms in roofs.items():
            made.append(records.record(BENCHMARK, name, own, "roof_ms", ms))
        for method, ms in found.items():
            names = (BENCHMARK, name, method, "forward_backward_ms")
            made.append(records.record(*names, ms, options.repeats))
    return made


def main(arguments: list[str] | None = None) -> int:
    """Exit code 0, or 2 for bad input."""
    parser = records.parser(__doc__, __spec__.name)
    parser.add_argument("--repeats", type=int, default=15, help="timed runs of each")
    usual = [name for name in CONTESTANTS if not name.endswith("_bf16")]
    records.add_names(parser, "--methods", usual, f"of {', '.join(CONTESTANTS)}")
    options = parser.parse_args(arguments)
    records.check_names(parser, "method", options.methods, CONTESTANTS)
    records.check_least(parser, options, 1, "repeats")
    return records.main(options, lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
