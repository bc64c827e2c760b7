"""Custom user models, each in a separate process, because AUTH_USER_MODEL is fixed."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.temporary_databases import scratch_databases

ROOT = Path(__file__).resolve().parents[2]


def test_person_page_is_linked_from_a_custom_user_model(tmp_path: Path) -> None:
    with scratch_databases(tmp_path) as environment:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.hospital_staff.page_process"],
            cwd=tmp_path,
            env={
                **environment,
                "DJANGO_SETTINGS_MODULE": "tests.integration.hospital_staff.settings",
                "PYTHONPATH": f"{ROOT}:{tmp_path}",
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {
        "": {"links": 0, "keeps the host template": False, "page": 403},
        "Privacy officer": {"links": 1, "keeps the host template": True, "page": 200},
        "denied": True,
    }
    assert "hospital_staff.view_member" in (tmp_path / "groups.txt").read_text()


def sign_in_persons(tmp_path: Path, model: str, **environment_variables: str) -> Any:
    """Return what two persons get, and the first one again, in a project with that user model."""
    with scratch_databases(tmp_path) as environment:
        done = subprocess.run(
            [sys.executable, "-m", "tests.integration.custom_accounts.sign_in_process"],
            cwd=tmp_path,
            env={
                **environment,
                "DJANGO_SETTINGS_MODULE": "tests.integration.custom_accounts.settings",
                "PYTHONPATH": f"{ROOT}:{tmp_path}",
                "TEST_USER_MODEL": model,
                **environment_variables,
            },
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
        )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout) | {"log": done.stderr}


@pytest.mark.each_database
@pytest.mark.parametrize(
    "model",
    [
        *("UniqueEmail", "UniqueOptionalEmail", "UniqueLowerEmail", "UniqueWhileActive"),
        *("EmailAsUserName", "EmailOnly", "Bare"),
    ],
)
def test_f1_second_person_can_sign_in_with_each_user_model(tmp_path: Path, model: str) -> None:
    result = sign_in_persons(tmp_path, model)
    assert result["statuses"] == [302, 302, 302], result["pages"]
    first, second, again = result["users"]
    assert first == again != second
    assert "" not in result["users"]
    assert result["checks"] == []
    assert result["refusals"] == []
    for account in result["accounts"]:
        assert re.fullmatch(r"phi_[a-z2-7]{26}@account\.invalid", account["email"])
        assert account["password"].startswith("!"), "no password is usable"
        assert account["username"] is None or re.fullmatch(r"phi_[a-z2-7]{26}", account["username"])
    assert len({account["email"] for account in result["accounts"]}) == 2


@pytest.mark.each_database
def test_f1_account_that_the_database_refuses_is_refused_with_its_own_code(tmp_path: Path) -> None:
    result = sign_in_persons(tmp_path, "RequiredNumber")
    assert result["statuses"] == [302, 403, 302]
    assert result["users"] == [result["users"][0], "", result["users"][0]]
    assert result["refusals"] == [["account_not_saved", "failure"]]
    assert result["active tokens"] == 4, "those of the two accepted sign-ins"
    (page,) = result["pages"]
    assert "account_not_saved" not in page
    assert "IntegrityError" in result["log"]
    assert "create_user" in result["log"], "the log names the code that failed"
    ((check, message, hint),) = result["checks"]
    assert check == "django_phi_oidc.E036"
    assert "badge" in message
    assert "create_user" in hint


@pytest.mark.each_database
def test_f1_hook_of_the_project_fills_what_cannot_be_derived(tmp_path: Path) -> None:
    """The counterpart: the same user model with the hook that the check names."""
    backend = "tests.integration.custom_accounts.backends.Badges"
    result = sign_in_persons(tmp_path, "RequiredNumber", TEST_BACKEND=backend)
    assert result["statuses"] == [302, 302, 302]
    assert result["checks"] == []


@pytest.mark.each_database
def test_f1_manager_that_cannot_create_an_account_is_reported_with_the_hook(tmp_path: Path) -> None:
    result = sign_in_persons(tmp_path, "NoUserName")
    assert result["statuses"] == [403, 403, 403]
    assert {reason for reason, _ in result["refusals"]} == {"account_not_saved"}
    ((check, message, hint),) = result["checks"]
    assert (check, "'username'" in message, "create_user" in hint) == ("django_phi_oidc.E036", True, True)


@pytest.mark.each_database
def test_f1_user_name_that_is_too_short_is_reported(tmp_path: Path) -> None:
    result = sign_in_persons(tmp_path, "ShortUserName")
    assert [check for check, *_ in result["checks"]] == ["django_phi_oidc.E036"]
    assert "username" in result["checks"][0][1]
    assert set(result["statuses"]) <= {302, 403}, "PostgreSQL refuses the name, SQLite stores it"
    assert {reason for reason, _ in result["refusals"]} <= {"account_not_saved"}
