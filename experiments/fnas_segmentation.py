"""MnasNet blocks searched by FNAS for the class of every pixel: digits on a canvas, by their masks.

    python -m fnas_jax.main --config=experiments/fnas_segmentation.py --workdir=runs/masks

3,000 canvases of 40x40 pixels with one to four digits of mnist5k: 2,000 for training, 500 for
validation, 500 for the winner's test, each of other digits. Eleven classes, ten digits and the
background; the search is for mean IoU.

One run (seed 0; 23 minutes of CPU time with compilation, on 2 busy cores), on the test images:

    background everywhere        8.0% mean IoU, 88.5% of pixels right
    reference of 12.8 MFLOPs    73.5%           97.7%
    winner of 11.2 MFLOPs       84.4%           98.7%

On validation images the winner had 74.3% when it was chosen, after a child's short training.
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "images/canvas_masks"
    config.task.objective = "segmentation"
    # 40, 20 and 10 pixels, each of which has scores of its own.
    config.space.blocks = 3
    config.space.strides = (2, 1, 2)
    config.space.width = 0.5
    config.space.stem = 16
    config.space.stem_stride = 1
    config.space.head = 64
    config.children.steps = 40  # from inherited blocks
    config.children.batch_size = 32
    config.method.name = "fnas"
    config.search.budget = 16
    config.winner.steps = 600
    return config
