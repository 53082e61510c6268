"""Mixed cells searched by PGNAS on 8x8 images of digits: any operations of an edge, added up.

    python -m fnas_jax.main --config=experiments/pgnas_mixed_cell.py --workdir=runs/mixed_cell
    python -m fnas_jax.export --workdir=runs/mixed_cell --out=runs/mixed_cell_export

Three stages of one cell, 8 channels in the first; 24 switches. 600 networks train the supernet, by
the paper's estimator (the default, `local`, was no worse: docs/pgnas.md), and up to 24 samples of
the posterior are judged.

Four minutes on two cores that other programs used, too, most of it compilation. Seed 0, from fresh
weights: 98.05% of the 359 test images at 0.734 MFLOPs, the reference network 98.05% at 0.783;
97.21% trained on from the inherited weights. With these, samples had 97.7% of the validation images
on average, the best 98.6%.
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "images/digits"
    config.space.name = "mixed_cell"
    config.space.cell_channels = 8
    config.space.cells_per_stage = 1
    config.children.batch_size = 32
    config.method.name = "pgnas"
    config.pgnas.gradient = "concrete"
    config.oneshot.steps = 600
    config.search.budget = 24
    config.winner.steps = 400
    return config
