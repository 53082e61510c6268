import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fnas_jax.core.types import UserError
from fnas_jax.tasks.split import split


def names(count):
    return tuple(map(str, range(count)))


def ids_of(numbers):
    return [int(number).to_bytes(16, "little") for number in numbers]


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.integers(3, 40), min_size=2, max_size=5),
    st.floats(0.01, 0.49),
    st.floats(0.01, 0.49),
    st.integers(-5, 2**40),
)
def test_split_is_a_stratified_partition(counts, test, val, seed):
    labels = np.repeat(np.arange(len(counts)), counts)
    ids = ids_of(range(len(labels)))
    subsets, told = split(ids, (test, val), seed, "x", labels, names(len(counts)))
    assert not told
    assert sorted(np.concatenate(subsets).tolist()) == list(range(len(labels)))
    for subset, share in zip(subsets, (test, val), strict=False):
        got = np.bincount(labels[subset], minlength=len(counts))
        assert (got >= 1).all()
        assert (np.abs(got - share * np.array(counts)) <= 1).all()
    assert (np.bincount(labels[subsets[-1]], minlength=len(counts)) >= 1).all()


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=12), min_size=1, max_size=4),
    st.floats(0.05, 0.45),
    st.floats(0.05, 0.45),
    st.randoms(use_true_random=False),
)
def test_groups_of_equal_images_go_whole_to_one_subset(sizes, test, val, random):
    """`sizes`: of the groups of each class, in any mixture of large and small."""
    rows = [
        (c, f"{c}.{g}") for c, of in enumerate(sizes) for g, n in enumerate(of) for _ in [0] * n
    ]
    random.shuffle(rows)
    numbers = {group: i for i, group in enumerate(sorted({group for _, group in rows}))}
    ids, labels = ids_of(numbers[group] for _, group in rows), np.array([c for c, _ in rows])
    few = [c for c, of in enumerate(sizes) if len(of) < 3]
    if any(sum(of) < 3 for of in sizes) or len(few) == len(sizes):
        with pytest.raises(UserError, match=r"are needed to split it|too few different images"):
            split(ids, (test, val), 7, "x", labels, names(len(sizes)))
        return
    subsets, told = split(ids, (test, val), 7, "x", labels, names(len(sizes)))
    assert sorted(np.concatenate(subsets).tolist()) == list(range(len(rows)))
    assert [note.text.split()[1] for note in told] == [f"'{c}'" for c in few]
    held = [{ids[row] for row in subset} for subset in subsets]
    assert sum(map(len, held)) == len(set(ids))
    for c, of in enumerate(sizes):
        for subset, share in zip(subsets, (test, val, 1 - test - val), strict=True):
            got = (labels[subset] == c).sum()
            if c in few:  # not to be divided
                assert got == (sum(of) if subset is subsets[-1] else 0)
                continue
            assert got >= 1
            # Of the rest: what two subsets miss.
            room = max(of) if subset is not subsets[-1] else 2 * max(of)
            assert abs(got - share * sum(of)) <= room
    order = random.sample(range(len(rows)), len(rows))
    again, _ = split([ids[i] for i in order], (test, val), 7, "x", labels[order], names(len(sizes)))
    for subset, other in zip(subsets, again, strict=True):
        assert [ids[i] for i in subset] == [ids[order[i]] for i in other]
        assert labels[subset].tolist() == labels[order][other].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1000))
def test_a_group_of_several_classes_stays_whole_and_order_does_not_matter(seed):
    random = np.random.default_rng(seed)
    groups = random.integers(0, 40, 120)
    labels = np.where(random.random(120) < 0.2, random.integers(0, 3, 120), groups % 3)
    ids = ids_of(groups)
    subsets, _ = split(ids, (0.2, 0.2), 1, "x", labels, names(3))
    held = [set(groups[subset]) for subset in subsets]
    assert sum(map(len, held)) == len(set(groups))
    assert sum(map(len, subsets)) == 120
    order = random.permutation(120)
    again, _ = split([ids[i] for i in order], (0.2, 0.2), 1, "x", labels[order], names(3))
    for subset, other in zip(subsets, again, strict=True):
        assert groups[subset].tolist() == groups[order][other].tolist()
        assert labels[subset].tolist() == labels[order][other].tolist()


def test_without_strata_all_rows_are_one():
    ids = ids_of(np.repeat(np.arange(50), 2))
    (test, val, train), _ = split(ids, (0.2, 0.1), 0, "x")
    assert (len(test), len(val), len(train)) == (20, 10, 70)
    assert len({ids[i] for i in test} | {ids[i] for i in val}) == 15
    with pytest.raises(UserError, match="x has 2 training examples: at least 3 are needed"):
        split(ids_of([1, 2]), (0.2, 0.1), 0, "x")
    assert [len(subset) for subset in split(ids_of([1, 1]), (0, 0), 0, "x")[0]] == [0, 0, 2]


def test_many_copies_of_one_image_do_not_fill_a_small_subset():
    labels = np.zeros(120, int)
    ids = ids_of([*[0] * 100, *range(1, 21)])
    for seed in range(10):
        (test, val, train), _ = split(ids, (0.1, 0.1), seed, "x", labels, names(1))
        assert (len(test), len(val), len(train)) == (12, 8, 100)


def test_a_class_of_too_few_different_images_is_for_training_and_that_is_said():
    ids = ids_of([0, 0, 0, 1, 1, *range(2, 12)])
    labels = np.repeat([0, 1], [5, 10])
    (test, val, train), (note,) = split(ids, (0.2, 0.2), 0, "x", labels, names(2))
    assert [(labels[rows] == 0).sum() for rows in (test, val, train)] == [0, 0, 5]
    assert [(labels[rows] == 1).sum() for rows in (test, val, train)] == [2, 2, 6]
    said = "Class '0' of x has 5 training examples, but only 2 different images of its own"
    assert note.loud and note.text.startswith(said)
    assert note.text.endswith(": all of them are training images, and nothing is judged by them")


def test_rows_that_are_divided_with_another_class_are_judged_by():
    """Eight images of two classes each are the first one's; a ninth is the second one's own."""
    ids, labels = ids_of([*range(8), *range(8)]), np.repeat([0, 1], 8)
    subsets, told = split(ids, (0.25, 0.25), 0, "x", labels, names(2))
    assert not told
    for subset, count in zip(subsets, (2, 2, 4), strict=True):
        assert (labels[subset] == 0).sum() == (labels[subset] == 1).sum() == count
    ids, labels = ids_of([*range(8), *range(8), 8]), np.repeat([0, 1], [8, 9])
    subsets, (note,) = split(ids, (0.25, 0.25), 0, "x", labels, names(2))
    stay = (labels[subsets[-1]] == 1).sum()
    assert stay == 5 and note.text.startswith("Class '1' of x has 9 training examples, but only 1")
    assert note.text.endswith(": 5 of them stay training images")


def test_too_few_different_images_are_refused_with_their_numbers():
    ids = ids_of([0, 0, 0, 1, 1])
    with pytest.raises(UserError, match=r"x has too few different images .*, 2 of 5"):
        split(ids, (0.2, 0.2), 0, "x", np.zeros(5, int), names(1))
    with pytest.raises(UserError, match="Class '1' of x has 0 training examples"):
        split(ids, (0, 0), 0, "x", np.zeros(5, int), names(2))
