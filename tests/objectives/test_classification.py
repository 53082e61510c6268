"""Every metric of classification against scikit-learn's."""

import jax
import numpy as np
import pytest
from sklearn import metrics, utils

from fnas_jax.core.types import UserError
from fnas_jax.objectives import base, classification
from tests.objectives.judging import figures_of, state_of


def drawn(seed, n, classes, missing=()):
    """(logits [n, C], labels [n]) in which the classes `missing` have no example."""
    rng = np.random.default_rng(seed)
    labels = rng.choice([c for c in range(classes) if c not in missing], n).astype(np.int32)
    logits = rng.normal(size=(n, classes)).astype(np.float32)
    logits[np.arange(n), labels] += 1
    return logits, labels


@pytest.mark.parametrize(
    "case", [(0, 60, 3, ()), (1, 53, 8, (2,)), (2, 5, 7, (0, 6)), (3, 200, 12, ())]
)
def test_figures_are_those_of_scikit_learn(case):
    logits, labels = drawn(*case)
    classes = logits.shape[1]
    found = figures_of(classification.of(classes), logits, labels)
    answers = logits.argmax(1)
    probabilities = np.asarray(jax.nn.softmax(logits.astype(np.float64)))
    wanted = {
        "accuracy": metrics.accuracy_score(labels, answers),
        "macro_f1": metrics.f1_score(labels, answers, average="macro", zero_division=0),
        "loss": metrics.log_loss(labels, probabilities, labels=range(classes)),
    }
    wanted["top5"] = (
        metrics.top_k_accuracy_score(labels, logits, k=5, labels=range(classes))
        if classes > 5
        else 1.0
    )
    # scikit-learn's own warns of classes that are answered and have no example, and leaves them out
    recalls = metrics.recall_score(labels, answers, labels=np.unique(labels), average=None)
    wanted["balanced_accuracy"] = recalls.mean()
    assert found == pytest.approx(wanted, rel=1e-5)


def test_balanced_accuracy_is_scikit_learns():
    logits, labels = drawn(4, 90, 4)
    found = figures_of(classification.of(4), logits, labels)["balanced_accuracy"]
    assert found == pytest.approx(metrics.balanced_accuracy_score(labels, logits.argmax(1)))


def test_of_equal_outputs_the_first_is_the_answer_and_counts_for_top5():
    """A network that says nothing is right for as many images as its first classes have."""
    labels = np.arange(10, dtype=np.int32)
    found = figures_of(classification.of(10), np.zeros((10, 10), np.float32), labels)
    assert found["accuracy"] == pytest.approx(0.1) and found["top5"] == pytest.approx(0.5)
    # scikit-learn takes the last ones of equal scores: the same, read from behind.
    scores = np.random.default_rng(0).integers(0, 3, (80, 9)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 9, 80).astype(np.int32)
    wanted = metrics.top_k_accuracy_score(8 - labels, scores[:, ::-1], k=5, labels=range(9))
    assert figures_of(classification.of(9), scores, labels)["top5"] == pytest.approx(wanted)


def test_the_table_has_precision_recall_and_f1_of_each_class():
    logits, labels = drawn(5, 40, 6, missing=(3,))
    objective = classification.of(6)
    table = objective.table(state_of(objective, logits, labels))
    wanted = metrics.precision_recall_fscore_support(
        labels, logits.argmax(1), labels=range(6), zero_division=0
    )
    for name, column in zip(("precision", "recall", "f1", "images"), wanted, strict=True):
        np.testing.assert_allclose(table[name], column, rtol=1e-6)


def test_balanced_weights_are_scikit_learns_and_weigh_the_loss():
    logits, labels = drawn(6, 50, 5, missing=(1,))
    labels[:30] = 0
    objective = base.of("classification", "", labels, 5, balanced=True)
    present = np.unique(labels)
    weights = utils.class_weight.compute_class_weight("balanced", classes=present, y=labels)
    np.testing.assert_allclose(np.asarray(objective.known.weights)[present], weights)
    assert objective.known.weights[1] == 0
    each = np.asarray(objective.errors(logits, labels))
    of_each = np.asarray(objective.known.weights)[labels]
    assert objective.loss(logits, labels, 0.0) == pytest.approx((of_each * each).mean(), rel=1e-5)
    plain = base.of("classification", "", labels, 5, balanced=False)
    assert plain.loss(logits, labels, 0.0) == pytest.approx(each.mean(), rel=1e-5)


def test_a_trivial_answer_by_the_shares_of_classes_has_the_score_of_a_half():
    labels = np.array([0] * 30 + [1] * 10, np.int32)
    objective = base.of("classification", "loss", labels, 3, balanced=False)
    nats = metrics.log_loss(labels, np.tile([0.75, 0.25, 0.0], (40, 1)), labels=range(3))
    assert objective.measure.kind == "error" and objective.measure.sign == -1
    assert objective.measure.scale == pytest.approx(nats)


def test_a_metric_that_is_the_same_for_all_networks_is_refused():
    labels = np.arange(6, dtype=np.int32)
    with pytest.raises(UserError, match=r"'top5', which tells nothing of 5 classes.*6 or more"):
        base.of("classification", "top5", labels[:5], 5, balanced=False)
    assert base.of("classification", "top5", labels, 6, balanced=False).measure.name == "top5"
    # What was searched for before is still what it is.
    kept = base.described(base.of("classification", "", labels[:5], 5, balanced=False))
    assert base.parse(kept | {"metric": "top5"}).measure.name == "top5"


def test_an_objective_is_the_same_after_it_was_written_down():
    labels = np.array([0, 0, 1, 2], np.int32)
    objective = base.of("classification", "macro_f1", labels, 3, balanced=True)
    again = base.parse(base.described(objective))
    assert again.measure == objective.measure and again.known == objective.known


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(UserError, match=r"'acuracy'.*macro_f1.*did you mean 'accuracy'"):
        base.checked("classification", "acuracy")
    with pytest.raises(UserError, match=r"'clasification'.*did you mean 'classification'"):
        base.module("clasification")
