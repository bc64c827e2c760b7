"""`manage.py phi_oidc groups`: the groups match the page, and a second run changes nothing."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import Group, Permission
from django.core.management import CommandError

from django_phi_oidc._internal.officer_groups import OfficerGroup
from django_phi_oidc.contrib.administrators.subcommands.groups import get_required_permissions
from django_phi_oidc.contrib.role_mapping.declaration import parse_role_rules
from tests.support.person_page_fixtures import make_groups

pytestmark = pytest.mark.django_db
PAGE = (Path(__file__).resolve().parents[5] / "docs" / "how-to" / "admin-groups.md").read_text()


def test_rules_on_the_page_are_valid_and_map_to_these_groups() -> None:
    match = re.search(r"<!-- tested: groups -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    assert match
    declared: dict[str, Any] = {}
    exec(match[1], {"PHI_OIDC": declared})
    rules = parse_role_rules("default", declared["ROLES"]["default"])
    assert [rule.groups for rule in rules] == [(name,) for name in OfficerGroup]
    assert all(rule.is_staff for rule in rules)


def granted(name: str) -> set[str]:
    pairs = Group.objects.get(name=name).permissions.values_list("content_type__app_label", "codename")
    return {f"{app}.{codename}" for app, codename in pairs}


def documented() -> dict[str, set[str]]:
    """Return the permissions of the lists below "Permissions of *GROUP* and *GROUP*:", by group."""
    permissions: dict[str, set[str]] = {str(name): set() for name in OfficerGroup}
    for heading, items in re.findall(r"^Permissions of (.+):\n\n((?:[- ] .+\n)+)", PAGE, re.MULTILINE):
        for name in re.findall(r"\*([^*]+)\*", heading):
            permissions[name] |= set(re.findall(r"^- `([\w.]+)`", items, re.MULTILINE))
    return permissions


def test_groups_have_exactly_the_permissions_on_the_page() -> None:
    make_groups()
    assert (
        documented()
        == {name: granted(name) for name in OfficerGroup}
        == {name: get_required_permissions(name) for name in OfficerGroup}
    )


def test_second_run_changes_nothing_and_reverts_manual_changes() -> None:
    first = [json.loads(line) for line in make_groups("--json").splitlines()]
    assert [(change["group"], change["made"]) for change in first] == [(name, True) for name in OfficerGroup]
    assert make_groups() == "".join(f"{name}: unchanged\n" for name in OfficerGroup)
    desk = Group.objects.get(name="Help desk")
    desk.permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    desk.permissions.remove(Permission.objects.get(codename="end_oidcsession"))
    with pytest.raises(CommandError, match="differ from"):
        make_groups("--check")
    assert "django_phi_oidc.reveal_storedclaim" in granted("Help desk"), "a check changes nothing"
    assert "Help desk: +django_phi_oidc.end_oidcsession, -django_phi_oidc.reveal_storedclaim" in make_groups()
    assert granted("Help desk") == get_required_permissions("Help desk")
    make_groups("--check")


def test_missing_permission_creates_no_group() -> None:
    Permission.objects.get(codename="export_pairwisesubject").delete()
    with pytest.raises(CommandError, match=r"export_pairwisesubject\. Run migrate"):
        make_groups()
    assert not Group.objects.exists()
