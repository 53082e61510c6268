"""An own space of networks that are trained: stages of layers, each chosen among a few.

    python own_space.py

As the space of a configuration: --config.space.name=own_space:space
"""

import fnas_jax
from fnas_jax import layered

space = layered.make(
    [
        layered.stage(16, {"k3": layered.conv(3), "k5": layered.conv(5, act="hard_swish")}),
        layered.stage(
            24,
            {"wide": layered.mbconv(3, expansion=6), "gated": layered.mbconv(5, 3, se=True)},
            depth=2,
            stride=2,
            optional=True,
        ),
    ],
    stem=8,
    head=32,
)

if __name__ == "__main__":
    result = fnas_jax.search(
        task="images/digits",
        space="own_space:space",
        method="random",
        budget=4,
        workdir="runs/own_space",
        akp={"enabled": False},  # no pool of trained blocks, for so few networks
        children={"steps": 40},
        winner={"steps": 100},
    )
    print(result, result.model.class_names)
