"""What a search says before it begins."""

import types

import pytest

from fnas_jax import opening
from fnas_jax.core import config as config_lib
from fnas_jax.knowledge.base import Knowledge
from fnas_jax.tasks.base import Task
from tests.soak.searches import write_table


@pytest.mark.parametrize(("batch", "told"), [(4, False), (5, True)])
def test_a_batch_that_is_more_than_the_budget_is_told(batch, told, tmp_path, capsys):
    write_table(tmp_path / "net.csv")
    changed = {
        "task.name": f"tabular/{tmp_path / 'net.csv'}",
        "method.name": "random",
        "search.budget": 4,
        "search.batch": batch,
    }
    config = config_lib.nest(config_lib.flatten(config_lib.default()) | changed)
    opening.build(config, Knowledge(None))
    said = capsys.readouterr().err
    assert ("up to 5 architectures are trained" in said) == told


@pytest.mark.parametrize(("images", "told"), [(86 * 10 * 8, False), (86 * 10 * 8 + 1, True)])
def test_images_that_the_budget_does_not_reach_are_told(images, told):
    config = config_lib.default()  # 64 children, a batch of 8, 6 of a fair round, 8 finalists
    config.children.steps, config.children.batch_size = 10, 80
    config.search.images = images
    space = types.SimpleNamespace(cardinalities=(2, 3, 2))
    data = types.SimpleNamespace(train_labels=range(8))  # less than a minibatch
    said = opening.below_images(config, types.SimpleNamespace(space=space, dataset=data))
    assert bool(said) == told
    if told:
        assert "64 children of 10 steps are 5,120 images" in said[0]


def test_a_task_that_has_nothing_to_say_of_a_thing_leaves_no_empty_line(capsys):
    task = Task("a", None, None, None, said=("", "something", ""))
    opening.tell(config_lib.default(), task)
    assert capsys.readouterr().err == "something\n"
