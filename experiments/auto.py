"""Any image set, any time: the plan is made from the images, the devices and `search.seconds`.

    python -m fnas_jax.main --config=experiments/auto.py --workdir=runs/auto \
        --config.task.name=images/ANYTHING --config.search.seconds=3600

The first lines say what is planned; every key that is given beside these stays as it is given.
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.search.plan = "auto"
    config.search.seconds = 3600.0
    return config
