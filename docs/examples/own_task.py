"""An own space and an own function as the task: here, a random forest on scikit-learn's digits.

    python own_task.py

As a task of a configuration: --config.task.name=python:own_task:task
"""

from sklearn.datasets import load_digits
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

import fnas_jax

X, Y = load_digits(return_X_y=True)
SPACE = fnas_jax.categorical(
    {
        "trees": [5, 10, 20, 40],
        "depth": [2, 4, 8, None],
        "criterion": ["gini", "entropy"],
        "features": ["sqrt", "log2"],
    }
)


def accuracy(decisions):
    """Three-fold accuracy, e.g. of {"trees": 10, "depth": None, ..}."""
    d = decisions
    forest = RandomForestClassifier(
        d["trees"], criterion=d["criterion"], max_depth=d["depth"], max_features=d["features"]
    )
    return cross_val_score(forest, X, Y, cv=3).mean()


task = fnas_jax.from_function(SPACE, accuracy)

if __name__ == "__main__":
    print(fnas_jax.search(task=task, budget=20, workdir="runs/own_task"))
