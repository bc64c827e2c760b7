"""`manage.py phi_oidc roles explain`: a dry run with reasons, as on the page."""

import io
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.checks import run_checks
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import override_settings
from django.test.utils import CaptureQueriesContext

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
PAGE = (Path(__file__).resolve().parents[5] / "docs" / "how-to" / "roles.md").read_text()
CANARY = "role-canary-Bern-7c1f"


def block(name: str, language: str) -> str:
    match = re.search(rf"<!-- tested: {name} -->\n```{language}\n(.*?)```", PAGE, re.DOTALL)
    assert match
    return match[1]


@pytest.fixture(autouse=True)
def _as_on_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    declared = {**django_settings.PHI_OIDC, "CLAIMS": {**django_settings.PHI_OIDC["CLAIMS"]}}
    exec(block("settings", "python"), {"PHI_OIDC": declared})
    for name in ("clinicians", "privacy officers"):
        Group.objects.create(name=name)
    with override_settings(PHI_OIDC=declared):
        yield


@pytest.fixture
def user() -> Any:
    user = get_user_model().objects.create_user("amina", pk=7)
    user.groups.add(Group.objects.get(name="privacy officers"))
    return user


def run(*words: object) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "roles", "explain", *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def explained(claims: Any, *words: object) -> dict[str, Any]:
    Path("claims.json").write_text(json.dumps(claims))
    explanation: dict[str, Any] = json.loads(run("--claims", "claims.json", "--json", *words))
    return explanation


def outcomes(explanation: dict[str, Any]) -> dict[str, str]:
    return {role["name"]: role["outcome"] for role in explanation["roles"]}


def test_page_shows_the_output_and_its_settings_are_valid(user: Any) -> None:
    assert run_checks(databases=["default"]) == []
    Path("claims.json").write_text(block("claims", "json"))
    command, _, printed = block("explain", "console").partition("\n")
    assert run(*shlex.split(command)[6:]) == printed


def test_explain_changes_nothing(user: Any) -> None:
    before = list(user.groups.values_list("name", flat=True))
    with CaptureQueriesContext(connection) as queries:
        explanation = explained({"roles": ["nurse"]}, "--user", "amina")
    assert outcomes(explanation)["clinicians"] == "added"
    assert outcomes(explanation)["privacy officers"] == "removed"
    assert {query["sql"][:6] for query in queries} == {"SELECT"}
    assert list(user.groups.values_list("name", flat=True)) == before


def test_explain_lists_the_numbers_of_the_rules(user: Any) -> None:
    explanation = explained(
        {"roles": ["privacy", "physician"], "realm_access": {"roles": ["admin"]}}, "--user", "amina"
    )
    assert [(rule["came"], rule["matches"]) for rule in explanation["rules"]] == [(True, True)] * 3
    roles = {role["name"]: (role["outcome"], role["rules"]) for role in explanation["roles"]}
    assert roles == {
        "clinicians": ("added", [0]),
        "privacy officers": ("kept", [1]),
        "is_staff": ("added", [2]),
        "is_superuser": ("added", [2]),
    }
    explanation = explained({}, "--user", "amina")
    assert [(rule["came"], rule["matches"]) for rule in explanation["rules"]] == [(False, False)] * 3


def test_explain_reports_a_missing_group_and_the_last_administrator(user: Any) -> None:
    Group.objects.get(name="clinicians").delete()
    user.is_superuser = user.is_staff = True
    user.save()
    explanation = outcomes(explained({"roles": "nurse"}, "--user", "amina"))
    assert (explanation["clinicians"], explanation["is_superuser"]) == ("missing", "last")
    get_user_model().objects.create_superuser("another")  # type: ignore[attr-defined]
    Group.objects.create(name="clinicians")
    explanation = outcomes(explained({"roles": "nurse"}, "--user", "amina"))
    assert (explanation["clinicians"], explanation["is_superuser"]) == ("added", "removed")


def test_explain_without_a_user_is_for_a_new_one_and_without_claims_lists_held_roles(user: Any) -> None:
    assert outcomes(explained({"roles": ["nurse"]})) == {
        "clinicians": "added",
        "privacy officers": "not_given",
        "is_staff": "not_given",
        "is_superuser": "not_given",
    }
    explanation = json.loads(run("--user", "amina", "--json"))
    assert (outcomes(explanation)["privacy officers"], outcomes(explanation)["clinicians"]) == ("held", "not_held")
    assert {role["name"]: role["rules"] for role in explanation["roles"]}["clinicians"] == [0]
    assert "group privacy officers: is held (rule 1)\n" in run("--user", "amina")


def test_explain_reads_standard_input_and_prints_no_value_of_a_claim(monkeypatch: pytest.MonkeyPatch) -> None:
    claims = {"roles": ["nurse", CANARY], "birthdate": CANARY, "realm_access": {"other": CANARY}, "x": CANARY}
    monkeypatch.setattr(sys, "stdin", io.StringIO(json.dumps(claims)))
    printed = run("--claims", "-")
    assert "group clinicians: would be added (rule 0)" in printed
    assert "Undeclared claims, ignored: 'realm_access.other', 'x'.\n" in printed
    assert CANARY not in printed


def test_explain_of_a_provider_without_rules() -> None:
    declared = django_settings.PHI_OIDC
    providers = {**declared["PROVIDERS"], "other": {**declared["PROVIDERS"]["default"], "issuer": "https://b.test"}}
    Path("claims.json").write_text("{}")
    with override_settings(PHI_OIDC={**declared, "PROVIDERS": providers}):
        assert "has no rules" in run("--claims", "claims.json", "--provider", "other")
        assert "rule 0" in run("--claims", "claims.json", "--provider", "default")


WRONG: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "Name a user"),
    "no such user": (["--user", "8"], "no user 8. If this is a primary key, write pk:8."),
    "no such provider": (["--user", "pk:7", "--provider", "other"], "no provider other"),
    "no such file": (["--claims", "missing.json"], "cannot be read"),
    "no JSON": (["--claims", "broken.json"], "cannot be read"),
    "no object": (["--claims", "list.json"], "not a JSON object"),
}


@pytest.mark.parametrize(("words", "fault"), WRONG.values(), ids=WRONG)
def test_explain_refuses_invalid_arguments(user: Any, words: list[str], fault: str) -> None:
    Path("broken.json").write_text(CANARY)
    Path("list.json").write_text(json.dumps([CANARY]))
    with pytest.raises(CommandError, match=fault) as refused:
        run(*words)
    assert CANARY not in str(refused.value)
    assert run("--user", "pk:7") != ""
