"""Settings are formatted as Python that evaluates to them."""

from typing import Any

import pytest

from django_phi_oidc.contrib.adoption.python_source import (
    LINE_LENGTH,
    UNPACKED,
    Call,
    EnvironmentVariable,
    format_python,
)

DEEP = {"a": {"issuer": "https://op.example/" + "x" * 90, "scopes": {"read": {"purpose": "TREAT", "basis": "why"}}}}


@pytest.mark.parametrize(
    "value",
    [
        "plain",
        "quotes \" and \\ and '",
        "ümlaut and 日本語",
        "escape \x1b[31m and \x9b and \x00",
        7,
        True,
        None,
        ["a", "b"],
        {},
        {"a": 1, "b": None},
        DEEP,
        {"a": {"b": {"c": "d"}}},
    ],
    ids=ascii,
)
def test_formatted_value_evaluates_to_the_value(value: Any) -> None:
    assert eval(format_python(value)) == value


def test_control_characters_are_escaped_and_other_texts_are_not() -> None:
    assert "\x1b" not in format_python("a\x1bb")
    assert "\x9b" not in format_python("a\x9bb")
    assert format_python("ü") == '"ü"'


def test_environment_variable_is_a_reference() -> None:
    assert format_python({"secret": EnvironmentVariable("SECRET")}) == '{"secret": read_variable("SECRET")}'


def test_result_of_a_call_is_unpacked() -> None:
    assert format_python({UNPACKED: Call("f()"), "a": 1}) == '{**f(), "a": 1}'


def test_dictionary_is_on_one_line_only_if_it_fits() -> None:
    fitting = {"a": "x" * (LINE_LENGTH - 9 - 1)}
    assert "\n" not in format_python(fitting)
    assert len(format_python(fitting)) == LINE_LENGTH - 1
    assert format_python({"a": fitting["a"] + "x"}).count("\n") == 2
    assert all(len(line) <= LINE_LENGTH for line in format_python(DEEP).splitlines() if "issuer" not in line)
