"""Regularised evolution on the cells of NATS-Bench: 15,625 networks trained on CIFAR-10.

    python -m fnas_jax.main --config=experiments/evolution_nats.py --workdir=runs/nats \
        --config.task.data_dir=DIR

DIR holds nats_bench_tss.csv. `--config.task.name=tabular/nats_cifar100` takes CIFAR-100 instead.
The table holds test accuracies only, so its figures do not compare with those of searches on
validation accuracy.

7 s on two CPU cores, 3 of them compilation; 200 networks. Seed 0 ends with the best cell of the
table, 94.37%.
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "tabular/nats_cifar10"
    config.method.name = "evolution"
    config.search.budget = 200
    config.search.batch = 1
    return config
