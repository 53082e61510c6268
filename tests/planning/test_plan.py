"""A plan is made once, leaves what the user said, and is what a run goes on by."""

import json

import jax
import numpy as np
import pytest

from fnas_jax import loop, main
from fnas_jax.core import config as config_lib
from fnas_jax.core import config_json, memory
from fnas_jax.core.types import UserError
from fnas_jax.planning import plan, schedule, speed, trial
from fnas_jax.tasks import images


def auto(**changes):
    values = {"search.plan": "auto", "search.seconds": 600.0, "jax.cache_dir": ""}
    flat = config_lib.flatten(config_lib.default())
    return config_lib.validate(config_lib.nest(flat | values | changes))


@pytest.fixture
def measured(monkeypatch):
    """How often a speed was measured, which is made up."""
    calls = []

    def measure(ctx):
        calls.append(ctx.space.spec)
        return schedule.Speed(3e9, 2.0)

    monkeypatch.setattr(speed, "measure", measure)
    monkeypatch.setattr(trial, "steps_within", lambda *given: 0)
    return calls


def test_all_that_is_left_open_is_planned(measured, tmp_path, capsys):
    config = plan.settle(auto(), tmp_path)
    assert config.space.strides == (1, 2, 1) and config.space.stem_stride == 1
    assert config.task.augment.policy == "auto" and not config.winner.reference
    assert config.search.winner_share == schedule.WINNER_SHARE
    dataset = images.load(config)
    facts = schedule.Facts(len(dataset.train_labels), len(dataset.val_labels), 1, 64)
    facts = facts._replace(devices=len(jax.devices()))
    size = speed.size_of(plan.context(config, dataset))
    wanted = schedule.schedule(facts, schedule.Speed(3e9, 2.0), size, 600.0)
    assert abs(config.search.budget - wanted.children) <= 0.05 * wanted.children
    assert config.children.steps == wanted.steps
    said = capsys.readouterr().err
    assert f"{config.search.budget} children of {config.children.steps} steps" in said
    assert "done at" in said and "warning" not in said


@pytest.mark.parametrize("space", ["mnas", "mobilenetv3", "cell"])
def test_the_fastest_kernels_are_planned(monkeypatch, space):
    monkeypatch.setattr(plan.choose, "has_short_products", lambda: True)
    config = auto(**{"space.name": space})
    found = plan.of_data(config, images.load(config))
    assert found.get("children.backend") == (None if space == "cell" else "kernels_bf16")


@pytest.mark.parametrize(("count", "children"), [(1, 1), (3, 3), (99, 4)])
def test_no_device_is_without_a_child(measured, monkeypatch, tmp_path, count, children):
    monkeypatch.setattr(plan.jax, "devices", lambda: [None] * count)
    assert plan.settle(auto(), tmp_path).fnas.verify == children


def test_networks_that_do_not_fit_into_memory_are_not_planned(measured, monkeypatch, tmp_path):
    def check(ctx):
        if ctx.config.space.width > 0.5:
            raise UserError("too large")

    monkeypatch.setattr(plan.memory, "check", check)
    assert plan.settle(auto(**{"search.seconds": 6000.0}), tmp_path).space.width == 0.5
    with pytest.raises(UserError, match="too large"):
        plan.settle(auto(**{"space.width": 0.75}), tmp_path)


def test_a_rate_that_is_given_is_not_tried(measured, monkeypatch, tmp_path):
    monkeypatch.setattr(trial, "steps_within", lambda *given: 100)
    monkeypatch.setattr(trial, "run", None)
    assert plan.settle(auto(**{"children.lr": 0.3}), tmp_path).children.lr == 0.3


def test_what_the_user_says_stays(measured, tmp_path):
    given = {"space.width": 0.5, "children.steps": 77, "space.blocks": 2, "space.strides": (2, 1)}
    config = plan.settle(auto(**given), tmp_path)
    flat = config_lib.flatten(config)
    assert {name: flat[name] for name in given} == given


def test_the_widest_networks_that_leave_time_are_taken(measured, tmp_path):
    slow, fast = (
        plan.settle(auto(**{"search.seconds": seconds}), tmp_path) for seconds in (60.0, 6000.0)
    )
    assert slow.space.width < fast.space.width == max(plan.WIDTHS)


def test_only_the_width_of_other_mobile_spaces_is_planned(measured, tmp_path, capsys):
    given = {"space.name": "mobilenetv3", "search.seconds": 60.0, "space.strides": (1, 2, 1, 1, 1)}
    config = plan.settle(auto(**given), tmp_path)
    assert config.space.width == min(plan.WIDTHS) and config.space.strides == (1, 2, 1, 1, 1)
    assert config.space.stem == auto().space.stem
    assert "space mobilenetv3, width 0.25: " in capsys.readouterr().err


def test_a_time_that_does_not_suffice_is_told(measured, tmp_path, capsys):
    config = plan.settle(auto(**{"search.seconds": 10.0}), tmp_path)
    assert config.space.width == min(plan.WIDTHS)
    assert "10 seconds are little for 1438 images" in capsys.readouterr().err


def test_validation_images_are_no_more_than_are_needed(measured, monkeypatch, tmp_path):
    monkeypatch.setattr(plan, "JUDGED", 500)
    values = np.random.default_rng(0).integers(0, 256, (4000, 8, 8), np.uint8)
    arrays = {"x_train": values, "y_train": np.arange(4000) % 4}
    config = auto(**{"task.name": f"images/{images.data.name_of(arrays)}"})
    planned = plan.settle(config, tmp_path, arrays)
    assert planned.task.val_fraction < config.task.val_fraction
    parts = images.load(planned, arrays)
    assert abs(len(parts.val_labels) - 500) < 10


TRIED = trial.Trial(
    steps=100,
    rates=np.array([0.05, 0.1, 0.2, 0.4]),
    loss=np.array([0.9, 0.7, 0.5, np.inf]),
    accuracy=np.array([0.6, 0.7, 0.8, 0.0]),
)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"children.lr": 0.2, "winner.lr": 0.1}),
        ({"children.lr": 0.3}, {}),
        ({"winner.lr": 0.3}, {"children.lr": 0.2}),
    ],
)
def test_what_a_trial_shows_is_planned(changes, expected):
    assert plan.of_trial(auto(**changes), TRIED) == expected


def test_a_winner_gets_no_higher_rate_than_the_default():
    lower = TRIED._replace(loss=np.array([0.1, 0.7, 0.5, np.inf]))
    assert plan.of_trial(auto(), lower) == {"children.lr": 0.05, "winner.lr": 0.05}


def test_a_trial_is_run_where_there_is_time(measured, monkeypatch, tmp_path, capsys):
    asked = []
    monkeypatch.setattr(trial, "steps_within", lambda facts, speed, size, seconds: 100)
    monkeypatch.setattr(trial, "run", lambda ctx, steps: asked.append((ctx, steps)) or TRIED)
    config = plan.settle(auto(), tmp_path)
    ((ctx, steps),) = asked
    assert steps == 100 and ctx.config.space.width == config.space.width
    assert config.children.lr == 0.2 and config.winner.lr == 0.1
    said = capsys.readouterr().err
    assert "plan: learning rate 0.2, by the validation loss after 100 steps" in said


def test_plans_count_with_children_that_stop_early(measured, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(
        trial, "steps_within", lambda facts, speed, size, seconds: asked.append(facts) or 0
    )
    early = {"children.halving": 3, "children.rungs": 1, "children.brackets": 2}
    plan.settle(auto(**early), tmp_path)
    assert (asked[0].halving, asked[0].rungs, asked[0].brackets) == (3, 1, 2)


def test_nothing_is_planned_unless_it_is_asked_for(measured, tmp_path):
    config = config_lib.default()
    assert plan.settle(config, tmp_path) is config and not measured


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"search.seconds": 0.0}, "search.plan=auto needs a time: search.seconds"),
        ({"task.name": "tabular/macro"}, "plans searches on images, and task.name is 'tabular"),
    ],
)
def test_what_cannot_be_planned_is_refused(tmp_path, changes, sentence):
    with pytest.raises(UserError, match=sentence):
        plan.settle(auto(**changes), tmp_path)


def test_a_run_goes_on_by_its_plan(measured, tmp_path):
    config = plan.settle(auto(), tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    again = plan.settle(auto(**{"search.seconds": 5000.0}), tmp_path)
    assert len(measured) == 1
    assert config_lib.flatten(again) == config_lib.flatten(config) | {"search.seconds": 5000.0}


def test_speed_is_of_the_work_that_was_done():
    """Twice the multiply-adds in about twice the time: rates agree within a factor."""
    config = auto(**{"space.blocks": 1, "space.strides": (2,), "space.stem_stride": 1})
    small = plan.changed(config, {"space.stem": 8, "space.width": 0.5, "space.head": 16})
    ctx = plan.context(small, images.load(small))
    found = speed.measure(ctx)
    assert found.compilation > 0 and found.macs > 0
    size = speed.size_of(ctx)
    assert 0 < size.mean < size.high < 10 * size.mean


@pytest.mark.slow
def test_one_command_from_images_to_a_network(tmp_path, capsys):
    command = ["--config=auto", "--config.task.name=images/digits", "--config.search.seconds=120"]
    command += [f"--workdir={tmp_path}", "--config.log.tensorboard=False"]
    assert main.main(command) == 0
    told = capsys.readouterr()
    assert "plan: " in told.err and "the network is kept" in told.out
    before = (tmp_path / "config.json").read_text()
    assert main.main(command) == 0  # which reads its own result
    assert "plan: " not in capsys.readouterr().err
    assert (tmp_path / "config.json").read_text() == before


def test_a_plan_goes_on_where_its_products_are_not(measured, monkeypatch, tmp_path, capsys):
    config = plan.changed(auto(), {"children.backend": "kernels_bf16"})
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    for there, backend in ((True, "kernels_bf16"), (False, "auto")):
        monkeypatch.setattr(plan.choose, "has_short_products", lambda there=there: there)
        assert plan.settle(auto(), tmp_path).children.backend == backend
    assert capsys.readouterr().err.count("no products of bfloat16 numbers") == 1
    assert not measured and config_json.may_change("children.backend")


def test_the_loop_runs_what_was_planned(monkeypatch, tmp_path):
    def settle(config, folder, arrays):
        assert arrays == {"x_train": 1}
        return plan.changed(config, {"search.budget": 17})

    def search_in(config, folder, builder, clock):
        return {"budget": config.search.budget}

    monkeypatch.setattr(plan, "settle", settle)
    monkeypatch.setattr(loop, "search_in", search_in)
    assert loop.run(config_lib.default(), tmp_path, arrays={"x_train": 1}) == {"budget": 17}


def test_what_does_not_fit_is_not_even_measured(measured, tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 10**6)
    with pytest.raises(UserError, match=r"may take .* GiB of"):
        plan.settle(auto(), tmp_path)
    assert not measured
