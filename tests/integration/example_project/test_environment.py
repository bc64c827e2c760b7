"""The environment variables of the portal. An error for an invalid variable contains its name."""

import os
import re
import subprocess
import sys
import uuid
from pathlib import Path

import psycopg
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.core.exceptions import ImproperlyConfigured
from portal.demo.browser import Browser
from portal.demo.processes import Processes
from portal.demo.services import VARIABLE_PREFIXES, find_free_port
from portal.environment import Environment
from psycopg import sql

from tests.integration.example_project.conftest import ROOT
from tests.settings import key
from tests.support.postgresql import given_url

PRODUCTION = {
    "DJANGO_SECRET_KEY": "a secret for tests only, long enough for the deployment checks: 0123456789",
    "DJANGO_ALLOWED_HOSTS": "portal.example",
    "PHI_ENCRYPTION_KEYS": key("encryption"),
    "PHI_SUBJECT_KEYS": key("subject"),
    "PHI_AUDIT_MAC_KEYS": key("audit"),
    "OIDC_ISSUER": "https://op.example",
    "OIDC_CLIENT_ID": "portal",
    "OIDC_CLIENT_SECRET": "a secret for tests only",
}


def manage(var: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py with only these variables."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLE_PREFIXES)}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**environ, "PORTAL_VAR_DIR": str(var), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def evaluate(var: Path, expression: str, **variables: str) -> str:
    """Evaluate an expression about the portal's settings in a separate process."""
    program = f"from django.conf import settings; print({expression})"
    process = manage(var, "shell", "--no-imports", "--command", program, **variables)
    assert process.returncode == 0, process.stderr
    return process.stdout.strip()


def test_missing_variables_are_named_in_one_error(tmp_path: Path) -> None:
    process = manage(tmp_path, "check")
    assert process.returncode != 0
    message = process.stderr.strip().splitlines()[-1]
    assert all(name in message for name in PRODUCTION if name != "OIDC_CLIENT_SECRET")


def test_required_variables_pass_the_deployment_checks(tmp_path: Path) -> None:
    process = manage(tmp_path, "check", "--deploy", "--fail-level", "ERROR", **PRODUCTION)
    assert process.returncode == 0, process.stderr
    secure = "[settings.SESSION_COOKIE_SECURE, settings.CSRF_COOKIE_SECURE, settings.DEBUG]"
    assert evaluate(tmp_path, secure, **PRODUCTION) == "[True, True, False]"


def test_web_process_does_not_import_celery(tmp_path: Path) -> None:
    loaded = "__import__('portal.urls') and 'celery' in __import__('sys').modules"
    assert evaluate(tmp_path, loaded, **PRODUCTION) == "False"


def test_missing_client_secret_is_named(tmp_path: Path) -> None:
    process = manage(tmp_path, "check", **{**PRODUCTION, "OIDC_CLIENT_SECRET": ""})
    assert process.returncode != 0
    assert "client_secret" in process.stderr


def test_settings_behind_a_tls_proxy_redirect_to_https(tmp_path: Path) -> None:
    proxied = {**PRODUCTION, "DJANGO_SECURE_PROXY": "1", "PHI_TRUSTED_PROXIES": "10.0.0.0/8"}
    process = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **proxied)
    assert "security." not in process.stderr.replace("security.W005", "").replace("security.W021", "")
    assert evaluate(tmp_path, "settings.SECURE_SSL_REDIRECT", **proxied) == "True"


def test_settings_with_debug_need_no_variables(tmp_path: Path) -> None:
    issuer = "settings.PHI_OIDC['PROVIDERS']['default']['issuer']"
    assert evaluate(tmp_path, issuer, DJANGO_DEBUG="1") == "http://127.0.0.1:8765"


@pytest.mark.parametrize(
    ("variables", "idle_seconds"), [({}, 900), ({"PHI_IDLE_TIMEOUT": "60"}, 60)], ids=["none", "a minute"]
)
def test_timeouts_are_read_from_variables(tmp_path: Path, variables: dict[str, str], idle_seconds: int) -> None:
    expression = "*(settings.PHI_OIDC['SESSIONS'][name].seconds for name in ('idle_timeout', 'absolute_timeout'))"
    assert evaluate(tmp_path, expression, DJANGO_DEBUG="1", **variables) == f"{idle_seconds} 28800"


def test_timeout_of_zero_is_refused(tmp_path: Path) -> None:
    process = manage(tmp_path, "check", DJANGO_DEBUG="1", PHI_IDLE_TIMEOUT="0")
    assert process.returncode != 0
    assert "PHI_OIDC['SESSIONS']['idle_timeout']" in process.stderr


@pytest.mark.parametrize(
    ("variable", "value", "option"),
    [
        ("OIDC_SIGNING_ALGS", "PS256,HS256", "id_token_signed_response_alg"),
        ("OIDC_PAR", "always", "par"),
        ("OIDC_PROFILE", "fapi2", "profile"),
        ("OIDC_PROVISIONING", "anybody", "provisioning"),
        ("OIDC_PROFILE", "heart", "token_endpoint_auth_method"),
        ("OIDC_TOKEN_AUTH_METHOD", "private_key_jwt", "client_keys"),
    ],
)
def test_invalid_provider_options_are_refused_in_every_process(
    tmp_path: Path, variable: str, value: str, option: str
) -> None:
    process = manage(tmp_path, "shell", "--command", "pass", DJANGO_DEBUG="1", **{variable: value})
    assert process.returncode != 0
    assert option in process.stderr.splitlines()[-1]


def test_all_provider_options_are_accepted(tmp_path: Path) -> None:
    paths = []
    for name in ("new", "old"):
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
        paths.append(str(tmp_path / f"{name}.pem"))
    variables = {
        "OIDC_TOKEN_AUTH_METHOD": "private_key_jwt",
        "OIDC_CLIENT_KEY": ",".join(paths),
        "OIDC_PAR": "require",
        "OIDC_PROFILE": "heart",
        "OIDC_PROVISIONING": "invitation",
    }
    provider = "__import__('django_phi_oidc.conf', fromlist=['conf']).providers()['default']"
    values = evaluate(
        tmp_path,
        f"[{provider}.profile, {provider}.par, {provider}.provisioning, len({provider}.client_keys)]",
        **PRODUCTION,
        **variables,
    )
    assert values == "['heart', 'require', 'invitation', 2]"


def test_production_signs_the_audit_log_only_with_a_signing_key_variable(tmp_path: Path) -> None:
    expression = "settings.PHI_OIDC['KEYS']['audit_signing']"
    assert evaluate(tmp_path, expression, **PRODUCTION) == "None"
    assert evaluate(tmp_path, expression, **PRODUCTION, PHI_AUDIT_SIGNING_KEY="/keys/log.pem") == "/keys/log.pem"


@pytest.mark.sqlite
def test_migrate_twice_creates_both_databases_and_keeps_the_keys(tmp_path: Path) -> None:
    assert manage(tmp_path, "migrate", DJANGO_DEBUG="1").returncode == 0
    keys = {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()}
    again = manage(tmp_path, "migrate", DJANGO_DEBUG="1")
    assert again.returncode == 0
    assert again.stdout.count("No migrations to apply.") == 2
    assert {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()} == keys
    databases = ("--database", "default", "--database", "phi_audit")
    assert manage(tmp_path, "check", *databases, DJANGO_DEBUG="1").returncode == 0


@pytest.mark.sqlite
def test_keys_generate_creates_the_missing_keys(tmp_path: Path) -> None:
    process = manage(tmp_path, "phi_oidc", "keys", "status", DJANGO_DEBUG="1")
    assert process.returncode != 0
    assert "django_phi_oidc.E004" in process.stderr
    process = manage(tmp_path, "phi_oidc", "keys", "generate", DJANGO_DEBUG="1")
    assert process.returncode == 0, process.stderr
    rings = {"encryption-keys", "subject-keys", "audit-mac-keys", "pairwise-key", "audit-signing-key.pem"}
    assert {file.name for file in (tmp_path / "keys").iterdir()} == rings
    assert "django_phi_oidc.E004" not in manage(tmp_path, "phi_oidc", "keys", "status", DJANGO_DEBUG="1").stderr


@pytest.mark.postgresql
def test_migrate_on_postgresql_works_with_one_database_for_both_aliases(tmp_path: Path) -> None:
    server = given_url(os.environ)
    name = f"portal_{uuid.uuid4().hex}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            head, _, query = server.partition("?")
            url = f"{head.rpartition('/')[0]}/{name}{'?' if query else ''}{query}"
            variables = {"DJANGO_DEBUG": "1", "DATABASE_URL": url}
            assert manage(tmp_path, "migrate", **variables).returncode == 0
            databases = ("--database", "default", "--database", "phi_audit")
            checked = manage(tmp_path, "check", *databases, **variables)
            assert checked.returncode == 0, checked.stderr
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.mark.sqlite
def test_portal_without_debug_serves_pages_and_static_files(tmp_path: Path) -> None:
    port = find_free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(VARIABLE_PREFIXES)}
    environ |= {**PRODUCTION, "DJANGO_ALLOWED_HOSTS": "127.0.0.1", "PORTAL_VAR_DIR": str(tmp_path)}
    with Processes(directory=ROOT, logs=tmp_path / "log", environ=environ) as processes:
        processes.run("migrate", "manage.py", "migrate")
        processes.start("portal", "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
        processes.wait_for_url("portal", f"http://127.0.0.1:{port}/healthz")
        home = Browser().open(f"http://127.0.0.1:{port}/")
        sheet = re.search(r'href="(/static/[^"]+\.css)"', home.text)
        assert sheet
        assert Browser().open(f"http://127.0.0.1:{port}{sheet[1]}").headers["Content-Type"].startswith("text/css")
        page = Browser().open(f"http://127.0.0.1:{port}/nowhere")
        assert (page.status, "This page does not exist" in page.text) == (404, True)


def test_empty_text_is_the_default() -> None:
    assert Environment({"A": " "}).text("A", "b") == "b"
    assert Environment({"A": " c "}).text("A", "b") == "c"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("0", False), ("", False), ("off", False)])
def test_flag_accepts_only_known_values(text: str, value: bool) -> None:
    env = Environment({"A": text})
    assert env.flag("A") is value
    env.check()


def test_items_drop_blanks() -> None:
    assert Environment({"A": "a, b,,"}).items("A") == ["a", "b"]


def test_seconds_of_an_empty_variable_are_none() -> None:
    assert Environment({"A": ""}).seconds("A") is None
    assert Environment({"A": "90"}).seconds("A") == 90


@pytest.mark.parametrize(
    ("kind", "value"), [("flag", "maybe"), ("seconds", "90s"), ("seconds", "-1"), ("json", "[]"), ("json", "{")]
)
def test_check_names_the_variable_without_its_value(kind: str, value: str) -> None:
    env = Environment({"OIDC_SOMETHING": value})
    if kind == "json":
        env.json("OIDC_SOMETHING", {})
    else:
        getattr(env, kind)("OIDC_SOMETHING")
    with pytest.raises(ImproperlyConfigured, match="OIDC_SOMETHING") as caught:
        env.check()
    assert value not in str(caught.value).replace("OIDC_SOMETHING must be a JSON object", "")
