"""Tables of architectures and of latencies: a table or one sentence, whatever the files hold."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax import importing, registry
from fnas_jax.core import config as config_lib
from fnas_jax.spaces import macro
from fnas_jax.tasks import tables
from fnas_jax.tasks.plain_table import Asked
from fnas_jax.timing import table as latencies
from tests.fuzz import damage

ROW = {"test_acc": [90.0, 91.5, "92"], "mean_acc": 91.0, "params": 2e6, "flops": 5e7}
MACRO = ({"00000000": ROW, "22212220": ROW}, {"00000000": ROW})
CELL = b"|none~0|+|none~0|none~1|+|none~0|none~1|none~2|"
NATS = (
    b"architecture,cifar10_test_accuracy,cifar100_test_accuracy\n" + CELL + b",90.5,70.1\n",
    b"architecture,cifar10_test_accuracy,cifar10_train_seconds\n" + CELL + b",90.5,1500\n",
)
PLAIN = (
    b"decision_0,decision_1,accuracy,mflops\n0,1,0.5,10\n1,0,0.25,20\n2,2,nan,-1\n",
    b"depth;width;loss;latency_ms\n1;0,5;1,25;3\n2;0,25;0,5;4\n",
    "a\tb\taccuracy\nx\t1\t50%\ny\t2\t25 %\n".encode("utf-16"),
    b"a,b,accuracy\n" + b"1" * 400 + b",2,0.5\n" + b"1" * 5000 + b",2,0.5\n",
    b"decision_0,accuracy\n" + b"9" * 5000 + b",1e400\n",
    b"decision_0,accuracy,train_seconds\n0,0.5,10\n1,0.25,2e3\n2,nan,1e-3\n",
)
IMPORTED = (
    b"text,trained,ok,accuracy,mflops\n00000000,True,True,0.5,10\n22212220,True,False,,-1\n",
    (",".join(macro.make().names) + ",loss\n" + "0," * 8 + "0.5\n").encode(),
)
ASKED = (
    Asked(),
    Asked(time="train_seconds"),
    Asked("loss", "minimize", ("depth", "width")),
    Asked(decisions=("a", "b")),
)


@given(damage.odd_json(*MACRO))
def test_macro(content):
    with damage.folder({tables.FILES["macro"]: content}) as root:
        sound(damage.read(tables.load, "macro", root))


@given(damage.damaged(NATS), st.sampled_from(["nats_cifar10", "nats_cifar100"]))
def test_nats(content, name):
    with damage.folder({tables.FILES[name]: content}) as root:
        sound(damage.read(tables.load, name, root))


@given(damage.damaged(PLAIN), st.sampled_from(ASKED))
def test_plain(content, asked):
    with damage.folder({"a.csv": content}) as root:
        sound(damage.read(tables.load, "a.csv", root, asked))


@given(st.text(alphabet='0123456789,;\t|."\n\r -+eE%ab_', max_size=200), st.sampled_from(ASKED))
def test_plain_of_any_text(text, asked):
    content = b"decision_0,accuracy\n" + text.encode()
    with damage.folder({"a.csv": content}) as root:
        sound(damage.read(tables.load, "a.csv", root, asked))


@given(damage.damaged(IMPORTED))
def test_earlier_results(content):
    """In the space of macro, by columns and as texts; rows of a history can be made of them."""
    space = registry.SPACES["macro"](config_lib.default().space)
    with damage.folder({"a.csv": content}) as root:
        found = damage.read(importing.read, root / "a.csv", Asked(), space, "")
        if isinstance(found, importing.Earlier):
            assert len(importing.rows(found)) == len(found.archs) > 0
            assert (found.archs >= 0).all() and (found.archs < space.cardinalities).all()


def sound(found):
    """What holds for every table that is read."""
    if not isinstance(found, tables.Table):
        return
    assert len(found.archs) == len(found.judged) > 0
    assert (found.archs >= 0).all() and (found.archs < found.space.cardinalities).all()
    assert not np.isinf(found.judged).any()
    if found.seconds is not None:
        assert (found.seconds > 0).all() and np.isfinite(found.seconds.sum())
    for cost in (found.latency_ms, found.mflops, found.params_m):
        assert ((cost > 0) & np.isfinite(cost) | np.isnan(cost)).all()


LATENCIES = {
    "format": latencies.FORMAT,
    "space": {"name": "mnas", "key": "0"},
    "image": [8, 8, 1],
    "classes": 10,
    "batch_size": 1,
    "device": "cpu",
    "versions": {"jax": "0.7"},
    "fixed_ms": 0.5,
    "operations_ms": {"a": 0.1, "b": 0.2},
    "made": {},
    "validation": {},
}


@given(damage.odd_json(LATENCIES))
def test_latencies(content):
    with damage.folder({"a.json": content}) as root:
        found = damage.read(latencies.read, str(root / "a.json"))
        if isinstance(found, latencies.Table):
            assert json.dumps(found.digest)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flops": 10**400}, "flops is 1000"),
        ({"flops": float("inf")}, "flops is inf"),
        ({"flops": -1}, "flops is -1"),
        ({"flops": 1e-150}, "flops is 1e-150"),
        ({"params": float("nan")}, "params is nan"),
        ({"mean_acc": 10**400}, "accuracy 1000"),
    ],
    ids=lambda x: str(x)[:20],
)
def test_numbers_that_are_no_costs_are_told_with_their_line(tmp_path, change, message):
    (tmp_path / tables.FILES["macro"]).write_text(json.dumps({"00000000": ROW | change}))
    with pytest.raises(tables.UserError, match=message) as error:
        tables.load("macro", tmp_path)
    assert "line 1" in str(error.value)
