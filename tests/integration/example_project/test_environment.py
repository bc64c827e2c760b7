"""What the variables mean, and that a wrong one stops the portal by its name."""

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
from portal.demo.services import OURS, free_port
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
    """Run manage.py with those variables and no other of ours."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        cwd=ROOT,
        env={**environ, "PORTAL_VAR_DIR": str(var), **variables},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def setting(var: Path, expression: str, **variables: str) -> str:
    """Return an expression over the portal's settings as a process sees it."""
    program = f"from django.conf import settings; print({expression})"
    done = manage(var, "shell", "--no-imports", "--command", program, **variables)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_settings_without_debug_name_everything_required_at_once(tmp_path: Path) -> None:
    done = manage(tmp_path, "check")
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert all(name in last for name in PRODUCTION if name != "OIDC_CLIENT_SECRET")


def test_settings_without_debug_and_all_required_pass_the_deployment_checks(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", "--deploy", "--fail-level", "ERROR", **PRODUCTION)
    assert done.returncode == 0, done.stderr
    secure = "[settings.SESSION_COOKIE_SECURE, settings.CSRF_COOKIE_SECURE, settings.DEBUG]"
    assert setting(tmp_path, secure, **PRODUCTION) == "[True, True, False]"


def test_settings_without_a_client_secret_name_it(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", **{**PRODUCTION, "OIDC_CLIENT_SECRET": ""})
    assert done.returncode != 0
    assert "client_secret" in done.stderr


def test_settings_behind_a_tls_proxy_send_everybody_to_https(tmp_path: Path) -> None:
    proxied = {**PRODUCTION, "DJANGO_SECURE_PROXY": "1", "PHI_TRUSTED_PROXIES": "10.0.0.0/8"}
    done = manage(tmp_path, "check", "--deploy", "--fail-level", "WARNING", **proxied)
    assert "security." not in done.stderr.replace("security.W005", "").replace("security.W021", "")
    assert setting(tmp_path, "settings.SECURE_SSL_REDIRECT", **proxied) == "True"


def test_settings_with_debug_need_no_variable(tmp_path: Path) -> None:
    issuer = "settings.PHI_OIDC['PROVIDERS']['default']['issuer']"
    assert setting(tmp_path, issuer, DJANGO_DEBUG="1") == "http://127.0.0.1:8765"


@pytest.mark.parametrize(("given", "idle"), [({}, 900), ({"PHI_IDLE_TIMEOUT": "60"}, 60)], ids=["none", "a minute"])
def test_settings_have_the_timeouts_that_were_asked_for(tmp_path: Path, given: dict[str, str], idle: int) -> None:
    expression = "settings.PHI_OIDC['IDLE_TIMEOUT'].seconds, settings.PHI_OIDC['ABSOLUTE_TIMEOUT'].seconds"
    assert setting(tmp_path, expression, DJANGO_DEBUG="1", **given) == f"{idle} 28800"


def test_settings_with_a_timeout_of_nothing_are_refused(tmp_path: Path) -> None:
    done = manage(tmp_path, "check", DJANGO_DEBUG="1", PHI_IDLE_TIMEOUT="0")
    assert done.returncode != 0
    assert "IDLE_TIMEOUT" in done.stderr


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
def test_settings_of_a_provider_that_cannot_be_meant_are_refused_in_every_process(
    tmp_path: Path, variable: str, value: str, option: str
) -> None:
    done = manage(tmp_path, "shell", "--command", "pass", DJANGO_DEBUG="1", **{variable: value})
    assert done.returncode != 0
    assert option in done.stderr.splitlines()[-1]


def test_settings_of_a_provider_that_asks_for_everything_are_taken(tmp_path: Path) -> None:
    named = []
    for name in ("new", "old"):
        pem = ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        (tmp_path / f"{name}.pem").write_bytes(pem)
        named.append(str(tmp_path / f"{name}.pem"))
    asked = {
        "OIDC_TOKEN_AUTH_METHOD": "private_key_jwt",
        "OIDC_CLIENT_KEY": ",".join(named),
        "OIDC_PAR": "require",
        "OIDC_PROFILE": "heart",
        "OIDC_PROVISIONING": "invitation",
    }
    it = "__import__('django_phi_oidc.conf', fromlist=['conf']).providers()['default']"
    told = setting(
        tmp_path, f"[{it}.profile, {it}.par, {it}.provisioning, len({it}.client_keys)]", **PRODUCTION, **asked
    )
    assert told == "['heart', 'require', 'invitation', 2]"


def test_settings_without_debug_seal_where_the_key_is_named_alone(tmp_path: Path) -> None:
    told = "settings.PHI_OIDC['AUDIT_SIGNING_KEY']"
    assert setting(tmp_path, told, **PRODUCTION) == "None"
    assert setting(tmp_path, told, **PRODUCTION, PHI_AUDIT_SIGNING_KEY="/keys/log.pem") == "/keys/log.pem"


@pytest.mark.sqlite
def test_migrate_twice_makes_both_databases_and_keeps_the_keys(tmp_path: Path) -> None:
    assert manage(tmp_path, "migrate", DJANGO_DEBUG="1").returncode == 0
    before = {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()}
    again = manage(tmp_path, "migrate", DJANGO_DEBUG="1")
    assert again.returncode == 0
    assert again.stdout.count("No migrations to apply.") == 2
    assert {file: file.read_bytes() for file in (tmp_path / "keys").iterdir()} == before
    databases = ("--database", "default", "--database", "phi_audit")
    assert manage(tmp_path, "check", *databases, DJANGO_DEBUG="1").returncode == 0


@pytest.mark.sqlite
def test_keys_generate_makes_the_keys_that_every_other_command_misses(tmp_path: Path) -> None:
    missed = manage(tmp_path, "phi_oidc", "keys", "status", DJANGO_DEBUG="1")
    assert missed.returncode != 0
    assert "django_phi_oidc.E004" in missed.stderr
    made = manage(tmp_path, "phi_oidc", "keys", "generate", DJANGO_DEBUG="1")
    assert made.returncode == 0, made.stderr
    rings = {"encryption-keys", "subject-keys", "audit-mac-keys", "pairwise-key", "audit-signing-key.pem"}
    assert {file.name for file in (tmp_path / "keys").iterdir()} == rings
    assert "django_phi_oidc.E004" not in manage(tmp_path, "phi_oidc", "keys", "status", DJANGO_DEBUG="1").stderr


@pytest.mark.postgresql
def test_migrate_on_postgresql_makes_both_aliases_of_one_database(tmp_path: Path) -> None:
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


def test_readme_names_every_variable_and_no_other() -> None:
    read = set()
    for name in re.findall(r"(?:env\.\w+|key_ring)\(\s*\"([A-Z_]+)\"", (ROOT / "portal" / "settings.py").read_text()):
        read.add(name)
    ours = "DJANGO|OIDC|PHI|CELERY|PORTAL|DATABASE|CACHE|EMAIL"
    table = set(re.findall(rf"`((?:{ours})_[A-Z_]+)", (ROOT / "README.md").read_text()))
    assert table == read


@pytest.mark.sqlite
def test_portal_without_debug_is_presentable(tmp_path: Path) -> None:
    port = free_port()
    environ = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    environ |= {**PRODUCTION, "DJANGO_ALLOWED_HOSTS": "127.0.0.1", "PORTAL_VAR_DIR": str(tmp_path)}
    with Processes(directory=ROOT, logs=tmp_path / "log", environ=environ) as processes:
        processes.run("migrate", "manage.py", "migrate")
        processes.python("portal", "manage.py", "runserver", "--noreload", f"127.0.0.1:{port}")
        processes.wait_until_answers("portal", f"http://127.0.0.1:{port}/healthz")
        home = Browser().open(f"http://127.0.0.1:{port}/")
        sheet = re.search(r'href="(/static/[^"]+\.css)"', home.text)
        assert sheet
        assert Browser().open(f"http://127.0.0.1:{port}{sheet[1]}").headers["Content-Type"].startswith("text/css")
        lost = Browser().open(f"http://127.0.0.1:{port}/nowhere")
        assert (lost.status, "This page does not exist" in lost.text) == (404, True)


def test_text_that_is_empty_is_the_default() -> None:
    assert Environment({"A": " "}).text("A", "b") == "b"
    assert Environment({"A": " c "}).text("A", "b") == "c"


@pytest.mark.parametrize(("text", "value"), [("1", True), ("true", True), ("0", False), ("", False), ("off", False)])
def test_flag_reads_what_it_may(text: str, value: bool) -> None:
    env = Environment({"A": text})
    assert env.flag("A") is value
    env.check()


def test_items_drop_blanks() -> None:
    assert Environment({"A": "a, b,,"}).items("A") == ["a", "b"]


def test_seconds_of_nothing_are_none() -> None:
    assert Environment({"A": ""}).seconds("A") is None
    assert Environment({"A": "90"}).seconds("A") == 90


@pytest.mark.parametrize(
    ("kind", "value"), [("flag", "maybe"), ("seconds", "90s"), ("seconds", "-1"), ("json", "[]"), ("json", "{")]
)
def test_check_names_the_variable_and_never_its_value(kind: str, value: str) -> None:
    env = Environment({"OIDC_SOMETHING": value})
    if kind == "json":
        env.json("OIDC_SOMETHING", {})
    else:
        getattr(env, kind)("OIDC_SOMETHING")
    with pytest.raises(ImproperlyConfigured, match="OIDC_SOMETHING") as caught:
        env.check()
    assert value not in str(caught.value).replace("OIDC_SOMETHING must be a JSON object", "")
