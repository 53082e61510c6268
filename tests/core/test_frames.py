import jax
import pytest

from fnas_jax.core import frames
from fnas_jax.spaces import categorical
from fnas_jax.tasks import delimited


def raised(function, *arguments):
    with pytest.raises(Exception) as found:
        function(*arguments)
    frames.ask_to_report(found.value)
    return getattr(found.value, "__notes__", [])


def by_the_package(monkeypatch):
    """An exception whose last frames are the package's, without a file of the user's."""
    monkeypatch.setattr(frames, "where", lambda error: "")


def test_a_bug_is_asked_to_be_reported(monkeypatch):
    by_the_package(monkeypatch)
    (note,) = raised(delimited.number, "x")
    assert "report it" in note


def test_what_own_code_raises_is_not():
    (note,) = raised(categorical.choices, {"a": 3 and (x for x in ())})
    assert f"{__file__}:" in note and "report" not in note


@pytest.mark.parametrize("error", [OSError(28, "No space left"), MemoryError()], ids=repr)
def test_what_the_system_refuses_is_no_bug(error, monkeypatch):
    by_the_package(monkeypatch)
    frames.ask_to_report(error)
    assert not hasattr(error, "__notes__")


def test_a_damaged_program_may_be_the_reason(monkeypatch):
    by_the_package(monkeypatch)
    error = jax.errors.JaxRuntimeError("INTERNAL: ..")
    frames.ask_to_report(error)
    folder = jax.config.jax_compilation_cache_dir  # that of tests
    assert (
        error.__notes__[1]
        == f"If it is gone once {folder} is deleted, a compiled program was damaged."
    )
