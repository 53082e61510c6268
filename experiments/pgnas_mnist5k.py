"""Small Macro networks searched by PGNAS on 5,000 MNIST images.

    python -m fnas_jax.main --config=experiments/pgnas_mnist5k.py --workdir=runs/pgnas

Images of 14x14 pixels, a quarter of the space's channels, 600 networks that train the supernet and
up to 32 samples from its posterior.

Under three minutes of CPU time, most of it compilation. Seed 0: the posterior ends so certain (0.5
nats) that 40 samples are 3 distinct networks, the best of which has 95.8% on validation images with
inherited weights; after these the search ends early. Test images: 97.1% from fresh weights (0.52
MFLOPs), 96.7% trained on from the inherited ones; the reference has 97.0% (1.89 MFLOPs).
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
    config.search.batch = 8
    config.winner.steps = 600
    return config
