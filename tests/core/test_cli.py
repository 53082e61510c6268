import errno
import io
import logging
import os
import re
import signal
import subprocess
import sys

import pytest
from absl import flags

from fnas_jax.core import cli, signals
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
    with pytest.raises(cli.Help) as text:
        parse("--help")
    assert "usage text" in str(text.value)
    assert "--workdir" in str(text.value)
    assert all(f"--config.{name}=" in str(text.value) for name in config_lib.all_keys())


def fail(error):
    raise error


@pytest.mark.parametrize(
    ("error", "code", "shown"),
    [
        (UserError("two\nlines"), 2, "error: two lines\n"),
        (KeyboardInterrupt(), 130, "stopped by Ctrl-C; the same command begins again\n"),
        (signals.Stop(15), 143, "stopped by SIGTERM; the same command begins again\n"),
        (
            OSError(errno.ENOSPC, "as the system has it", "w/x"),
            1,
            "error: the disk of 'w/x' is full; the same command goes on once there is room\n",
        ),
    ],
)
def test_exit_codes(error, code, shown, capsys):
    assert cli.run_command(lambda: fail(error)) == code
    assert capsys.readouterr().err == shown


def test_an_error_that_libraries_make_of_a_signal_is_of_the_signal(capsys):
    def body():
        try:
            signal.raise_signal(signal.SIGTERM)
        except KeyboardInterrupt:
            raise RuntimeError("what a library makes of it") from None

    assert cli.run_command(body, signals.GOES_ON) == 143
    said = "stopped by SIGTERM; the same command goes on from here\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("error", [ZeroDivisionError("a bug"), BrokenPipeError("a bug")])
def test_a_bug_before_the_place_where_a_signal_stops_keeps_its_traceback(error, capsys):
    def body():
        with signals.deferred():
            signal.raise_signal(signal.SIGTERM)
            fail(error)

    assert cli.run_command(body, signals.GOES_ON) == 143
    first, *_, bug, last = capsys.readouterr().err.splitlines()
    assert first.startswith("Traceback") and bug == f"{type(error).__name__}: a bug"
    assert last == (
        "stopped by SIGTERM; it failed as above, and the same command goes on from the last"
        " checkpoint"
    )


def test_ctrl_c_that_ends_the_reader_of_the_output_loses_nothing(tmp_path):
    """As with `2>&1 | tee log`: what is told on the way to the checkpoint is read by nobody."""
    code = """
import logging, pathlib, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
from fnas_jax.core import cli, signals
from fnas_jax.core.progress import Progress
def body():
    with signals.deferred():
        progress = Progress(2, 0, "search")
        print("ready", flush=True)
        while not signals.asked():
            time.sleep(0.01)
        progress.show(1, "best 0.5")
        logging.getLogger("fnas_jax").warning("something")
        pathlib.Path(sys.argv[1]).write_text("kept")
        signals.check()
signals.leave(cli.run_command(body, signals.GOES_ON))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "checkpoint")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout.readline() == b"ready\n"
    process.stdout.close()
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130
    assert (tmp_path / "checkpoint").read_text() == "kept"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no device that is always full")
def test_output_to_a_full_disk_is_one_sentence():
    code = "import sys; from fnas_jax.core import cli; sys.exit(cli.run_command(lambda: print(1)))"
    with open("/dev/full", "w") as full:
        found = subprocess.run(
            [sys.executable, "-c", code],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            env={name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"},
        )
    expected = "error: the disk of 'standard output' is full; the same command goes on once there"
    assert (found.returncode, found.stderr) == (1, f"{expected} is room\n")


def test_success_and_help_exit_with_0(capsys):
    assert cli.run_command(lambda: None) == 0
    assert cli.run_command(lambda: fail(cli.Help("text"))) == 0
    assert capsys.readouterr() == ("text\n", "")


def test_a_bug_keeps_its_traceback(monkeypatch):
    monkeypatch.setattr(cli.frames, "where", lambda error: "")  # this file is no user's
    with pytest.raises(ZeroDivisionError) as bug:
        cli.run_command(lambda: 1 / 0)
    assert "report it" in bug.value.__notes__[0]


def test_a_reader_that_goes_away_is_no_error(tmp_path):
    code = """
import sys
from fnas_jax.core import cli, signals
def body():
    raise cli.Help("line\\n" * 100000)
sys.exit(cli.run_command(body))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.readline()
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 1


def test_warnings_reach_the_terminal_of_every_command(capsys, monkeypatch):
    """Of one after another in a process whose stderr has been replaced in between."""
    log = logging.getLogger("fnas_jax")
    assert cli.run_command(lambda: log.warning("first")) == 0
    assert "warning: first" in capsys.readouterr().err
    stream = io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    assert cli.run_command(lambda: log.warning("second")) == 0
    assert stream.getvalue() == "warning: second\n"


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
