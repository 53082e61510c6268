"""The section `akp`: the architecture knowledge pool."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key


@dataclass(frozen=True)
class Akp:
    """The architecture knowledge pool."""

    enabled: bool = key(True, "children inherit blocks from the knowledge pool (images only)")
    capacity: int = key(32, "blocks kept at each place of the network", 2, 4096)
    mib: int = key(512, "memory for them; fewer are kept where they are large", 1, 2**20)
    rounds: int = key(1, "fair rounds of training before the search", 0, 1000)
    weights: tuple[int, ...] = key(
        (4, 1, 1, 1, 1, 1, 1),
        "mnas: weights of op, expansion, kernel, se, skip, filters, layers in the similarity",
        0,
        1000,
    )
