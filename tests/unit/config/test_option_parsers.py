"""The parser of declarations: types, nearest option, and all mistakes at once."""

from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest

from django_phi_oidc.config.option_parsers import (
    checked,
    list_unknown_options,
    parse_choices,
    parse_declaration,
    parse_duration,
    parse_option,
    parse_strings,
)
from django_phi_oidc.errors import DeclarationInvalid


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: Annotated[int, checked(lambda path, value: value, lambda value: type(value) is int, "must be a number")] = 1


@dataclass(frozen=True, kw_only=True)
class Declaration:
    name: str
    text: str
    flag: bool = False
    color: Literal["red", "blue"] = "red"
    delay: timedelta = timedelta(seconds=1)
    short_delay: Annotated[timedelta, partial(parse_duration, maximum=timedelta(minutes=1))] = timedelta(seconds=1)
    names: tuple[str, ...] = ()
    folder: Path | None = None
    inner: Inner = Inner()


def parse(raw: Any) -> Declaration:
    return parse_declaration(Declaration, "THINGS['a']", raw, name="a")


VALID: list[tuple[str, Any, Any]] = [
    ("text", "t", "t"),
    ("flag", True, True),
    ("color", "blue", "blue"),
    ("delay", 90, timedelta(seconds=90)),
    ("delay", 0.5, timedelta(milliseconds=500)),
    ("delay", timedelta(days=1), timedelta(days=1)),
    ("short_delay", 60, timedelta(minutes=1)),
    ("names", ["x", "y"], ("x", "y")),
    ("folder", "/srv/a", Path("/srv/a")),
    ("folder", Path("/srv/a"), Path("/srv/a")),
    ("folder", None, None),
    ("inner", {"size": 2}, Inner(size=2)),
    ("inner", {}, Inner()),
]
INVALID: list[tuple[str, Any, str]] = [
    ("text", 5, "['text'] must be a string."),
    ("flag", 1, "['flag'] must be True or False."),
    ("color", "green", "['color'] must be one of red, blue."),
    ("color", ["red"], "['color'] must be one of red, blue."),
    ("delay", 0, "['delay'] must be a positive timedelta or number of seconds."),
    ("delay", -1, "['delay'] must be a positive timedelta or number of seconds."),
    ("delay", True, "['delay'] must be a positive timedelta or number of seconds."),
    ("delay", "90", "['delay'] must be a positive timedelta or number of seconds."),
    ("delay", float("nan"), "['delay'] must be a positive timedelta or number of seconds."),
    ("delay", float("inf"), "['delay'] must be a positive timedelta or number of seconds."),
    ("short_delay", 61, "['short_delay'] must be a positive timedelta or number of seconds, to 0:01:00."),
    ("names", "x", "['names'] must be a list of strings."),
    ("names", [""], "['names'] must be a list of strings."),
    ("names", [1], "['names'] must be a list of strings."),
    ("folder", "srv", "['folder'] must be an absolute path."),
    ("folder", 5, "['folder'] must be an absolute path."),
    ("inner", {"size": "2"}, "['inner']['size'] must be a number."),
    ("inner", {"sise": 2}, "['inner']: no option sise; did you mean size?"),
    ("inner", [], "['inner'] must be a dictionary."),
    ("name", "b", ": no option name; did you mean names?"),
]


@pytest.mark.parametrize(("option", "value", "parsed"), VALID)
def test_valid_value_is_parsed_by_the_type_of_its_field(option: str, value: Any, parsed: Any) -> None:
    assert getattr(parse({"text": "", option: value}), option) == parsed


@pytest.mark.parametrize(("option", "value", "message"), INVALID)
def test_invalid_value_is_refused_with_the_path_of_the_option(option: str, value: Any, message: str) -> None:
    with pytest.raises(DeclarationInvalid) as refused:
        parse({"text": "", option: value})
    assert str(refused.value) == f"THINGS['a']{message}"


def test_all_mistakes_are_reported_at_once_and_without_values() -> None:
    with pytest.raises(DeclarationInvalid) as refused:
        parse({"flag": "s3cret", "delay": "s3cret", "inner": {"size": "s3cret", "s3cret": 1}, "colour": "s3cret"})
    assert str(refused.value).split("\n") == [
        "THINGS['a']: no option colour; did you mean color?",
        "THINGS['a'] lacks text.",
        "THINGS['a']['flag'] must be True or False.",
        "THINGS['a']['delay'] must be a positive timedelta or number of seconds.",
        "THINGS['a']['inner']: no option s3cret.",
        "THINGS['a']['inner']['size'] must be a number.",
    ]


def test_mistakes_of_several_options_are_reported_with_those_of_single_ones() -> None:
    with pytest.raises(DeclarationInvalid) as refused:
        parse_declaration(
            Inner, "X", {"other": 1}, list_faults=lambda inner: [f" is {'small' if inner.size < 2 else ''}."]
        )
    assert str(refused.value).split("\n") == ["X: no option other.", "X is small."]


def test_option_is_read_alone_without_the_mistakes_of_others() -> None:
    raw = {"flag": "yes", "delay": 5}
    assert parse_option(Declaration, "", raw, "delay") == timedelta(seconds=5)
    assert parse_option(Declaration, "", raw, "color") == "red"
    with pytest.raises(DeclarationInvalid, match=r"^flag must be"):
        parse_option(Declaration, "", raw, "flag")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("CLIAMS", "no option CLIAMS; did you mean CLAIMS?"),
        ("claims", "no option claims; did you mean CLAIMS?"),
        ("WEATHER", "no option WEATHER."),
        ("a\nb", "no option a\\nb."),
        (5, "no option 5."),
        ("x" * 100, f"no option {'x' * 65}."),
    ],
)
def test_unknown_option_names_the_nearest_known_one(name: Any, message: str) -> None:
    assert list_unknown_options("", {name: 1}, ["CLAIMS", "PROVIDERS"]) == [message]


def test_choices_are_a_list_and_each_is_kept_once() -> None:
    assert parse_choices("X", ["b", "a", "b"], choices="ab") == ("b", "a")
    for wrong in ("a", ["c"], [["a"]], None):
        with pytest.raises(DeclarationInvalid, match="X must be a list of: a, b"):
            parse_choices("X", wrong, choices=("a", "b"))
    with pytest.raises(DeclarationInvalid):
        parse_strings("X", {"a": 1})
