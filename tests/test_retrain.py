"""What `retrain` asks of a task: which network is compared, trained, tested and written down."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from fnas_jax import export, registry, retrain
from fnas_jax.core.config import default, flatten
from fnas_jax.core.logging import write_json
from fnas_jax.core.types import UserError
from fnas_jax.results import Result
from fnas_jax.spaces import categorical
from fnas_jax.tasks.base import Evaluator, Judged, Task

SPACE = categorical.make((4, 4))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The workdir of a finished search that has measured four networks, without its store."""
    config = default()
    config.space.name, config.jax.cache_dir = "macro", ""
    write_json(tmp_path / "config.json", config.to_dict())
    tried = [
        {"arch": [1, i], "trained": True, "ok": True, "accuracy": r, "reward": r, "stopped": None}
        for i, r in enumerate((0.5, 0.9, 0.7, 0.8))
    ]
    best = {"arch": [1, 1], "description": {"text": "b"}, "accuracy": 0.9, "reward": 0.9}
    front = [{"arch": [1, i], "text": text, "accuracy": 0} for i, text in ((1, "b"), (2, "c"))]
    done = {"winner": None, "counts": {"trained": 4, "failed": 0}, "seconds": {"total": 1.0}}
    write_json(tmp_path / "result.json", done | {"best": best, "finalists": [], "pareto": front})
    monkeypatch.setattr(retrain.trials, "read", lambda path: tried)
    return tmp_path


class Fake:
    """A task whose full trainings give the accuracies of a table."""

    def __init__(self, accuracy, final=0.25):
        self.final = final
        self.accuracy, self.compared, self.tested, self.configs = accuracy, [], [], []

    def facts(self, arch):
        costs = dict.fromkeys(("mflops", "params_m", "latency_ms"), 1.0)
        return {"accuracy": self.accuracy[tuple(arch)], "seconds": 1.0, **costs}

    def build(self, config):
        self.configs.append(flatten(config))

        def compare(archs, key, say):
            self.compared.append((archs.tolist(), key))
            return [self.facts(arch) for arch in archs.tolist()]

        def final(arch, key):
            self.tested.append((np.asarray(arch).tolist(), key))
            return Judged({"accuracy": self.final, "steps": config.winner.steps})

        evaluator = Evaluator(None, None, False)
        dataset = SimpleNamespace(notes=())  # images, of which only what to say is asked
        return Task("fake", SPACE, evaluator, final, compare=compare, dataset=dataset)


def test_of_the_best_that_of_the_highest_accuracy_on_validation_images_is_tested(folder, capsys):
    fake = Fake({(1, 1): 0.6, (1, 3): 0.8, (1, 2): 0.7})
    options = ["--config.winner.mixup=0.3", "--config.winner.reference=False"]
    found = retrain.retrain(folder, options, top=3, build=fake.build)
    ((archs, key),) = fake.compared
    assert archs == [[1, 1], [1, 3], [1, 2]]  # by the search's rewards
    # One network is tested, by the key of every final training.
    assert [arch for arch, _ in fake.tested] == [[1, 3]] and (fake.tested[0][1] == key).all()
    assert found["arch"] == [1, 3] and found["top"] == 3 and found["winner"]["accuracy"] == 0.25
    assert [entry["chosen"] for entry in found["compared"]] == [False, True, False]
    assert [entry["accuracy"] for entry in found["compared"]] == [0.6, 0.8, 0.7]
    assert found == json.loads((folder / "retrain.json").read_text())
    assert found["changed"] == options and fake.configs[0]["winner.mixup"] == 0.3
    printed = retrain.summary(found, folder)
    assert "80.00%" in printed and "accuracy 25.00%" in printed and "validation images" in printed


@pytest.mark.parametrize("arch", [[1, 4], [-1, 0], [1], [1, 1, 1], [10**12, 0]])
def test_an_architecture_that_the_space_has_not_is_told(folder, arch):
    result = json.loads((folder / "result.json").read_text())
    result["best"]["arch"] = arch
    write_json(folder / "result.json", result)
    fake = Fake({})
    with pytest.raises(UserError, match=r"is damaged: .* 2 decisions of 4, 4 choices"):
        retrain.retrain(folder, build=fake.build)
    assert fake.tested == [] and not (folder / "retrain.json").exists()


@pytest.mark.parametrize("arch", ["ab", None, [1.5, 0], [True, 0], {}])
def test_what_is_no_architecture_is_told(folder, arch):
    result = json.loads((folder / "result.json").read_text())
    result["best"]["arch"] = arch
    write_json(folder / "result.json", result)
    with pytest.raises(UserError, match=r"result\.json' is damaged: its 'best'"):
        retrain.retrain(folder, build=Fake({}).build)


def test_without_top_nothing_is_compared(folder):
    fake = Fake({})
    assert retrain.retrain(folder, pick=2, build=fake.build)["arch"] == [1, 2]
    assert retrain.retrain(folder, build=fake.build)["compared"] == []
    assert [arch for arch, _ in fake.tested] == [[1, 2], [1, 1]] and not fake.compared


@pytest.fixture
def grown(folder):
    """(the result of before, the workdir after more of the search): other winner, other front."""
    before = Result(folder)
    content = json.loads((folder / "result.json").read_text())
    best = {"arch": [3, 3], "description": {"text": "n"}, "accuracy": 1.0, "reward": 1.0}
    new = {"arch": [3, 3], "text": "n", "accuracy": 1.0}
    later = content | {"best": best, "pareto": [new, content["pareto"][1]]}
    write_json(folder / "result.json", later)
    return before, folder


def test_a_network_that_was_picked_is_trained_though_its_number_is_another_now(grown):
    before, folder = grown
    before._build = (fake := Fake({})).build
    front = before.pareto
    for pick in (front[1], front[1] | {"pick": 2}, 2):  # as it is, by `Result.pick`, by number
        assert before.retrain(pick=pick)["arch"] == [1, 2]
    assert before.retrained["pick"] == 2
    for gone in (front[0], front[0] | {"pick": 1}, 1, 0):
        with pytest.raises(UserError, match="pick is b, which is neither the winner nor of the fr"):
            before.retrain(pick=gone)
    now = Result(folder)
    now._build = fake.build
    assert now.retrain(pick=now.pareto[0])["pick"] == 1 and now.retrain()["pick"] == 0
    assert [arch for arch, _ in fake.tested] == [[1, 2]] * 3 + [[3, 3]] * 2


def test_what_is_exported_is_compared_with_the_network_that_was_picked(grown):
    before, folder = grown
    kept = SimpleNamespace(arch=[1, 2], description="c")
    export.held(folder, kept, before.pareto[1] | {"pick": 2})
    with pytest.raises(UserError, match="neither the winner nor of the front"):
        export.held(folder, kept, before._network(1))
    with pytest.raises(UserError, match=r"holds c, and not n, .* --pick=1 "):
        export.held(folder, kept, Result(folder).pareto[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pick": {"arch": [1, 1], "text": "b"}, "top": 2}, "pick is b beside top, which is 2"),
        ({"pick": 1, "top": 2}, "pick is 1 beside top, which is 2; give one of the two"),
        ({"top": 1}, "top is 1; it takes 2 networks or more"),
        ({"top": -2}, "top is -2"),
        ({"pick": 3}, "the front has 2 networks: 1 is b; 2 is c"),
        ({"overrides": ["--config.search.budget=9"]}, "search.budget cannot be changed here"),
    ],
)
def test_wrong_input_is_one_sentence_and_nothing_is_written(folder, options, message):
    fake = Fake({})
    with pytest.raises(UserError, match=message):
        retrain.retrain(folder, build=fake.build, **options)
    assert not fake.configs and not (folder / "retrain.json").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps=5", "--config.winner.steps=9"], "winner.steps is given twice, as '9' and '5'"),
        (["--seed=5", "--config.seed", "6"], "seed is given twice, as '6' and '5'"),
        (["--config.winner.ema=0.5", "--config.winner.ema=0.9"], "winner.ema is given twice"),
        (["--config.children.steps=5"], "children.steps changes nothing here: winner.steps"),
        (["--config.winner.finalists=5"], "winner.finalists changes nothing here"),
    ],
)
def test_flags_that_would_be_dropped_are_refused(folder, monkeypatch, capsys, flags, message):
    fake = Fake({})
    monkeypatch.setattr(registry, "build_task", fake.build)
    assert retrain.command([f"--workdir={folder}", *flags]) == 2
    assert message in capsys.readouterr().err and not fake.configs
    assert retrain.command([f"--workdir={folder}", "--steps=5", "--config.winner.steps=5"]) == 0


def test_a_training_that_fails_is_a_failure_and_replaces_nothing(folder, monkeypatch, capsys):
    monkeypatch.setattr(registry, "build_task", Fake({}).build)
    assert retrain.command([f"--workdir={folder}", "--steps=7"]) == 0
    before = (folder / "retrain.json").read_bytes()
    lost = Fake({(1, 1): None, (1, 3): None}, final=None)
    monkeypatch.setattr(registry, "build_task", lost.build)
    capsys.readouterr()
    for flags, reason in (
        (["--steps=8"], "error: the training of the winner failed: its loss is not finite in 8 "),
        (["--top=2"], "error: top: the training of each of the 2 networks failed"),
    ):
        assert retrain.command([f"--workdir={folder}", *flags]) == 1
        captured = capsys.readouterr()
        assert captured.err.splitlines()[-1].startswith(reason) and not captured.out
        assert (folder / "retrain.json").read_bytes() == before
    with pytest.raises(RuntimeError, match="the training of the winner failed"):
        retrain.retrain(folder)


def test_no_steps_are_refused_where_networks_are_trained(folder, monkeypatch, capsys):
    fake = Fake({})
    monkeypatch.setattr(registry, "build_task", fake.build)
    assert retrain.command([f"--workdir={folder}", "--steps=0"]) == 2
    assert "winner.steps is 0, so no network would be trained" in capsys.readouterr().err
    assert not fake.tested and not (folder / "retrain.json").exists()


def test_keys_may_stand_beside_their_values(folder, monkeypatch, capsys):
    fake = Fake({})
    monkeypatch.setattr(registry, "build_task", fake.build)
    argv = [f"--workdir={folder}", "--config.winner.steps", "7", "--config.winner.ema", "0.9"]
    assert retrain.command([*argv, "--noconfig.winner.reference"]) == 0
    config = fake.configs[0]
    assert config["winner.steps"] == 7 and config["winner.ema"] == 0.9
    assert config["winner.reference"] is False
    assert f"written to {folder / 'retrain.json'}" in capsys.readouterr().out


def test_trainings_are_kept_until_all_of_them_are_written_down(folder):
    """The wiring: those that are compared and the last one go on where they were."""
    fake, seen = Fake({(1, 1): 0.6, (1, 3): 0.8}), []

    def build(config):
        task = fake.build(config)

        def kept(function, name):
            def call(*args):
                *given, keep = args
                seen.append((name, int(keep.load(name, "it", np.zeros(1))[0])))
                keep.save(name, "it", 1, np.ones(1))
                if len(seen) == 2:
                    raise RuntimeError("killed")
                return function(*given)

            return call

        final, compare = kept(task.final, "final"), kept(task.compare, "compare")
        return task._replace(final=final, compare=compare, keeps=True)

    with pytest.raises(RuntimeError, match="killed"):
        retrain.retrain(folder, top=2, build=build)
    assert (folder / "training").exists()
    assert retrain.retrain(folder, top=2, build=build)["arch"] == [1, 3]
    assert seen == [("compare", 0), ("final", 0), ("compare", 1), ("final", 1)]
    assert not (folder / "training").exists()
