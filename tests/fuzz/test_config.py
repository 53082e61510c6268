"""Configuration keys from command lines and from Python: a configuration or one sentence."""

import ml_collections
import pytest
from absl import flags
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core import cli, exits
from fnas_jax.core import config as config_lib
from tests.fuzz import damage

KEYS = sorted(config_lib.all_keys())
keys = st.sampled_from(KEYS)
names = st.one_of(keys, st.text(max_size=12), keys.map("{}x".format))
numbers = st.one_of(st.integers(), st.floats()).map(str)
texts = st.one_of(
    numbers,
    st.text(max_size=12),
    st.sampled_from(
        ["", "()", "(", "(1,", "(1, 2)", "['a']", "None", "True", "1_0", "1e400", "{}", "@x", "%"]
    ),
    st.sampled_from(["9" * 5000, "(" * 500, "x" * 5000, "-" * 3000, "__import__('os')"]),
)
arguments = st.one_of(
    st.builds("--config.{}={}".format, names, texts),
    st.builds("-config.{}={}".format, names, texts),
    st.builds("--noconfig.{}".format, names),
    st.builds("--config.{}".format, names),
    st.builds("--{}={}".format, st.sampled_from(["workdir", "x", "", "config"]), texts),
    texts,
)
values = st.one_of(
    damage.ODD,
    st.tuples(st.integers(), st.floats()),
    st.sampled_from([object(), b"x", 1 + 2j, float, range(3), {1}]),
)


@pytest.fixture(scope="module", autouse=True)
def no_yaml():
    """Flags write their default as YAML twice a command line, most of the time of a case."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ml_collections.ConfigDict, "__str__", lambda self: "config")
        yield


def define(found):
    flags.DEFINE_string("workdir", "", "where to", flag_values=found)


def parsed(given_):
    try:
        return cli.parse_config(given_, define, "usage")
    except exits.Help as text:
        return text


@given(st.lists(arguments, max_size=4))
def test_command_lines(given_):
    found = damage.read(parsed, given_)
    if isinstance(found, tuple):
        config_lib.validate(found[0])  # again: it is sound


@given(st.lists(arguments, max_size=3))
def test_overrides(given_):
    overrides = [a for a in given_ if a.startswith("--config.") and "=" in a]
    damage.read(cli.override, config_lib.default(), overrides, ["search.", "children."])


@given(st.dictionaries(names, values, max_size=3))
def test_values_in_python(changes):
    def changed():
        flat = config_lib.flatten(config_lib.default())
        return config_lib.validate(config_lib.nest(flat | config_lib.collect(changes)))

    damage.read(changed)
