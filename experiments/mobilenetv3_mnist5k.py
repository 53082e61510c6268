"""The MobileNetV3 space of Once-for-all, small enough for 5,000 MNIST images of 28x28 pixels.

    python -m fnas_jax.main --config=experiments/mobilenetv3_mnist5k.py --workdir=runs/mobilenetv3

All five stages at half of MobileNetV3-Large's width, with a stride less. By FNAS, or with
`--config.method.name=` tnas, evolution, pgnas or spos by these.

Seed 0, 24 networks: six to ten minutes of CPU time. Test accuracy of the winner (1,000 images) and
of a MobileNetV3 of its cost: FNAS 97.9% and 98.5% (18 MFLOPs, every block found in the pool),
evolution 97.9% and 98.5% (18), SPOS, which judges uniform networks only of so few, 97.8% and 97.9%
(15), TNAS 97.7% and 98.1% (12), PGNAS 97.6% and 98.2% (11). With so few, short trainings none finds
more than the standard network has.
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "images/mnist5k"
    config.space.name = "mobilenetv3"
    config.space.width = 0.5
    # 28 pixels: 28 (stem), 14, 7, 7, 7, 4.
    config.space.stem_stride = 1
    config.space.strides = (2, 2, 1, 1, 2)
    config.children.batch_size = 32
    config.children.steps = 60
    config.oneshot.steps = 400  # pgnas and spos
    config.method.name = "fnas"
    config.search.budget = 24
    config.winner.steps = 400
    return config
