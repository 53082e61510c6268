"""The file of a table: what is written is read, what does not fit is refused in one sentence."""

import json

import pytest

from fnas_jax.core.types import UserError
from fnas_jax.spaces import cell, macro
from fnas_jax.timing import table as tables

SPACE, IMAGE, CLASSES, BATCH = cell.make(channels=4, cells_per_stage=1), (8, 8, 1), 10, 1


def made(**changes):
    found = tables.Table(
        **tables.here(SPACE, IMAGE, CLASSES, BATCH),
        fixed_ms=0.25,
        operations_ms={"a": 0.1, "b": 0.0},
        made={"networks": 2},
        validation={"networks": 2, "median_error": 0.05},
    )
    return found._replace(**changes)


def check(found):
    tables.check(found, "t.json", SPACE, IMAGE, CLASSES, BATCH)


def test_what_is_written_is_read(tmp_path):
    tables.write(tmp_path / "new" / "t.json", made())
    found = tables.read(str(tmp_path / "new" / "t.json"))
    assert found == made() and found.digest == made().digest
    assert "cpu" in found.device and found.versions["platform"] == "cpu"
    check(found)


def test_its_digest_is_of_what_predictions_depend_on():
    same, others = made(validation={}), [made(fixed_ms=0.3), made(operations_ms={"a": 0.2})]
    assert same.digest == made().digest
    assert len({found.digest for found in (made(), *others, made(device="another"))}) == 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"space": {"name": "macro", "key": macro.make().key}}, "is for another space, macro"),
        ({"image": (8, 9, 1)}, r"other images of height, .*: \(8, 9, 1\); here \(8, 8, 1\)"),
        ({"classes": 3}, "for other classes, in number: 3; here 10"),
        ({"batch_size": 8}, r"latency.batch_size\): 8; here 1"),
    ],
)
def test_a_table_for_something_else_is_refused(changes, message):
    with pytest.raises(UserError, match=message):
        check(made(**changes))


def test_another_version_of_jax_is_said(caplog):
    check(made(versions={"jax": "0.1"}))
    assert "was made with JAX 0.1" in caplog.text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "no table of latencies"),
        ('{"format": 99}', "of format 99; fnas-jax latency"),
        ('{"format": 1}', r"a table of format 1; .* writes one of format 2"),
        ('{"format": 2}', "is damaged: KeyError"),
        ({"operations_ms": {"a": -1.0}}, r"damaged: \[-1.0\]"),
        ({"operations_ms": {"a": "x"}}, "is damaged: ValueError"),
        ({"image": [8, 8]}, "is damaged"),
        ({"operations_ms": [1]}, "is damaged: AttributeError"),
        ({"versions": []}, r"is damaged: TypeError\('versions is \[\]'\)"),
    ],
)
def test_a_damaged_file_is_one_sentence(content, message, tmp_path):
    path = tmp_path / "t.json"
    if isinstance(content, dict):
        tables.write(path, made())
        content = json.dumps(json.loads(path.read_text()) | content)
    path.write_text(content)
    with pytest.raises(UserError, match=message):
        tables.read(str(path))


def test_a_missing_file_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match=r"none.json' cannot be read: No such file"):
        tables.read(str(tmp_path / "none.json"))


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    (tmp_path / "file").write_text("")
    for use in (tables.try_out, lambda path: tables.write(path, made())):
        with pytest.raises(UserError, match="cannot be written"):
            use(tmp_path / "file" / "t.json")
    tables.try_out(tmp_path / "new" / "t.json")
    assert not list((tmp_path / "new").iterdir())
