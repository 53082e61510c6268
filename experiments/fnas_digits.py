"""MnasNet blocks searched by FNAS on the handwritten digits that come with scikit-learn.

    python -m fnas_jax.main --config=experiments/fnas_digits.py --workdir=runs/digits

1,797 images of 8x8 pixels, 60% for training, 20% for validation, 20% for the winner's test.

Two and a quarter minutes on two CPU cores (AVX2): a fair round of 6 children for the knowledge pool
and 40 that inherit from it, of 30 steps each, the 8 best of them once more, then 600 steps each for
the winner and a MobileNetV2 of its cost. Seed 0: 99.7% on validation images as a finalist, and
98.6% on test images after it (1.80 MFLOPs), as the reference has (1.83 MFLOPs). With 359 test
images one of them is 0.28%, so that the two cannot be told apart.
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "images/digits"
    # Images of 8x8 pixels: three blocks, and only one of them halves the image.
    config.space.blocks = 3
    config.space.strides = (1, 2, 1)
    config.space.stem = 16
    config.space.stem_stride = 1
    config.space.head = 64
    config.children.steps = 30  # from inherited blocks
    config.method.name = "fnas"
    config.search.budget = 40
    config.winner.steps = 600
    return config
