"""A dry run says what a search takes, and trains nothing."""

import re

import pytest

from fnas_jax import main
from fnas_jax.core import memory as memory_lib
from fnas_jax.planning import schedule, speed
from fnas_jax.tasks import trained

SPACE = (
    *("--config.space.blocks=1", "--config.space.strides=(1,)", "--config.space.stem=8"),
    *("--config.space.stem_stride=1", "--config.space.head=16", "--config.jax.cache_dir="),
    *("--config.winner.finalists=0", "--config.akp.rounds=0", "--config.children.steps=30"),
)
DIGITS = ("--plan", "--config.task.name=images/digits", *SPACE)


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """A speed that is made up, and an evaluator that nobody may build."""
    monkeypatch.setattr(speed, "measure", lambda ctx: schedule.Speed(1e9, 2.0))
    monkeypatch.setattr(trained, "evaluator", None)


def said(capsys, *argv, code=0):
    """{first word: line} of what the command prints."""
    assert main.main(argv) == code
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    return {line.partition(":")[0]: line for line in lines}, captured.err


def test_a_supernet_is_not_counted_as_children(capsys):
    _, error = said(capsys, *DIGITS, "--config.method.name=spos", code=2)
    assert "method.name=spos trains one network for all of them" in error


def test_a_search_here(capsys):
    found, _ = said(capsys, *DIGITS)
    assert "1,079 to train, 359 to validate, 359 to test, 8x8x1" in found["images"]
    assert re.search(r"\d x cpu, [\d.]+ GiB each", found["devices"])
    need = found["memory of a device for a child"]
    total, *parts = map(float, re.findall(r"\d+\.\d\d", need))
    assert total == pytest.approx(sum(parts), abs=0.03)
    assert "64, each 30 steps of 64 images" in found["children"]
    assert "at 1 thousand million multiply-adds" in found["time"]
    assert "zero-cost proxies" not in found
    proxies = [*DIGITS, "--config.features.proxies=True"]
    assert "zero-cost proxies" in said(capsys, *proxies)[0]
    assert "zero-cost proxies" not in said(capsys, *proxies, "--config.method.name=random")[0]


def test_what_does_not_fit_is_said_and_refused(capsys, monkeypatch):
    monkeypatch.setattr(memory_lib, "available_bytes", lambda: 3 * 2**20)
    found, error = said(capsys, *DIGITS, code=2)
    assert "memory of a device for a child" in found and "time" not in found
    assert re.fullmatch(r"error: children.batch_size is 64, of .* fit.*\n", error)


def test_a_machine_and_images_that_are_not_here(capsys):
    argv = ("--plan", "--config.task.name=images/nowhere", *SPACE, "--plan_price=3")
    argv = (*argv, "--plan_images=120000x24x24x3x10", "--plan_on=16xv5e")
    found, error = said(capsys, *argv)
    assert error == ""
    # A fifth to test, and a fifth of the others to validate.
    assert "76,800 to train, 19,200 to validate, 24,000 to test, 24x24x3" in found["images"]
    assert found["devices"] == "devices: 16 x 16xv5e, 15 GiB each"
    assert "8 children leave 8 devices without work" in found["warning"]
    assert "197 TFLOPS" in found["peak"] and "docs.cloud.google.com" in found["peak"]
    rows = [found[f"time at {share}% of peak, assumed"] for share in (10, 20, 40)]
    money = [float(re.search(r"([\d,]+) dollars", row)[1].replace(",", "")) for row in rows]
    assert money == sorted(money, reverse=True)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--plan", "--config.task.name=tabular/macro"], "--plan is for searches on images"),
        (["--plan_on=8xh100", "--config.seed=1", "--workdir=w"], "are for --plan"),
        ([*DIGITS, "--plan_price=2"], "--plan_price is the price of a device of --plan_on"),
        ([*DIGITS, "--plan_on=8xnothing"], "--plan_on is '8xnothing'"),
        ([*DIGITS, "--plan_images=9x9"], r"it is NUMBER\[\+TEST\]xHEIGHTxWIDTHxCHANNELS"),
        ([*DIGITS, "--plan_images=20x8x8x1x10"], "too few for three parts of 10"),
        ([*DIGITS, "--plan_on=8xh100", "--config.search.plan=auto"], "needs|need search.plan=none"),
    ],
)
def test_what_cannot_be_planned_is_refused(capsys, argv, sentence):
    found, error = said(capsys, *argv, code=2)
    assert re.search(sentence, error) and error.startswith("error: ") and not found


def test_stated_images_take_no_memory():
    from fnas_jax.core.config import default
    from fnas_jax.planning import dry_run

    whole = dry_run.stated(default(), "1,281,167x224x224x3x1000")
    assert whole.train_images.nbytes > 10**11 and whole.train_images.strides == (0, 0, 0, 0)
    assert whole.num_classes == 1000 and set(whole.val_labels[:3]) == {0, 1, 2}
    brought = dry_run.stated(default(), "60000+10000x28x28x1x10")
    assert [len(x) for x in (brought.train_labels, brought.val_labels, brought.test_labels)] == [
        48000,
        12000,
        10000,
    ]
