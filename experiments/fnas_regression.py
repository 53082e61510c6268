"""MnasNet blocks searched by FNAS for values of an image: where a digit is, and how it is turned.

    python -m fnas_jax.main --config=experiments/fnas_regression.py --workdir=runs/position

3,000 canvases of 40x40 pixels with one digit of mnist5k, turned by up to 45 degrees: 2,000 for
training, 500 for validation, 500 for the winner's test, each of other digits. Three values: x and
y in pixels, and the angle. The search is for R2, their mean, of which the mean of the training
images has 0; by its errors, 3.3 pixels and 23 degrees.

A quarter of an hour on two CPU cores that a dozen other programs kept busy: a fair round of 6
children for the knowledge pool and 12 that inherit from it, of 30 steps each, the 8 best of them
once more, then 600 steps each for the winner and a MobileNetV2. Seed 0: R2 of
0.842 on validation images, and 0.853 on test images after the training (95% between 0.831 and
0.872; 0.75 MFLOPs); the reference, then one of no smaller cost, has 0.835 (1.14 MFLOPs). The
winner's mean errors are 0.51 pixels in x (R2 0.97), 0.45 in y (0.98) and 12.6 degrees (0.61).
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "images/canvas_position"
    config.task.objective = "regression"
    # The head averages over places, so where things are must be known before it: 20 pixels after
    # the stem, then 10, 5 and 3, which see the canvas's edges by the zeros beyond them.
    config.space.blocks = 3
    config.space.strides = (2, 2, 2)
    config.space.width = 0.5
    config.space.head = 128
    config.children.steps = 30  # from inherited blocks
    config.children.batch_size = 32
    config.method.name = "fnas"
    config.search.budget = 12
    config.winner.steps = 600
    return config
