"""FNAS on NATS-Bench: cells that others have trained on CIFAR-100.

    python -m fnas_jax.main --config=experiments/fnas_nats.py --workdir=runs/nats \
        --config.task.data_dir=DIR

DIR holds nats_bench_tss.csv (repository D-X-Y/NATS-Bench). The table holds test accuracies only,
so its figures do not compare with those of searches on validation accuracy.

With `--config.knowledge.dir=KNOWLEDGE`, a search of `tabular/nats_cifar10` before or after this one
starts from what this one has learnt.
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "tabular/nats_cifar100"
    config.method.name = "fnas"
    config.search.budget = 60
    config.search.max_proposals = 2000
    return config
