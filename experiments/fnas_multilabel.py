"""MnasNet blocks searched by FNAS for several labels of an image: which digits are on a canvas.

    python -m fnas_jax.main --config=experiments/fnas_multilabel.py --workdir=runs/labels

3,000 canvases of 40x40 pixels with one to four digits of mnist5k: 2,000 for training, 500 for
validation, 500 for the winner's test, each of other digits. Ten labels, the digits, of which a
canvas has 2.3; the search is for mAP, of which equal scores for all have 0.22, the labels' share.

25 minutes on two CPU cores that a dozen other programs kept busy: a fair round of 6 children for
the knowledge pool and 12 that inherit from it, of 30 steps each, the 8 best of them once more,
then 600 steps each for the winner and a MobileNetV2. Seed 0: mAP of 0.693 on
validation images, and 0.991 on test images after the training (95% between 0.987 and 0.994; 2.47
MFLOPs; micro F1 0.961); the reference, then one of no smaller cost, has 0.988 (2.67 MFLOPs).
"""

from fnas_jax.core.config import default


def get_config():
    config = default()
    config.task.name = "images/canvas_labels"
    config.task.objective = "multilabel"
    # Digits are 16 pixels high: 20x20 after the stem, 10x10 from the first block on.
    config.space.blocks = 3
    config.space.strides = (2, 1, 1)
    config.space.width = 0.5
    config.space.head = 128
    config.children.steps = 30  # from inherited blocks
    config.children.batch_size = 32
    config.method.name = "fnas"
    config.search.budget = 12
    config.winner.steps = 600
    return config
