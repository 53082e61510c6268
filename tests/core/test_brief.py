import pytest
from hypothesis import given
from hypothesis import strategies as st

from fnas_jax.core.brief import MOST, brief
from fnas_jax.core.types import Failed, UserError


@pytest.mark.parametrize("error", [UserError, Failed])
@pytest.mark.parametrize(
    "value",
    ["x" * 5000, "two words " * 500, list(range(2000)), "'\"" * 2500, b"\0" * 5000],
    ids=str,
)
def test_what_is_echoed_is_shortened_and_the_rest_is_not(error, value):
    message = str(error(f"children.lr is {value!r}; it must be a number"))
    assert len(message) <= MOST
    assert message.startswith("children.lr is ") and message.endswith("; it must be a number")
    assert "characters) .." in message


def test_several_values_are_shortened_each_for_itself():
    message = brief(f"'{'a' * 600}' is none of '{'b' * 600}', or c")
    for text in ("aaaa' is none of 'bbbb", "', or c", "602 characters"):
        assert text in message


@given(st.text(max_size=MOST // 2))
def test_what_is_short_is_left_as_it_is(text):
    assert brief(text) == text


@given(st.text(alphabet="ab '\"", max_size=5000))
def test_no_message_is_longer_than_people_read(text):
    assert len(brief(text)) <= MOST
