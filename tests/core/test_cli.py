import re

import pytest
from absl import flags

from fnas_jax.core import cli, exits
from fnas_jax.core import config as config_lib
from fnas_jax.core.types import UserError


def define(values):
    flags.DEFINE_string("workdir", "", "where to", flag_values=values)


def parse(*argv):
    return cli.parse_config(argv, define, "usage text")


@pytest.fixture
def config_file(tmp_path):
    def write(body):
        path = tmp_path / "config.py"
        path.write_text(
            "from fnas_jax.core.config import default\n\n\n"
            f"def get_config():\n    config = default()\n    {body}\n    return config\n"
        )
        return str(path)

    return write


def test_overrides_take_the_type_of_the_default(config_file):
    config, values = parse(
        "--workdir=w",
        f"--config={config_file('config.search.budget = 5')}",
        "--config.children.lr=1",
        "--config.task.noisy=false",
        "--config.space.strides=(1, 2)",
        "--config.method.name",
        "random",
    )
    assert values.workdir == "w"
    assert config.search.budget == 5
    assert config.children.lr == 1.0
    assert config.task.noisy is False
    assert config.space.strides == (1, 2)
    assert config.method.name == "random"


def test_the_command_line_beats_the_file_wherever_it_stands(config_file):
    path = config_file("config.search.budget = 5")
    for argv in (("--config.search.budget=7", f"--config={path}"), (f"--config={path}",)):
        config, _ = parse(*argv)
        assert config.search.budget == (7 if len(argv) == 2 else 5)
    assert parse("--config", path)[0].search.budget == 5


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["--config.search.budgt=1"],
            "unknown config key 'search.budgt'; did you mean",
        ),
        (["--config.search=1"], "unknown config key 'search'; search has budget, max_proposals"),
        (["--config.search.budget=x"], "search.budget is 'x'; it must be a whole number"),
        (["--config.search.budget=0"], "search.budget is 0; allowed is 1 to 10000000"),
        (["--config.task.noisy=perhaps"], "task.noisy is 'perhaps'; it must be true or false"),
        (["--config=nowhere.py"], "config file 'nowhere.py' does not exist"),
        (["--config"], "--config needs the name of a file"),
        (["--workdri=x"], "workdri"),
        (["extra"], "unexpected argument 'extra'"),
    ],
)
def test_wrong_flags_are_told_in_one_sentence(argv, message):
    with pytest.raises(UserError) as error:
        parse(*argv)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_keys_are_told_from_flags_however_they_are_written():
    argv = [
        "--workdir=w",
        "--config.children.lr=0.1",
        "--config.winner.steps",
        "7",
        "--config.winner.smoothing",
        "-1",
        "--config.task.augment.flip",
        "--config.task.noisy",
        "False",
        "--noconfig.winner.reference",
        "-config.task.name=a=b",
        "--steps",
        "3",
    ]
    found, rest = cli.split_overrides(argv)
    assert rest == ["--workdir=w", "--steps", "3"]
    assert found == [
        "--config.children.lr=0.1",
        "--config.winner.steps=7",
        "--config.winner.smoothing=-1",
        "--config.task.augment.flip=True",
        "--config.task.noisy=False",
        "--config.winner.reference=False",
        "--config.task.name=a=b",
    ]
    changed = cli.override(config_lib.default(), found, ("children.", "winner.", "task."))
    assert changed.winner.steps == 7 and changed.task.augment.flip is True
    assert changed.task.noisy is False and changed.winner.reference is False
    for wrong, message in {
        "--config.winner.step": "did you mean 'winner.steps'",
        "--config.winner.steps": r"--config.winner.steps needs a value",
    }.items():
        with pytest.raises(UserError, match=message):
            cli.split_overrides([wrong])


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--noconfig.winner.reference=True", "takes no value, and was given 'True'"),
        ("--noconfig.winner.reference=", "takes no value"),
        ("--noconfig.winner.steps", "--noconfig.winner.steps: only a key that is true or false"),
        ("--noconfig.winner.steps=5", "--noconfig.winner.steps: only a key"),
        ("--noconfig.winner.step", "did you mean 'winner.steps'"),
    ],
)
@pytest.mark.parametrize(
    "read", [cli.split_overrides, lambda argv: parse("--config.seed=1", *argv)]
)
def test_no_is_said_to_what_is_true_or_false_alone(read, argument, message):
    with pytest.raises(UserError, match=re.escape(message)):
        read([argument, "5"])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("config.search.budgt = 3", "line 6: unknown config key 'budgt'; did you mean 'search.b"),
        ("config.serch.budget = 3", "line 6: unknown config key 'serch'; did you mean 'search'?"),
        ("None.x", "line 6: AttributeError: 'NoneType' object has no attribute 'x'"),
        ("config.search.budget = 'x'", "line 6: TypeError: Could not override field 'budget'"),
        ("import absent_package", "line 6: ModuleNotFoundError: No module named 'absent_package'"),
        ("config = (", "line 6: SyntaxError"),
        ("config = 3", "get_config() returned int, not a ConfigDict"),
        ("1 / 0", "line 6: ZeroDivisionError"),
    ],
)
def test_wrong_config_files_are_told_with_their_line(config_file, body, message):
    with pytest.raises(UserError) as error:
        parse(f"--config={config_file(body)}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_renamed_keys_are_refused_with_their_new_name(config_file, monkeypatch):
    new = config_lib.Renamed("search.budget")
    monkeypatch.setattr(config_lib, "RENAMED", {"search.limit": new})
    for argument in (
        "--config.search.limit=3",
        f"--config={config_file('config.search.limit = 3')}",
    ):
        with pytest.raises(UserError, match=r"'search.limit' is now 'search.budget'"):
            parse(argument)


def test_a_config_file_needs_get_config(tmp_path):
    (tmp_path / "empty.py").write_text("")
    with pytest.raises(UserError, match=r"defines no get_config\(\)"):
        parse(f"--config={tmp_path / 'empty.py'}")


def test_help_lists_flags_and_every_key():
    with pytest.raises(exits.Help) as text:
        parse("--help")
    assert "usage text" in str(text.value)
    assert "--workdir" in str(text.value)
    assert all(f"--config.{name}=" in str(text.value) for name in config_lib.all_keys())


def test_the_last_value_of_a_key_counts_for_tuples_too():
    config, _ = parse("--config.space.strides=(1,2)", "--config.space.strides=(1,1)")
    assert config.space.strides == (1, 1)
    config, _ = parse("--config.search.budget=5", "--config.search.budget", "7")
    assert config.search.budget == 7


def test_truth_may_stand_after_its_key():
    assert parse("--config.akp.enabled", "False")[0].akp.enabled is False
    assert parse("--config.akp.enabled", "--config.seed=1")[0].akp.enabled is True


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("op,kernel", ("op", "kernel")),
        ("op", ("op",)),
        ("my op, kernel size", ("my op", "kernel size")),
        ("1,2", ("1", "2")),
        ("('a,b', 'c')", ("a,b", "c")),
        ("", ()),
    ],
)
def test_a_tuple_of_texts_is_names_with_commas_between_them(text, names):
    assert parse(f"--config.task.decisions={text}")[0].task.decisions == names


@pytest.mark.parametrize("key", ["knowledge.dir", "task.data_dir", "task.metric"])
@pytest.mark.parametrize("value", ["None", "null"])
def test_no_folder_is_called_none(key, value):
    with pytest.raises(UserError, match=f"{key} is '{value}', which would be taken for a name"):
        parse(f"--config.{key}={value}")
