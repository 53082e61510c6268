"""PPO on NAS-Bench-Macro: 6,561 networks that others have trained on CIFAR-10, three times each.

    python -m fnas_jax.main --config=experiments/ppo_macro.py --workdir=runs/macro \
        --config.task.data_dir=DIR

DIR holds nas_bench_macro_cifar10.json (repository xiusu/NAS-Bench-Macro). A query sees one of the
three trainings; the result's `winner` is judged by their mean. The table holds test accuracies
only, so its figures do not compare with those of searches on validation accuracy.

18 s on two CPU cores, 12 of them compilation; 205 networks. Seed 0 ends with the 20th best string
of 6,561: 92.96% by the mean of its three trainings, 0.17 points below the best.
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "tabular/macro"
    config.method.name = "ppo"
    config.search.budget = 200
    return config
