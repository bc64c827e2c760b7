"""Migrations are reversible, except that of the audit log when it contains events."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import django_phi_oidc
from tests.support.temporary_databases import scratch_databases

pytestmark = pytest.mark.each_database
PRELUDE = """
import json, django
django.setup()
from datetime import UTC, datetime
from django.core.management import call_command
from django.db import connections

TRIGGERS = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    "postgresql": "SELECT tgname || ' ' || tgenabled::text FROM pg_trigger WHERE NOT tgisinternal",
}

def triggers(alias):
    with connections[alias].cursor() as cursor:
        cursor.execute(TRIGGERS[connections[alias].vendor])
        return sorted(name for name, in cursor.fetchall())

def migrate(*where, alias="default"):
    call_command("migrate", *where, database=alias, verbosity=0)

LABELS = [
    *("phi_oidc_legal_holds", "phi_oidc_emergency", "phi_oidc_scim", "phi_oidc_invitations", "phi_oidc_notices"),
    *("phi_oidc_audit_exports", "phi_oidc_individual_rights", "phi_oidc_monitoring", "phi_oidc_officer_admin"),
    *("phi_oidc_local_accounts", "phi_oidc_retention_keys"),
    *("phi_oidc_siem", "phi_oidc_audit", "django_phi_oidc"),
]

def migrate_both(*where):
    migrate(*where)
    migrate(*where, alias="phi_audit")
"""
TABLES = ("audit", "auditcheckpoint", "auditleaf", "auditnode")
REFUSED_OPERATIONS = {"sqlite": ("delete", "replace", "update"), "postgresql": ("delete A", "truncate A", "update A")}
HOLD_TRIGGERS = ("phi_oidc_claim_held", "phi_oidc_hold_active")
QUEUE_TRIGGER = {"sqlite": "phi_oidc_audit_queue", "postgresql": "phi_oidc_audit_queue A"}
EXPECTED_TRIGGERS = {
    kind: sorted(
        [QUEUE_TRIGGER[kind], *(f"phi_oidc_{table}_refuse_{operation}" for table in TABLES for operation in refused)]
    )
    for kind, refused in REFUSED_OPERATIONS.items()
}


both_layouts = pytest.mark.parametrize(
    "environment", ["shared", pytest.param("separate", marks=pytest.mark.postgresql)], indirect=True
)


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment of one database with both aliases, if the vendor permits it, or of two."""
    with scratch_databases(tmp_path, shared=getattr(request, "param", "shared") == "shared") as environment:
        yield environment


def run(environment: dict[str, str], script: str) -> Any:
    """Return the JSON that the script prints in a new process."""
    command = [sys.executable, "-c", PRELUDE + script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def vendor(environment: dict[str, str]) -> str:
    return environment.get("PHI_TEST_DB", "sqlite")


def expected_triggers(environment: dict[str, str], *, holds: bool = False) -> list[str]:
    """holds: whether the database has the tables of claims and legal holds, too."""
    names = HOLD_TRIGGERS if holds else ()
    return sorted(
        [
            *EXPECTED_TRIGGERS[vendor(environment)],
            *(f"{name}{' O' if vendor(environment) == 'postgresql' else ''}" for name in names),
        ]
    )


@both_layouts
def test_migrating_both_aliases_creates_the_triggers(
    environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    triggers = run(environment, 'migrate_both(); print(json.dumps([triggers("default"), triggers("phi_audit")]))')
    is_shared = request.node.callspec.params["environment"] == "shared" and vendor(environment) == "postgresql"
    if vendor(environment) == "sqlite":
        # The tables of the audit database are not created a second time in the file of the portal.
        assert triggers == [sorted(HOLD_TRIGGERS), expected_triggers(environment)]
    else:
        assert triggers == [expected_triggers(environment, holds=True), expected_triggers(environment, holds=is_shared)]


def test_migrating_the_audit_alias_creates_only_its_tables(tmp_path: Path) -> None:
    with scratch_databases(tmp_path) as environment:
        script = 'migrate(alias="phi_audit"); print(json.dumps(connections["phi_audit"].introspection.table_names()))'
        tables = ("checkpoint", "event", "leaf", "node", "unsealed")
        assert sorted(run(environment, script)) == [
            "django_migrations",
            *(f"phi_oidc_audit_audit{name}" for name in tables),
        ]


@both_layouts
def test_migrating_an_empty_audit_log_back_and_forth_drops_and_creates_the_triggers(
    environment: dict[str, str], request: pytest.FixtureRequest
) -> None:
    script = """
migrate_both()
for label in LABELS:
    migrate_both(label, "zero")
tables = connections["default"].introspection.table_names() + connections["phi_audit"].introspection.table_names()
migrate_both()
print(json.dumps([[name for name in tables if "phi_oidc" in name], triggers("phi_audit")]))
"""
    is_shared = vendor(environment) == "postgresql" and request.node.callspec.params["environment"] == "shared"
    assert run(environment, script) == [[], expected_triggers(environment, holds=is_shared)]


LIKE_INDEXES = """
migrate()
with connections["default"].cursor() as cursor:
    names = connections["default"].introspection.get_constraints(cursor, "django_phi_oidc_usedidentifier")
print(json.dumps([name for name in names if name.endswith("_like")]))
"""


def test_identifiers_have_no_second_index_of_their_key(environment: dict[str, str]) -> None:
    assert run(environment, LIKE_INDEXES) == []


@pytest.mark.parametrize("seals", [False, True])
def test_migrating_an_audit_log_with_events_back_is_refused(environment: dict[str, str], *, seals: bool) -> None:
    script = f"""
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.recorder import MigrationRecorder
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.log.sequencer import append_to_log
from django_phi_oidc.audit.recorder import record
migrate_both()
record(Action.LOGIN_REFUSED, origin=Origin(), now=datetime.now(UTC))
sealed = append_to_log(key=Ed25519PrivateKey.generate(), now=datetime.now(UTC)).event_count if {seals} else 0
try:
    migrate("phi_oidc_audit", "zero", alias="phi_audit")
except IrreversibleError as error:
    refusal = str(error)
recorded = MigrationRecorder(connections["phi_audit"]).applied_migrations()
print(json.dumps([sealed, refusal, ("phi_oidc_audit", "0001_initial") in recorded, triggers("phi_audit")]))
"""
    sealed, refusal, is_applied, triggers = run(environment, script)
    assert sealed == int(seals)
    assert "holds events" in refusal
    assert is_applied
    assert triggers == expected_triggers(environment, holds=vendor(environment) == "postgresql")


HOLD_SCRIPT = """
from django.contrib.auth import get_user_model
from django.db import DatabaseError, transaction
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.subjects.linking import get_or_create_account
from django_phi_oidc.crypto.keyring import get_keys
migrate_both()
now = datetime.now(UTC)
linked = get_or_create_account(
    issuer="https://op.example.test", sub="s", keys=get_keys("subject"),
    create_user=lambda: get_user_model().objects.create_user("amina"), origin=Origin(), provider="default", now=now,
)
StoredClaim.objects.create(
    subject=linked.subject, name="address", value='"x"', purpose="TREAT", obtained_at=now, expires_at=now,
)
hold = place_hold(linked.subject.uuid, reason="Docket", until=None, origin=Origin(), now=now)
results = []
for table in ("django_phi_oidc_storedclaim", "phi_oidc_legal_holds_legalhold", "django_phi_oidc_storedclaim"):
    try:
        with transaction.atomic(), connections["default"].cursor() as cursor:
            cursor.execute(f"DELETE FROM {table}")
        results.append("deleted")
    except DatabaseError as error:
        results.append(str(error).splitlines()[0])
    if table.endswith("legalhold"):
        release_hold(hold.pk, origin=Origin(), now=now)
print(json.dumps([results, StoredClaim.objects.count(), LegalHold.objects.count()]))
"""


def test_f6_database_refuses_to_delete_what_a_hold_without_an_end_keeps(environment: dict[str, str]) -> None:
    refusal = "a legal hold keeps this row: release it first"
    assert run(environment, HOLD_SCRIPT) == [[refusal, refusal, "deleted"], 0, 1]


def test_migrations_import_only_fields_of_the_package() -> None:
    """Migrations are permanent, so they must not import modules that may be renamed or removed."""
    files = sorted(Path(django_phi_oidc.__file__).parent.rglob("migrations/0*.py"))
    assert len(files) >= 12
    imported = {
        name.name if isinstance(node, ast.Import) else f"{'.' * node.level}{node.module or ''}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert {name for name in imported if name.startswith(("django_phi_oidc", "."))} == {"django_phi_oidc.fields"}


def test_makemigrations_finds_no_change() -> None:
    command = [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run", "--settings=tests.settings"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
