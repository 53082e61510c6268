"""Every metric of several labels against scikit-learn's."""

import jax
import numpy as np
import pytest
from sklearn import metrics, utils

from fnas_jax.core.types import UserError
from fnas_jax.objectives import base, multilabel
from tests.objectives.judging import figures_of, state_of


def drawn(seed, n=40, labels=5, missing=(), ties=False):
    """(logits [n, L], labels [n, L]) in which no image has the labels `missing`."""
    rng = np.random.default_rng(seed)
    there = (rng.random((n, labels)) < 0.3).astype(np.int32)
    there[:, list(missing)] = 0
    logits = (rng.normal(size=(n, labels)) - 1 + 1.5 * there).astype(np.float32)
    return (np.round(logits) if ties else logits), there


def of(there, metric="", balanced=False):
    return base.of("multilabel", metric, there, there.shape[1], balanced)


@pytest.mark.parametrize(
    "case", [{}, {"n": 53, "missing": (1,)}, {"n": 64, "ties": True}, {"n": 3, "labels": 8}]
)
def test_figures_are_those_of_scikit_learn(case):
    logits, there = drawn(1, **case)
    found, answers = figures_of(of(there), logits, there), logits > 0
    asked = there.any(0)
    precisions = metrics.average_precision_score(there[:, asked], logits[:, asked], average=None)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    nats = [
        metrics.log_loss(there[:, i], probabilities[:, i], labels=[0, 1])
        for i in range(there.shape[1])
    ]
    wanted = {
        "mAP": np.mean(precisions),
        "micro_f1": metrics.f1_score(there, answers, average="micro", zero_division=0),
        "macro_f1": metrics.f1_score(there, answers, average="macro", zero_division=np.nan),
        "loss": np.sum(nats),
    }
    assert found == pytest.approx(wanted, rel=1e-5)


def test_the_table_is_scikit_learns():
    logits, there = drawn(2, missing=(4,))
    objective = of(there)
    table = jax.jit(objective.table)(state_of(objective, logits, there))
    wanted = metrics.precision_recall_fscore_support(there, logits > 0, zero_division=0)
    for name, column in zip(("precision", "recall", "f1", "images"), wanted, strict=True):
        np.testing.assert_allclose(table[name], column, rtol=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_each_label_and_balanced_weights_are_scikit_learns(smoothing):
    logits, there = drawn(3, n=30)
    objective = of(there, balanced=True)
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    wanted = there * (1 - smoothing) + smoothing / 2
    nats = -(wanted * np.log(p) + (1 - wanted) * np.log(1 - p))
    plain = of(there).loss(logits, there, smoothing)
    assert plain == pytest.approx(nats.sum(1).mean(), rel=1e-5)
    weights = [
        utils.class_weight.compute_class_weight("balanced", classes=np.arange(2), y=column)
        for column in there.T
    ]
    np.testing.assert_allclose(objective.known.weights, weights)
    of_each = np.take_along_axis(np.asarray(weights)[None], there[..., None], 2)[..., 0]
    found = objective.loss(logits, there, smoothing)
    assert found == pytest.approx((of_each * nats).sum(1).mean(), rel=1e-5)


def test_a_trivial_answer_by_the_shares_of_labels_has_the_score_of_a_half():
    _, there = drawn(4)
    share = there.mean(0)
    nats = sum(
        metrics.log_loss(there[:, i], np.full(len(there), share[i])) for i in range(len(share))
    )
    assert of(there, "loss").measure.scale == pytest.approx(nats)
    with pytest.raises(UserError, match="no training image has any label"):
        of(0 * there)
    with pytest.raises(UserError, match=r"all training images or in none, .* nothing to learn"):
        of(np.tile([[0, 1]], (9, 1)))
    assert of(np.array([[0, 1, 1], [0, 1, 0]])).known.trivial["loss"] == pytest.approx(np.log(2))


def test_answers_are_what_is_more_likely_than_not():
    answers, scores = multilabel.answer(np.array([[-1.0, 0.5], [0.0, 3.0]], np.float32))
    assert answers.tolist() == [[0, 1], [0, 1]] and answers.dtype == np.int32
    np.testing.assert_allclose(scores[0], 1 / (1 + np.exp([1.0, -0.5])), rtol=1e-6)


def test_it_is_the_same_after_it_was_written_down():
    _, there = drawn(5)
    objective = of(there, "micro_f1", balanced=True)
    again = base.parse(base.described(objective))
    assert again.measure == objective.measure and again.known == objective.known
