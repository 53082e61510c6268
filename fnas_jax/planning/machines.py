"""Machines that a search is planned for without having them: published figures, and their sources.

Prices change: they are defaults of `--plan_price`, and of the date that stands beside them.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from fnas_jax.core.nearest import nearest
from fnas_jax.core.types import UserError

SHARES = (0.1, 0.2, 0.4)  # of the peak: what networks of this kind reach is an assumption
_FLOPS_A_MULTIPLY_ADD = 2
_PASSES = 3  # a training step is a forward pass and a backward pass of twice its work


class Kind(NamedTuple):
    """A device."""

    gib: float  # of memory that JAX takes of it
    tflops: float  # 10^12 operations a second, dense, bfloat16
    price: float  # dollars for an hour of one; 0: unknown
    source: str


KINDS = {
    "h100": Kind(
        gib=60.0,  # JAX takes three quarters of a GPU's 80 GB unless it is told otherwise
        tflops=989.0,
        price=2.99,
        source="NVIDIA H100 SXM data sheet: 80 GB, 1,979 TFLOPS with sparsity, 989 without; price:"
        " 2.49 to 3.99 dollars an hour on demand, pricegpu.pages.dev, early 2026",
    ),
    "v5e": Kind(
        gib=15.0,
        tflops=197.0,
        price=1.20,
        source="docs.cloud.google.com/tpu/docs/v5e: 16 GB, 197 TFLOPS; price: Cloud TPU pricing,"
        " on demand in US regions, as published in August 2026",
    ),
}


class Cluster(NamedTuple):
    """So many devices of a kind."""

    name: str
    devices: int
    kind: Kind

    def speed(self, share: float) -> float:
        """Multiply-adds of forward passes a second while a device trains at `share` of its peak."""
        return share * self.kind.tflops * 1e12 / (_FLOPS_A_MULTIPLY_ADD * _PASSES)


def parse(text: str, price: float = 0.0) -> Cluster:
    """COUNTxKIND, a key of `KINDS`, or COUNTxGIB:TFLOPS; `price` replaces the kind's.

    Raises UserError for another text.
    """
    count, x, name = text.lower().partition("x")
    own = re.fullmatch(r"(\d+(?:\.\d+)?):(\d+(?:\.\d+)?)", name)
    if not (x and count.isdecimal() and int(count)) or not (own or name in KINDS):
        near = nearest(name, KINDS)
        raise UserError(
            f"--plan_on is {text!r}; it is COUNTxKIND, of {', '.join(KINDS)}{near}, or"
            " COUNTxGIB:TFLOPS, as 8x24:165"
        )
    kind = Kind(float(own[1]), float(own[2]), 0.0, "as given") if own else KINDS[name]
    if kind.gib <= 0 or kind.tflops <= 0:
        raise UserError(f"--plan_on is {text!r}; memory and peak rate have to be above 0")
    return Cluster(text.lower(), int(count), kind._replace(price=price or kind.price))


def operations(work: float) -> float:
    """Floating-point operations of a training whose forward passes have `work` multiply-adds."""
    return work * _FLOPS_A_MULTIPLY_ADD * _PASSES
