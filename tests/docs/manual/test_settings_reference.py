"""The tables of the settings page match the code: `make reference` would change nothing."""

import re
from dataclasses import MISSING, dataclass, field, fields
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest

import django_phi_oidc
from django_phi_oidc.audit.declaration import AuditOptions
from django_phi_oidc.config.claims import ClaimDeclaration
from django_phi_oidc.config.core_options import CoreOptions, SessionsDeclaration
from django_phi_oidc.config.option_grades import LATER, RARE, START_HERE, OptionGrade
from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.config.resource_scopes import ScopeDeclaration
from django_phi_oidc.contrib.siem.declaration import _OPTIONS_BY_TYPE, SinkDeclaration
from tests.docs.manual.settings_reference import (
    NO_OPTIONS,
    TABLE,
    build_rows,
    build_table,
    find_classes,
    format_default,
    read_grades,
    read_texts,
    regenerate,
)
from tests.support.manual_blocks import PAGES

PAGE = PAGES["settings"].read_text()
KINDS = {path: kind for hit in TABLE.finditer(PAGE) for path, kind in find_classes(hit["paths"]).items()}
PACKAGE = Path(django_phi_oidc.__file__).parent


@dataclass(frozen=True, kw_only=True)
class Explained:
    option: str = field(default="", metadata=RARE)
    """It says something | of something. Default: none: it says so."""
    first: bool = field(default=True, metadata=START_HERE)
    """It comes first."""


@dataclass(frozen=True, kw_only=True)
class Unexplained:
    option: str = field(default="", metadata=LATER)
    """It says something."""
    unexplained: str = field(default="", metadata=LATER)


@dataclass(frozen=True, kw_only=True)
class ExplainedTwice:
    option: str = field(default="something", metadata=LATER)
    """It says something. Default: something else."""


@dataclass(frozen=True, kw_only=True)
class Ungraded:
    option: str = field(default="", metadata=LATER)
    """It says something."""
    ungraded: str = ""
    """It says something."""


def test_tables_match_the_code_and_a_stale_one_is_found() -> None:
    assert regenerate(PAGE) == PAGE, "make reference"
    stale = PAGE.replace("| 15 minutes |", "| 16 minutes |")
    assert stale != PAGE
    assert regenerate(stale) == PAGE


def test_every_declaration_has_a_table_and_no_row_is_written_by_hand() -> None:
    source = "".join(path.read_text() for path in PACKAGE.rglob("*declaration.py"))
    for pattern in ("config/*.py", "contrib/common/*.py"):
        source += "".join(path.read_text() for path in PACKAGE.glob(pattern))
    declared = re.findall(r"^class (\w+(?:Declaration|Options))\b", source, re.M)
    # The two options of a scope are in the row of `resource_scopes`; `third_party_login` is True or False.
    without_table = {"ScopeDeclaration", "ThirdPartyLoginDeclaration"}
    assert {kind.__name__ for kind in KINDS.values()} == {*declared, "RoleRule"} - without_table
    assert "\n| " not in TABLE.sub("", PAGE)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS)
def test_text_names_each_choice(kind: type) -> None:
    texts = read_texts(kind)
    choices = {name: get_args(hint) for name, hint in get_type_hints(kind).items() if get_origin(hint) is Literal}
    assert [
        (name, choice) for name, values in choices.items() for choice in values if f"`{choice}`" not in texts[name]
    ] == []
    assert all("`another`" not in texts[name] for name in choices)


@pytest.mark.parametrize("kind", [*KINDS.values(), ScopeDeclaration])
def test_each_option_has_a_grade(kind: type) -> None:
    assert read_grades(kind).keys() == {option.name for option in fields(kind)} - NO_OPTIONS


def test_options_of_the_short_manual_are_those_to_start_with() -> None:
    text = PAGES["short-manual"].read_text()
    kinds = (CoreOptions, SessionsDeclaration, AuditOptions, ProviderDeclaration, ClaimDeclaration)
    grades = {name: grade for kind in kinds for name, grade in read_grades(kind).items()}
    named = set(re.findall(r"[`\"](\w+)[`\"]", text)) & grades.keys()
    assert named >= {"PROVIDERS", "CLAIMS", "KEYS", "AUDIT", "idle_timeout", "SECURITY_CONTACTS"}
    assert {name for name in named if grades[name] is not OptionGrade.START_HERE} == set()


def test_text_of_a_sink_option_names_its_types() -> None:
    texts = read_texts(SinkDeclaration)
    for name in frozenset().union(*_OPTIONS_BY_TYPE.values()):
        types = [kind for kind, options in _OPTIONS_BY_TYPE.items() if name in options]
        assert texts[name].startswith(", ".join(f"`{kind}`" for kind in types) + ":"), name


def test_row_contains_the_text_below_the_field_and_rows_are_ordered_by_grade() -> None:
    assert list(build_rows(Explained)) == [
        "| `first` | start here | It comes first | on |",
        r"| `option` | rare | It says something \| of something | none: it says so |",
    ]


def test_table_of_several_apps_has_a_column_for_the_app() -> None:
    paths = [path for path in KINDS if path.endswith((".SIEMOptions", ".NoticesOptions"))]
    table = list(build_table(", ".join(paths)))
    assert table[0].startswith("| option | app | grade |")
    assert {row.split(" | ")[1] for row in table[1:]} == {"`siem`", "`notices`"}
    assert next(build_table(paths[0])).startswith("| option | grade |")


@pytest.mark.parametrize(
    ("kind", "option"), [(Unexplained, "unexplained"), (ExplainedTwice, "option"), (Ungraded, "ungraded")]
)
def test_option_without_a_meaning_or_a_grade_or_with_two_defaults_is_refused(kind: type, option: str) -> None:
    with pytest.raises(ValueError, match=rf"{kind.__name__}\.{option} "):
        list(build_rows(kind))


@pytest.mark.parametrize(
    ("default", "text"),
    [
        (MISSING, "required"),
        (True, "on"),
        (False, "off"),
        (6514, "6514"),
        ("keep", "`keep`"),
        (("PS256", "ES256"), "`PS256`, `ES256`"),
        (timedelta(minutes=15), "15 minutes"),
        (timedelta(hours=1), "1 hour"),
        (timedelta(days=3), "3 days"),
        (timedelta(seconds=90), "90 seconds"),
        (None, ""),
        ("", ""),
        ((), ""),
        ({}, ""),
    ],
)
def test_default_is_formatted(default: Any, text: str) -> None:
    assert format_default(default) == text
