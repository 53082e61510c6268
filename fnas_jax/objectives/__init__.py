"""What networks are trained for: a head, a loss, metrics and answers; one file each.

`OBJECTIVES` is all that has to know of a new one.
"""

# Modules with `METRICS`, `study`, `unjudged` and `make` (`base`); only the chosen one is imported.
OBJECTIVES = {
    "classification": "fnas_jax.objectives.classification",
    "multilabel": "fnas_jax.objectives.multilabel",
    "regression": "fnas_jax.objectives.regression",
    "segmentation": "fnas_jax.objectives.segmentation",
}
DEFAULT = "classification"
