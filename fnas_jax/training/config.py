"""How a child is trained and judged (section `children`), and what a final training adds."""

from __future__ import annotations

from dataclasses import dataclass

from fnas_jax.core.config import key


@dataclass(frozen=True)
class Children:
    """Training of a child; all but the number of steps is part of the compiled program."""

    steps: int = key(150, "training steps of a child", 1, 10**7)
    batch_size: int = key(64, "images per training step", 1, 65536)
    lr: float = key(0.1, "peak learning rate of SGD; cosine decay to 0", 1e-6, 100.0)
    momentum: float = key(0.9, "Nesterov momentum", 0.0, 0.999)
    weight_decay: float = key(1e-4, "decay of weights, not of norms and biases", 0.0, 1.0)
    label_smoothing: float = key(0.0, "label smoothing", 0.0, 0.9)
    warmup: float = key(0.1, "share of the steps in which the rate rises", 0.0, 0.9)
    group: int = key(
        0,
        "children of a device trained at once; 0: on CPUs one, elsewhere what is the fastest",
        0,
        65536,
    )
    backend: str = key(
        "auto",
        "code of the layers: kernels, kernels_bf16 (products of bfloat16 numbers, by AVX512-BF16 or"
        " Intel AMX) and reference for CPUs; for accelerators masked and branched, and regional,"
        " which compiles programs of layers, and exact, which compiles one for each child (networks"
        " that many share run as branched)",
        choices=(
            "auto",
            "kernels",
            "kernels_bf16",
            "reference",
            "masked",
            "branched",
            "regional",
            "exact",
        ),
    )
    device_images: int = key(
        0, "images on a device at a time, others follow; 0: all that fit into its memory", 0, 10**9
    )
    eval_batch: int = key(
        256, "images per step of validation and test; fewer where they are large", 1, 65536
    )
    halving: int = key(
        0,
        "successive halving: of the children that come to a rung, one in so many goes on, others"
        " stop; 0: all are trained in full, but by hyperband and bohb",
        0,
        16,
    )
    rungs: int = key(
        2,
        "with halving, how often children are judged on the way: after steps / halving^k",
        1,
        8,
    )
    brackets: int = key(
        1,
        "with halving, Hyperband's brackets: children of the k-th skip k - 1 rungs; at most rungs"
        " + 1, as hyperband and bohb have where it is 1",
        1,
        9,
    )
    max_grad_norm: float = 5.0  # gradients are clipped to this norm
    # Of `eval_batch` images, from which normalisation statistics are estimated
    calibration: int = 4


@dataclass(frozen=True)
class Recipe:
    """What the final training adds to that of children, which have none of it."""

    mixup: float = key(0.0, "final training: alpha of mixup; 0: off", 0.0, 100.0)
    cutmix: float = key(
        0.0,
        "final training: alpha of cutmix, in half of the batches beside mixup; 0: off",
        0.0,
        100.0,
    )
    ema: float = key(
        0.0,
        "final training: decay of the moving average of the weights, which is judged and kept;"
        " 0: the last weights are",
        0.0,
        0.99999,
    )
    smoothing: float = key(
        -1.0, "final training: label smoothing; below 0: children.label_smoothing", -1.0, 0.9
    )
    lr: float = key(0.0, "final training: peak learning rate; 0: children.lr", 0.0, 100.0)
    policy: str = key(
        "none",
        "final training: random policy on images, before what children get",
        choices=("none", "randaugment"),
    )
    policy_layers: int = key(2, "operations of the policy on an image, one after another", 1, 10)
    policy_magnitude: int = key(9, "how much they change the image; 30: most", 1, 30)
