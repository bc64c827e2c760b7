"""The functions that a settings file calls: the audit database, and values from environment variables."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.checks import databases as database_checks
from django_phi_oidc.project_settings import (
    KEY_RINGS,
    KEY_VARIABLES,
    add_audit_database,
    read_keys,
    read_provider,
    read_variable,
)

ROOT = Path(__file__).resolve().parents[2]
POSTGRESQL = {"ENGINE": "django.db.backends.postgresql", "NAME": "portal", "USER": "portal", "HOST": "db.example.test"}
SQLITE = {"ENGINE": "django.db.backends.sqlite3", "NAME": Path("/srv/portal/db.sqlite3")}


def declare(**default: Any) -> dict[str, Any]:
    return {"default": default, "reports": {"ENGINE": "django.db.backends.mysql", "ATOMIC_REQUESTS": True}}


def test_audit_alias_on_postgresql_is_a_second_connection_that_commits_for_itself() -> None:
    options = {"sslmode": "verify-full", "pool": {"min_size": 2}}
    given = declare(**POSTGRESQL, ATOMIC_REQUESTS=True, CONN_MAX_AGE=60, OPTIONS=options, TEST={"NAME": "test_portal"})
    databases = add_audit_database(given)
    assert databases == {
        **given,
        "phi_audit": {
            **given["default"],
            "ATOMIC_REQUESTS": False,
            "OPTIONS": {**options, "connect_timeout": 2},
        },
    }
    assert "phi_audit" not in given
    assert given["default"]["OPTIONS"] == options, "the dictionaries of the project are not changed"


@pytest.mark.parametrize("engine", ["django.contrib.gis.db.backends.postgis", "psqlextra.backend", "x.postgresql"])
def test_connect_timeout_of_the_project_is_kept(engine: str) -> None:
    declared = {**POSTGRESQL, "ENGINE": engine}
    assert add_audit_database(declare(**declared))["phi_audit"]["OPTIONS"] == {"connect_timeout": 2}
    options = {"connect_timeout": 7}
    assert add_audit_database(declare(**declared, OPTIONS=options))["phi_audit"]["OPTIONS"] == options


def test_connect_timeout_is_not_an_option_of_other_databases() -> None:
    audit = add_audit_database(declare(ENGINE="django.db.backends.oracle", NAME="portal"))["phi_audit"]
    assert audit == {"ENGINE": "django.db.backends.oracle", "NAME": "portal", "ATOMIC_REQUESTS": False}


def test_audit_database_on_sqlite_is_another_file_next_to_that_of_the_project() -> None:
    databases = add_audit_database(declare(**SQLITE, ATOMIC_REQUESTS=True, TEST={"NAME": "/tmp/t.sqlite3"}))
    assert databases["default"]["NAME"] == SQLITE["NAME"]
    audit = databases["phi_audit"]
    assert audit["NAME"] == Path("/srv/portal/db-audit.sqlite3")
    assert audit["TEST"] == {"NAME": Path("/tmp/t-audit.sqlite3")}
    assert audit["ATOMIC_REQUESTS"] is False
    assert databases["default"]["ATOMIC_REQUESTS"] is True


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("db", Path("db-audit")),
        (":memory:", "file:phi_audit?mode=memory&cache=shared"),
        ("file:portal?mode=memory&cache=shared", "file:phi_audit?mode=memory&cache=shared"),
        ("file:/srv/portal.sqlite3", "file:/srv/portal.sqlite3"),
        ("", ""),
    ],
)
def test_name_of_the_audit_database_on_sqlite(name: str, expected: Any) -> None:
    audit = add_audit_database(declare(**{**SQLITE, "NAME": name}))["phi_audit"]
    assert audit["NAME"] == expected
    assert "TEST" not in audit


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"timeout": 1, "transaction_mode": "DEFERRED"},
        {"init_command": "PRAGMA foreign_keys = ON;"},
        {"init_command": "PRAGMA synchronous=NORMAL"},
        {"init_command": None},
    ],
)
def test_both_sqlite_databases_get_the_options_that_the_check_requires(options: dict[str, Any]) -> None:
    databases = add_audit_database(declare(**SQLITE, OPTIONS=options))
    for alias in ("default", "phi_audit"):
        completed = databases[alias]["OPTIONS"]
        assert list(database_checks._check_sqlite_options(alias, completed)) == []
        assert completed["init_command"].startswith((options.get("init_command") or "PRAGMA").rstrip(";"))
    longer = add_audit_database(declare(**SQLITE, OPTIONS={"timeout": 60}))
    assert longer["default"]["OPTIONS"]["timeout"] == 60


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    for name in os.environ:
        if name.startswith(("OIDC_", "PHI_")):
            monkeypatch.delenv(name)
    return monkeypatch


def test_provider_and_keys_are_read_from_the_environment(environment: pytest.MonkeyPatch) -> None:
    for name in ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET"):
        environment.setenv(name, f"value of {name}")
    for name in KEY_VARIABLES.values():
        environment.setenv(name, f"value of {name}")
    assert read_provider() == {
        "issuer": "value of OIDC_ISSUER",
        "client_id": "value of OIDC_CLIENT_ID",
        "client_secret": "value of OIDC_CLIENT_SECRET",
    }
    assert read_keys() == {ring: f"value of {name}" for ring, name in KEY_VARIABLES.items()}
    environment.delenv("PHI_PAIRWISE_KEY")
    environment.setenv("PHI_AUDIT_SIGNING_KEY", "PEM")
    assert set(read_keys()) == {*KEY_RINGS, "audit_signing"}


@pytest.mark.parametrize("missing", [None, ""])
def test_missing_or_empty_variable_is_one_sentence_and_ends_the_process(
    missing: str | None, environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("PORTAL_PASSWORD", "x")
    assert read_variable("PORTAL_PASSWORD") == "x"
    if missing is None:
        environment.delenv("PORTAL_PASSWORD")
    else:
        environment.setenv("PORTAL_PASSWORD", missing)
    with pytest.raises(SystemExit) as raised:
        read_variable("PORTAL_PASSWORD")
    assert raised.value.code == 4
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("The environment variable PORTAL_PASSWORD is not set: add it to ")
    assert "set -a; . secrets/portal.env; set +a" in line


def test_all_missing_variables_of_a_group_are_named(
    environment: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    environment.setenv("PHI_SUBJECT_KEYS", "secret text")
    with pytest.raises(SystemExit):
        read_keys()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("The environment variables PHI_ENCRYPTION_KEYS and PHI_AUDIT_MAC_KEYS are not set: add them")
    assert "secret" not in line.replace("secrets/portal.env", "")
    with pytest.raises(SystemExit):
        read_provider()
    assert "OIDC_ISSUER, OIDC_CLIENT_ID and OIDC_CLIENT_SECRET are not set" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "is_read"),
    [
        ("phi_oidc init secrets", True),
        ("phi_oidc keys generate", True),
        ("phi_oidc keys status", False),
        ("phi_oidc doctor", False),
        ("init phi_oidc", False),
    ],
)
def test_commands_that_create_keys_run_without_variables(
    command: str, is_read: bool, environment: pytest.MonkeyPatch
) -> None:
    environment.setattr(sys, "argv", ["manage.py", *command.split()])
    if is_read:
        assert set(read_keys().values()) == {""}
        assert read_provider()["issuer"] == ""
    else:
        with pytest.raises(SystemExit):
            read_keys()


def test_settings_file_can_import_the_functions_before_django_is_configured() -> None:
    script = "import sys, django_phi_oidc.project_settings; sys.exit('django' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", script], env=environment, check=True)
