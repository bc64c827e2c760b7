"""The reference tells the defaults that the code has."""

import re
from dataclasses import MISSING, Field, fields
from datetime import timedelta
from typing import Any

import pytest

from django_phi_oidc.api_rules import APIDeclaration
from django_phi_oidc.declarations import ProviderDeclaration
from django_phi_oidc.delivery.declaration import SinkDeclaration
from django_phi_oidc.role_rules import RoleRule
from tests.manual.blocks import PAGES

PAGE = PAGES["settings"].read_text()
SECTIONS = {
    "A provider": ProviderDeclaration,
    "A rule of ROLES": RoleRule,
    "An API": APIDeclaration,
    "A sink": SinkDeclaration,
}
# The key under which each is declared.
NAMES = {"name", "provider"}
NOTHING = ("none", "not sent", "not set", "required", "system", "the name", "what fits", "`host` required")
UNITS = {"s": 1, "minutes": 60, "h": 3600}


def cells(heading: str) -> dict[str, str]:
    """Return the last column of that section's table, by each name of the first."""
    section = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {name: row[-1].strip() for row in rows for name in re.findall(r"`(\w+)`", row[0])}


def says(cell: str, default: Any) -> bool:
    match default:
        case bool():
            return cell == ("True" if default else "off")
        case timedelta():
            number, unit = cell.split()
            return default == timedelta(seconds=int(number) * UNITS[unit])
        case int():
            return cell.endswith(str(default))
        case str() if default:
            return cell == f"`{default}`"
        case tuple() if default:
            return cell == ", ".join(default)
        case _:
            return cell.startswith(NOTHING)


def default_of(field: "Field[Any]") -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


@pytest.mark.parametrize("heading", SECTIONS)
def test_each_default_is_that_of_the_code(heading: str) -> None:
    told = cells(heading)
    options = [field for field in fields(SECTIONS[heading]) if field.name not in NAMES]
    assert told.keys() == {field.name for field in options}
    for field in options:
        if field.default is MISSING and field.default_factory is MISSING:
            assert told[field.name].startswith("required"), field.name
        else:
            assert says(told[field.name], default_of(field)), field.name
            assert not says(told[field.name], "another"), field.name
