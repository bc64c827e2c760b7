"""The code blocks of the pages that no other test runs."""

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from celery import Celery, current_app
from django.conf import settings
from django.contrib.auth.models import AnonymousUser, Group
from django.core.checks import Error, run_checks
from django.core.management import call_command
from django.db import connections
from django.http import HttpRequest
from django.template import engines
from django.test import RequestFactory, override_settings

import django_phi_oidc
from django_phi_oidc import schedule
from django_phi_oidc._internal.officer_groups import OfficerGroup
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.log import signing_keys
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key
from django_phi_oidc.audit.models import SetAsideEvent
from django_phi_oidc.config import client_keys
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.common.retention_key_folder import prepare_folder
from django_phi_oidc.contrib.federation.views import EntityConfigurationView
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.notices.notices import find_notice_address
from django_phi_oidc.contrib.retention_keys.key_store import get_store
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import KeyMissing
from django_phi_oidc.sessions.models import EndReason
from django_phi_oidc.testing.attack.throwaway_ca import create_certificate_authority
from django_phi_oidc.testing.mock_provider import create_signing_key
from tests.support.audit_log import KEY, NOW, PEM, events
from tests.support.client_keys import create_private_key_pem
from tests.support.mail_settings import mailer
from tests.support.manual_blocks import ROOT, block, commands
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import ScriptedOP, SignedIn
from tests.support.tls import write_client_certificate

EVERYTHING: dict[str, Any] = {"transaction": True, "databases": ["default", "phi_audit"]}
Run = Callable[..., str]


def executed(page: str, name: str, **names: Any) -> dict[str, Any]:
    """Run a block of Python with the names that its page assumes."""
    names = {"Path": Path, "timedelta": timedelta, "os": os, **names}
    exec(block(page, name), names)
    return names


def errors() -> set[str]:
    return {str(found.id) for found in run_checks() if isinstance(found, Error)}


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Run]:
    """Return a function that runs the `manage.py` commands of a block in an empty folder; the log has a signing key."""
    monkeypatch.chdir(tmp_path)

    def run_block(page: str, name: str, given: dict[str, str] | None = None) -> str:
        printed = ""
        for words in commands(page, name):
            assert words[:2] == ["python", "manage.py"]
            arguments, target = (words[2:-2], words[-1]) if words[-2] == ">" else (words[2:], "")
            call_command(*((given or {}).get(word, word) for word in arguments))
            out = capsys.readouterr().out
            if target:
                Path(target).write_text(out)
            printed += out
        return printed

    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})):
        yield run_block


def test_readme_configures_beat_and_pytest() -> None:
    app = SimpleNamespace(conf=SimpleNamespace())
    executed("README", "beat", app=app, django_phi_oidc=django_phi_oidc)
    assert app.conf.beat_schedule == schedule.beat_schedule()
    assert executed("testing", "plugins")["pytest_plugins"] == ["django_phi_oidc.testing.runner"]
    assert commands("README", "init") == [["python", "manage.py", "phi_oidc", "init", "secrets"]]


def test_documented_celery_app_has_the_beat_schedule() -> None:
    before = current_app._get_current_object()
    try:
        app = executed("deploy", "celery")["app"]
        assert isinstance(app, Celery)
        assert app.conf.beat_schedule == schedule.beat_schedule()
        queues = {task: app.amqp.router.route({}, task).get("queue") for task in schedule.beat_schedule()}
        assert [task for task, queue in queues.items() if queue.name == "seal"] == ["phi_oidc.seal"]
        app.close()
    finally:
        before.set_current()


def test_documented_route_sends_export_jobs_to_a_separate_queue() -> None:
    app = Celery(set_as_current=False, task_routes=executed("read-the-audit-log", "route")["CELERY_TASK_ROUTES"])
    queues = {task: app.amqp.router.route({}, task).get("queue") for task in schedule.beat_schedule()}
    assert [task for task, queue in queues.items() if queue.name == "trail"] == ["phi_oidc.work_trail_jobs"]
    assert len(queues) > 1
    app.close()


def test_documented_label_names_people_and_leaves_the_rest_to_the_user_name() -> None:
    assert executed("read-the-audit-log", "label")["PHI_OIDC"] == {"PERSON_LABEL": "portal.people.get_label"}
    label = executed("read-the-audit-log", "naming")["get_label"]
    assert label(SimpleNamespace(first_name="Amina", last_name="Keller")) == "Keller, Amina"
    assert label(SimpleNamespace(first_name="", last_name="")) == ""


def offered(requirement: str) -> bool:
    """Return whether the distribution is installed and has all extras of the requirement."""
    name, _, extras = requirement.rstrip("]").partition("[")
    try:
        known = metadata(name).get_all("Provides-Extra", [])
    except PackageNotFoundError:
        return False
    return set(extras.split(",") if extras else ()) <= set(known)


@pytest.mark.parametrize("page", ["README", "tutorial", "metrics-and-health"])
def test_documented_distribution_and_extras_exist(page: str) -> None:
    """The distribution is already installed, so only names can be wrong."""
    line = next(line for line in block(page, "install").splitlines() if "pip install" in line)
    asked = shlex.split(line, comments=True)[3:]
    assert asked[0].startswith("django-phi-oidc")
    assert all(offered(each) for each in asked)
    assert not offered("django-phi-oidc[no-such]")
    assert not offered("django-fie-oidc")


def test_documented_floor_is_the_view_of_the_benchmark() -> None:
    tree = ast.parse((ROOT / "tests" / "benchmarks" / "sign_in" / "urls" / "bare.py").read_text())
    (callback,) = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "callback"]
    run = [ast.unparse(each) for each in callback.body]
    shown = [ast.unparse(each) for each in ast.parse(block("performance", "floor")).body]
    assert [each for each in run if each in shown] == shown
    assert len(shown) > 5


@pytest.mark.django_db(**EVERYTHING)
def test_documented_command_creates_the_groups(run: Run) -> None:
    printed = run("admin-groups", "command")
    assert set(Group.objects.values_list("name", flat=True)) == set(OfficerGroup)
    assert all(name in printed for name in OfficerGroup)


@pytest.mark.django_db(**EVERYTHING)
def test_databases_are_migrated_and_checked(run: Run) -> None:
    # In a test mails stay in memory, which Django 6.1 does not want where it is deployed.
    with override_settings(**mailer("smtp", timeout=10)):
        run("README", "migrate")
        run("upgrade", "migrate")
        run("deploy", "migrate")


SETTINGS = [
    # page, block, an option that it declares
    ("activation-codes", "settings", "ACTIVATION_LIFETIME"),
    ("migrate-existing-users", "email", "PROVIDERS"),
    ("several-providers", "settings", "PROVIDERS"),
    ("siem", "settings", "AUDIT"),
    ("retention", "folder", "KEYS"),
    ("client-keys", "settings", "PROVIDERS"),
    ("client-certificates", "settings", "PROVIDERS"),
    ("client-certificates", "key", "PROVIDERS"),
    ("client-certificates", "api", "API"),
    ("sender-constrained-tokens", "settings", "PROVIDERS"),
    ("sender-constrained-tokens", "fapi2", "PROVIDERS"),
    ("sender-constrained-tokens", "nonce", "API"),
    ("federation", "settings", "PROVIDERS"),
    ("deploy", "proxy", "TRUSTED_PROXIES"),
    ("seal-the-audit-log", "keys", "KEYS"),
    ("local-accounts", "settings", "BREAK_GLASS_ACCOUNTS"),
    ("end-sessions", "limit", "SESSIONS"),
]


# With Django 6.1 the checks ask SQLite whether it knows JSON.
@pytest.mark.django_db
@pytest.mark.parametrize(("page", "name", "option"), SETTINGS)
def test_settings_of_a_page_are_no_error(page: str, name: str, option: str, tmp_path: Path) -> None:
    prepare_folder(tmp_path / "retention-keys")
    create_certificate_authority(tmp_path, "siem-ca")
    for file, text in {
        "client-key.pem": create_private_key_pem("EC"),
        "federation-key.pem": create_private_key_pem("EC"),
        "trust-anchor.json": json.dumps({"keys": [create_signing_key("ES256").public_jwk()]}),
        "client.pem": write_client_certificate(tmp_path / "client.pem").read_text(),
        "audit-signing-key.pem": PEM,
        "splunk-header": "Splunk x",
    }.items():
        (tmp_path / file).write_text(text)
        (tmp_path / file).chmod(0o600)
    text = block(page, name).replace(
        "portal.example/audit+1d5a4a4f+AQ…", encode_verifier_key("portal.example/audit", KEY.public_key())
    )
    for folder in ("/etc/portal", "/srv/portal", "/var/log/portal"):
        text = text.replace(folder, str(tmp_path))
    names: dict[str, Any] = {"Path": Path, "timedelta": timedelta, "PHI_OIDC": {"KEYS": {}, "AUDIT": {}}}
    exec(text, names)
    declared = names.pop("PHI_OIDC")
    if page in ("activation-codes", "migrate-existing-users"):
        declared["PROVIDERS"]["default"] |= settings.PHI_OIDC["PROVIDERS"]["default"]
    others = {key: value for key, value in names.items() if key.isupper()}
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, **declared), **others):
        assert errors() == set()
    with override_settings(PHI_OIDC={**settings.PHI_OIDC, **declared, option: [None]}, **others):
        assert errors() != set()


def test_documented_function_finds_the_address_for_notices(monkeypatch: pytest.MonkeyPatch) -> None:
    declared = executed("account-notices", "option", PHI_OIDC={})["PHI_OIDC"]
    module, _, name = declared["ACCOUNT_NOTICES"].rpartition(".")
    clinic = ModuleType(module)
    vars(clinic)[name] = executed("account-notices", "address")["notice_address"]
    monkeypatch.setitem(sys.modules, "clinic", ModuleType("clinic"))
    monkeypatch.setitem(sys.modules, module, clinic)
    with override_settings(PHI_OIDC={**settings.PHI_OIDC, **declared}):
        contacts = [SimpleNamespace(email="ada@example.org", is_verified=verified) for verified in (True, False)]
        found = [find_notice_address(SimpleNamespace(contact=contact)) for contact in contacts]
    assert found == ["ada@example.org", ""]


def test_resource_scopes_of_a_page_are_a_declaration() -> None:
    raw = settings.PHI_OIDC["PROVIDERS"]["default"] | eval("{" + block("call-an-api", "scopes") + "}")
    assert "offline_access" in {scope.name for scope in parse_provider("default", raw).resource_scopes}


def test_databases_of_the_page_about_roles(monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"default": {"ENGINE": "django.db.backends.postgresql", "NAME": "portal", "USER": "owner"}}
    monkeypatch.setenv("PORTAL_AUDIT_PASSWORD", "not-for-production")
    names = executed("postgresql-role", "role", DATABASES=given)
    executed("postgresql-role", "patience", DATABASES=names["DATABASES"])
    assert names["DATABASES"]["phi_audit"]["USER"] == "portal_audit"
    assert names["DATABASES"]["phi_audit"]["OPTIONS"] == {"connect_timeout": 2, "tcp_user_timeout": 5000}
    assert given["default"]["USER"] == "owner"


@pytest.mark.postgresql
@pytest.mark.django_db(**EVERYTHING)
@pytest.mark.parametrize(
    ("name", "setting"), [("statement", "statement_timeout=4s"), ("idle", "idle_in_transaction_session_timeout=60s")]
)
def test_documented_timeouts_of_the_role_are_set(name: str, setting: str) -> None:
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute("SELECT current_user")
        role = cursor.fetchone()[0]
        try:
            cursor.execute(block("postgresql-role", name).replace("portal_audit", f'"{role}"'))
            cursor.execute(
                "SELECT setconfig FROM pg_db_role_setting s JOIN pg_roles r ON r.oid = s.setrole WHERE rolname = %s",
                [role],
            )
            assert setting in cursor.fetchone()[0]
        finally:
            cursor.execute(f'ALTER ROLE "{role}" RESET {setting.partition("=")[0]}')


def test_entity_configuration_of_the_page_is_routed() -> None:
    (added,) = executed("federation", "urls", urlpatterns=[])["urlpatterns"]
    assert added.callback.view_class is EntityConfigurationView
    assert added.resolve(".well-known/openid-federation")


@pytest.mark.openssl
def test_client_key_of_the_page_signs(tmp_path: Path) -> None:
    for line in block("client-keys", "key").splitlines():
        subprocess.run(["bash", "-euo", "pipefail", "-c", line.removeprefix("$ ")], cwd=tmp_path, check=True)
    (key,) = client_keys.parse_client_keys("client_keys", tmp_path / "client-key.pem")
    assert key.list_algs() == ("ES256",)
    assert (tmp_path / "client-key.pem").stat().st_mode & 0o777 == 0o600


@pytest.mark.openssl
def test_certificate_of_the_page_is_one_of_the_key(tmp_path: Path) -> None:
    (tmp_path / "secrets").mkdir()
    key_file, file = (tmp_path / "secrets" / name for name in ("client-key.pem", "client-certificate.pem"))
    key_file.write_text(create_private_key_pem("EC"))
    for line in block("gesundheitsid", "certificate").splitlines():
        subprocess.run(["bash", "-euo", "pipefail", "-c", line.removeprefix("$ ")], cwd=tmp_path, check=True)
    (key,) = client_keys.parse_client_keys("client_keys", {"key": key_file, "certificate": file})
    assert len(key.certificate) == 1


@pytest.mark.openssl
def test_decryption_key_of_the_page_decrypts(tmp_path: Path) -> None:
    for line in block("encrypted-tokens", "key").splitlines():
        subprocess.run(["bash", "-euo", "pipefail", "-c", line.removeprefix("$ ")], cwd=tmp_path, check=True)
    (tmp_path / "client-key.pem").write_text(create_private_key_pem("EC"))
    declared = {"issuer": "https://op.example.test", "client_id": "c", "token_endpoint_auth_method": "private_key_jwt"}
    phi_oidc: dict[str, Any] = {"PROVIDERS": {"default": declared}}
    code = block("encrypted-tokens", "settings").replace("/etc/portal", str(tmp_path))
    exec(code, {"PHI_OIDC": phi_oidc, "Path": Path})
    provider = parse_provider("default", declared)
    assert [key.use for key in provider.client_keys] == ["sig", "enc"]
    assert provider.id_token_encryption.algs == ("ECDH-ES+A256KW",)


def test_documented_command_generates_keys(run: Run) -> None:
    printed = run("encryption-keys", "generate")
    (key,) = re.findall(r"^PHI_ENCRYPTION_KEYS=(\S+)$", printed, re.MULTILINE)
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": key})):
        assert len(keyring.get_keys("encryption")) == 1


def test_documented_command_prepares_the_folder_of_the_retention_keys(run: Run, tmp_path: Path) -> None:
    keys = {"retention": tmp_path / "retention-keys"}
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS=keys)):
        with pytest.raises(KeyMissing):
            get_store().create("20261124-session")
        run("retention", "prepare")
        assert len(get_store().create("20261124-session")) == 32


@pytest.mark.django_db(**EVERYTHING)
def test_sessions_of_the_page_are_ended(op: ScriptedOP, run: Run, sign_in: Callable[..., SignedIn]) -> None:
    person = sign_in()
    Group.objects.create(name="Help desk")
    given = {
        "6f1c2b1e-0d0c-4b43-9c5e-1f2f3b6a7c8d": str(person.session.pk),
        "phi_abcdefghijklmnopqrstuvwxyz": person.user.get_username(),
    }
    assert str(person.session.pk) in run("end-sessions", "sessions", given)
    person.session.refresh_from_db()
    assert person.session.end_reason == EndReason.ADMINISTRATOR


@pytest.mark.django_db(**EVERYTHING)
def test_documented_incident_commands_work(op: ScriptedOP, run: Run, sign_in: Callable[..., SignedIn]) -> None:
    person = sign_in()
    events(3)
    given = {"phi_abcdefghijklmnopqrstuvwxyz": person.user.get_username(), "42": str(person.user.pk)}
    assert str(person.session.pk) in run("incidents", "contain", given)
    person.session.refresh_from_db()
    assert person.session.ended_at is not None
    run("incidents", "look", given)
    assert "no faults" in run("incidents", "keep")
    assert Path("incident.jsonl.gz").stat().st_size > 0


@pytest.mark.django_db(**EVERYTHING)
def test_documented_commands_list_and_retry_events_that_were_set_aside(run: Run) -> None:
    event_id = uuid7(NOW)
    SetAsideEvent.objects.create(event_id=event_id, reader="outbox", error="x", set_aside_at=NOW, tried_at=NOW)
    printed = run("incidents", "set-aside")
    assert str(event_id) in printed
    assert "Processed: 1." in printed


@pytest.mark.django_db(**EVERYTHING)
def test_documented_upgrade_commands_verify_the_log(run: Run) -> None:
    events(3)
    run("upgrade", "before")
    assert "no faults" in run("upgrade", "after")


@pytest.mark.django_db(**EVERYTHING)
def test_public_key_of_the_page_is_that_of_the_log(run: Run) -> None:
    (printed,) = run("rotate-keys", "signing").splitlines()
    assert printed == encode_verifier_key(signing_keys.get_checkpoint_origin(1), KEY.public_key())


@pytest.mark.django_db(**EVERYTHING)
def test_events_of_the_local_account_are_exported(run: Run) -> None:
    assert run("local-accounts", "export") == ""


@pytest.mark.django_db(**EVERYTHING)
def test_hold_of_the_page_is_placed_listed_and_released(
    op: ScriptedOP, run: Run, sign_in: Callable[..., SignedIn]
) -> None:
    placing, listing, releasing = commands("retention", "hold")
    subject = str(sign_in().session.subject.uuid)
    call_command(*(subject if word == "6f1e0c1e-…" else word for word in placing[2:]))
    (hold,) = LegalHold.objects.all()
    call_command(*listing[2:])
    call_command(*(str(hold.pk) if word == "0b7a…" else word for word in releasing[2:]))
    hold.refresh_from_db()
    assert hold.released_at is not None
    (suspending,) = commands("retention", "suspend")
    call_command(*(subject if word == "6f1e0c1e-…" else word for word in suspending[2:]))
    (hold,) = LegalHold.objects.filter(released_at=None)
    assert (hold.agency, hold.suspended_purposes) == ("Board of Health", ["HLEGAL"])


@pytest.mark.django_db(**EVERYTHING)
def test_reference_of_a_refusal_leads_to_its_event() -> None:
    (event,) = events(1)
    sql = block("troubleshooting", "reference")
    shown = "01a20f04-df0d-7d9d-af57-46f39850d3be"
    here = str(event) if connections["phi_audit"].vendor == "postgresql" else event.hex
    with connections["phi_audit"].cursor() as cursor:
        cursor.execute(sql.replace(shown, here))
        assert len(cursor.fetchall()) == 1


def request() -> HttpRequest:
    made = RequestFactory().get("/")
    made.user, made.session = AnonymousUser(), {}  # type: ignore[assignment]
    return made


@pytest.mark.parametrize(
    ("page", "name", "shown"),
    [
        ("logout", "form", 'action="/oidc/logout/"'),
        ("several-providers", "link", 'href="/oidc/staff/authenticate/?next=/rota/"'),
        ("session-timeout-warning", "tag", "<head>"),
    ],
)
def test_documented_template_renders(page: str, name: str, shown: str) -> None:
    assert shown in engines["django"].from_string(block(page, name)).render({}, request())


def test_documented_passive_view_works() -> None:
    unread = executed("session-timeout-warning", "passive")["unread"]
    assert unread(request()) is None
