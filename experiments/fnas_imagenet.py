"""FNAS in MnasNet's space on ImageNet: what it trains instead of MnasNet's 8,000 children.

    python -m fnas_jax.main --config=experiments/fnas_imagenet.py --workdir=runs/imagenet \
        --config.task.data_dir=DIR

DIR holds TensorFlow Datasets' prepared imagenet2012 (array_record). Not run yet; what it takes, on
machines that are not here either, is computed in docs/scale.md.
"""

from fnas_jax.core.config import default

TRAINING, HELD_OUT, BATCH = 1_281_167, 50_000, 64


def get_config():
    config = default()
    config.task.name = "images/tfds:imagenet2012"
    config.task.image_size = 224
    config.task.val_fraction = HELD_OUT / TRAINING
    config.method.name = "fnas"
    config.search.budget = 1600
    config.search.batch = 16
    config.children.device_images = 4096  # more would leave a v5e no memory for a child
    config.children.steps = 5 * (TRAINING - HELD_OUT) // BATCH // 4
    config.reward.cost = "mflops"
    config.reward.target = 300.0
    config.winner.steps = 150 * TRAINING // BATCH
    config.winner.reference = False
    return config
