"""Random search on a table of your own: the simplest run, and a baseline for any other.

    python -m fnas_jax.main --config=experiments/random_table.py --workdir=runs/table \
        --config.task.name=tabular/PATH.csv

The file's columns are decision_0, decision_1, .. (whole numbers from 0), or those that
`--config.task.decisions=NAME,NAME` names (any values), and a metric; of several,
`--config.task.metric=NAME` says which is maximised (docs/tables.md).
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "tabular/table.csv"
    config.method.name = "random"
    return config
