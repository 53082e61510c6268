"""Every metric of segmentation against scikit-learn's, over the pixels of all images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics, utils

from fnas_jax.core.types import IGNORE, UserError
from fnas_jax.objectives import base, segmentation
from tests.objectives.judging import figures_of, state_of

CLASSES = 5


def drawn(seed, n=11, side=6, missing=(), ignored=0.1):
    """(logits [n, H, W, C], masks [n, H, W] uint8); `missing` are neither there nor said."""
    rng = np.random.default_rng(seed)
    shape = (n, side, side + 1)
    masks = rng.choice([c for c in range(CLASSES) if c not in missing], shape).astype(np.uint8)
    logits = rng.normal(size=(*shape, CLASSES)).astype(np.float32)
    logits += 2 * (np.arange(CLASSES) == masks[..., None])
    logits[..., list(missing)] = -9
    masks[rng.random(shape) < ignored] = IGNORE
    return logits, masks


def of(metric="mean_iou", masks=None, balanced=False):
    masks = np.array([[[0, 1]]], np.uint8) if masks is None else masks
    return base.of("segmentation", metric, masks, CLASSES, balanced)


def pixels_of(logits, masks):
    """(classes [P], answers [P], logits [P, C]) of the pixels that count."""
    counted = masks != IGNORE
    return masks[counted], logits.argmax(-1)[counted], logits[counted]


@pytest.mark.parametrize(
    ("seed", "missing", "ignored"), [(0, (), 0.1), (1, (2,), 0.0), (2, (0, 4), 0.7)]
)
def test_figures_are_those_of_scikit_learn(seed, missing, ignored):
    logits, masks = drawn(seed, missing=missing, ignored=ignored)
    labels, answers, outputs = pixels_of(logits, masks)
    present = np.union1d(labels, answers)
    probabilities = np.asarray(jax.nn.softmax(outputs.astype(np.float64)))
    wanted = {
        "mean_iou": metrics.jaccard_score(labels, answers, labels=present, average="macro"),
        "pixel_accuracy": metrics.accuracy_score(labels, answers),
        "loss": metrics.log_loss(labels, probabilities, labels=range(CLASSES)),
    }
    assert figures_of(of(), logits, masks) == pytest.approx(wanted, rel=1e-5)


def test_a_class_that_is_answered_and_nowhere_counts_and_one_that_is_neither_does_not():
    masks = np.zeros((2, 2, 2), np.uint8)
    logits = np.zeros((2, 2, 2, CLASSES), np.float32)
    logits[0, 0, 0, 3] = 1  # one of eight pixels is taken for class 3
    assert figures_of(of(), logits, masks)["mean_iou"] == pytest.approx((7 / 8 + 0) / 2)


def test_the_table_is_that_of_the_confusion_matrix():
    logits, masks = drawn(3, missing=(1,))
    labels, answers, _ = pixels_of(logits, masks)
    matrix = metrics.confusion_matrix(labels, answers, labels=range(CLASSES)).astype(float)
    right, asked, answered = matrix.diagonal(), matrix.sum(1), matrix.sum(0)
    objective = of()
    table = objective.table(state_of(objective, logits, masks))
    np.testing.assert_array_equal(table["pixels"], asked)
    for name, below in (
        ("iou", asked + answered - right),
        ("precision", answered),
        ("recall", asked),
    ):
        np.testing.assert_allclose(table[name], right / np.maximum(below, 1), rtol=1e-6)


def test_counts_beyond_an_int32_are_right():
    objective = of()
    logits, masks = drawn(4, ignored=0)
    state = state_of(objective, logits, masks)
    # As if these images had come 2^20 times, of which one more makes no difference.
    many = jax.tree.map(lambda x: x, state)._replace(loss=state.loss * 2.0**20)
    many = many._replace(
        **{
            name: segmentation.Total(getattr(state, name).low, jnp.zeros(CLASSES, jnp.int32))
            for name in ("right", "asked", "answered")
        }
    )
    assert float(objective.table(many)["pixels"].sum()) == masks.size * 2.0**20 > 2**31 / 10
    found, wanted = objective.figures(many), objective.figures(state)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, wanted)


def test_low_digits_are_carried():
    one = jnp.ones((1, 1024, 1024), jnp.uint8)
    logits = jnp.broadcast_to(jnp.arange(CLASSES, dtype=jnp.float32), (1, 1024, 1024, CLASSES))
    objective, state = of(), segmentation.empty(CLASSES, 3)
    collect = jax.jit(objective.collect)
    for row in range(3):
        rows = jnp.asarray([row])
        state = collect(state, logits, one, rows, jnp.asarray([True]))
    assert int(state.asked.high[1]) == 3 and int(state.asked.low[1]) == 0
    assert float(objective.table(state)["pixels"][1]) == 3 * 2**20


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_the_mean_over_pixels_that_count(smoothing):
    logits, masks = drawn(5)
    labels, _, outputs = pixels_of(logits, masks)
    nats = -np.asarray(jax.nn.log_softmax(outputs.astype(np.float64)))
    each = (1 - smoothing) * nats[np.arange(len(labels)), labels] + smoothing * nats.mean(1)
    assert of().loss(logits, masks, smoothing) == pytest.approx(each.mean(), rel=1e-5)


def test_pixels_that_do_not_count_have_no_gradient_and_none_that_count_no_loss():
    logits, masks = drawn(6)
    slope = jax.grad(lambda x: of().loss(x, masks, 0.1))(jnp.asarray(logits))
    np.testing.assert_array_equal((np.asarray(slope) != 0).any(-1), masks != IGNORE)
    nothing = np.full_like(masks, IGNORE)
    assert float(of().loss(logits, nothing, 0.1)) == 0
    np.testing.assert_array_equal(of().errors(logits, nothing), np.zeros(len(masks)))
    assert figures_of(of(), logits, nothing)["loss"] == 0


def test_errors_are_the_means_of_images():
    logits, masks = drawn(7)
    for i, found in enumerate(of().errors(logits, masks)):
        assert float(found) == pytest.approx(
            float(of().loss(logits[i : i + 1], masks[i : i + 1], 0))
        )


def test_balanced_weights_are_scikit_learns_over_pixels():
    _, masks = drawn(8, missing=(1,))
    masks[:6] = 0
    labels = masks[masks != IGNORE]
    objective = of(masks=masks, balanced=True)
    present = np.unique(labels)
    wanted = utils.class_weight.compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(np.asarray(objective.known.weights)[present], wanted)
    assert objective.known.weights[1] == 0
    logits = np.random.default_rng(0).normal(size=(*masks.shape, CLASSES)).astype(np.float32)
    nats = -np.asarray(jax.nn.log_softmax(logits))[masks != IGNORE]
    weighted = np.asarray(objective.known.weights)[labels] * nats[np.arange(len(labels)), labels]
    assert objective.loss(logits, masks, 0.0) == pytest.approx(weighted.mean(), rel=1e-5)


def test_a_trivial_answer_by_the_shares_of_classes_has_the_score_of_a_half():
    masks = np.zeros((2, 2, 5), np.uint8)
    masks[0] = 1
    masks[1, 0] = IGNORE  # of the 15 others, 10 are of class 1
    objective = of("loss", masks)
    labels = masks[masks != IGNORE]
    nats = metrics.log_loss(labels, np.tile([1 / 3, 2 / 3], (15, 1)), labels=range(2))
    assert objective.measure.scale == pytest.approx(nats)


@pytest.mark.parametrize("balanced", [False, True])
@pytest.mark.parametrize(("pixel", "told"), [(IGNORE, "no class"), (3, "only class 3")])
def test_masks_without_two_classes_are_refused(pixel, told, balanced):
    masks = np.full((4, 3, 3), pixel, np.uint8)
    masks[0, 0, 0] = IGNORE
    with pytest.raises(UserError, match=f"{told}, beside those of 255, .* needs two classes"):
        of(masks=masks, balanced=balanced)


def test_an_objective_is_the_same_after_it_was_written_down():
    objective = of("pixel_accuracy", drawn(9)[1], balanced=True)
    again = base.parse(base.described(objective))
    assert again.measure == objective.measure and again.known == objective.known
    assert again.dense
