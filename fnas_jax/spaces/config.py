"""The section `space`: which architectures are searched."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key


@dataclass(frozen=True)
class Space:
    """A space and its sizes; tabular tasks bring their own."""

    name: str = key(
        "mnas", "space: mnas, mobilenetv3, macro, cell, mixed_cell, mixed_chain, categorical"
    )
    blocks: int = key(7, "mnas: number of blocks kept", 1, 7)
    stages: int = key(5, "mobilenetv3: number of stages kept", 1, 5)
    width: float = key(1.0, "mnas, mobilenetv3, macro: multiplies all channels", 0.05, 4.0)
    strides: tuple[int, ...] = key(
        (),
        "mnas: stride of each block; mobilenetv3: of each stage; () for those of MobileNetV2 or V3",
        1,
        2,
    )
    stem: int = key(32, "mnas: channels of the first convolution", 1, 512)
    stem_stride: int = key(2, "mnas, mobilenetv3: stride of the first convolution", 1, 2)
    head: int = key(1280, "mnas: channels before the classifier", 1, 4096)
    cell_channels: int = key(16, "spaces of cells: channels of the first stage", 1, 512)
    cells_per_stage: int = key(5, "spaces of cells: cells of each stage", 1, 20)
    cardinalities: tuple[int, ...] = key(
        (), "categorical: number of choices of each decision", 1, 10**6
    )
