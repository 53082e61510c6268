"""Small Macro networks searched by PGNAS on 5,000 MNIST images.

    python -m fnas_jax.main --config=experiments/pgnas_mnist5k.py --workdir=runs/pgnas

Images of 14x14 pixels, a quarter of the space's channels, 600 networks that train the supernet and
up to 32 samples from its posterior.

A minute of CPU time, most of it the final trainings. Seed 0: the posterior ends with 3.9 nats of
entropy; of 80 samples 30 distinct networks are judged before the search ends early, the best of
which has 95.7% on validation images with inherited weights. Test images: 97.4% from fresh weights
(1.33 MFLOPs), 95.9% trained on from the inherited ones; the reference has 97.3% (1.89 MFLOPs).
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "images/mnist5k"
    config.task.image_size = 14
    config.space.name = "macro"
    config.space.width = 0.25
    config.children.batch_size = 32
    config.method.name = "pgnas"
    config.oneshot.steps = 600
    config.search.budget = 32
    config.winner.steps = 600
    return config
