"""Migrations lead there and back; that of the trail refuses to go back while there are events."""

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc import migrations
from tests.support.temporary_databases import scratch_databases

pytestmark = pytest.mark.each_database
LOOK = """
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

def migrate_both(*where):
    migrate(*where)
    migrate(*where, alias="phi_audit")
"""
TABLES = ("audit", "auditcheckpoint", "auditleaf", "auditnode")
REFUSED = {"sqlite": ("delete", "replace", "update"), "postgresql": ("delete A", "truncate A", "update A")}
QUEUE = {"sqlite": "phi_oidc_audit_queue", "postgresql": "phi_oidc_audit_queue A"}
IN_PLACE = {
    vendor: sorted([QUEUE[vendor], *(f"phi_oidc_{table}_refuse_{what}" for table in TABLES for what in refused)])
    for vendor, refused in REFUSED.items()
}
RECORD = """
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.recorder import record
record(Action.LOGIN_REFUSED, origin=Origin(), now=datetime.now(UTC))
"""


each_arrangement = pytest.mark.parametrize(
    "environment", ["shared", pytest.param("separate", marks=pytest.mark.postgresql)], indirect=True
)


@pytest.fixture
def environment(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dict[str, str]]:
    """Return the environment of one database that bears both aliases, where there can be one, or of two."""
    with scratch_databases(tmp_path, shared=getattr(request, "param", "shared") == "shared") as environment:
        yield environment


def run(environment: dict[str, str], script: str) -> Any:
    """Return what the script prints as JSON, as a process of its own."""
    command = [sys.executable, "-c", LOOK + script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def in_place(environment: dict[str, str]) -> list[str]:
    return IN_PLACE[environment.get("PHI_TEST_DB", "sqlite")]


@each_arrangement
def test_migrate_of_both_aliases_puts_the_triggers_in_place(environment: dict[str, str]) -> None:
    found = run(environment, 'migrate_both(); print(json.dumps([triggers("default"), triggers("phi_audit")]))')
    assert found == [in_place(environment)] * 2


def test_migrate_of_the_trail_makes_its_own_tables_alone(tmp_path: Path) -> None:
    with scratch_databases(tmp_path) as environment:
        script = 'migrate(alias="phi_audit"); print(json.dumps(connections["phi_audit"].introspection.table_names()))'
        of_trail = ("checkpoint", "event", "leaf", "node", "unsealed")
        assert sorted(run(environment, script)) == [
            "django_migrations",
            *(f"django_phi_oidc_audit{name}" for name in of_trail),
        ]


@each_arrangement
def test_migrate_of_the_trail_back_and_forth_without_events_drops_and_makes_the_triggers(
    environment: dict[str, str],
) -> None:
    script = """
migrate_both()
migrate_both("django_phi_oidc", "0001")
without = triggers("phi_audit")
migrate_both("django_phi_oidc", "zero")
tables = connections["default"].introspection.table_names() + connections["phi_audit"].introspection.table_names()
migrate_both()
print(json.dumps([without, [name for name in tables if "phi_oidc" in name], triggers("phi_audit")]))
"""
    assert run(environment, script) == [[], [], in_place(environment)]


def test_migrate_of_the_trail_back_with_events_is_refused_and_changes_nothing(environment: dict[str, str]) -> None:
    script = f"""
from django.db.migrations.exceptions import IrreversibleError
from django.db.migrations.recorder import MigrationRecorder
migrate_both()
{RECORD}
try:
    migrate("django_phi_oidc", "zero", alias="phi_audit")
except IrreversibleError as error:
    refusal = str(error)
recorded = MigrationRecorder(connections["phi_audit"]).applied_migrations()
applied = ("django_phi_oidc", "0004_transparency_log") in recorded
print(json.dumps([refusal, applied, triggers("phi_audit")]))
"""
    refusal, applied, triggers = run(environment, script)
    assert "holds events" in refusal
    assert applied
    assert triggers == in_place(environment)


def test_migrate_of_the_log_back_with_leaves_is_refused_and_without_them_goes(environment: dict[str, str]) -> None:
    script = f"""
from django.db.migrations.exceptions import IrreversibleError
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from django_phi_oidc.audit.log.sequencer import append_to_log
migrate_both()
migrate_both("django_phi_oidc", "0003")
without = triggers("phi_audit")
{RECORD}
migrate_both()
sealed = append_to_log(key=Ed25519PrivateKey.generate(), now=datetime.now(UTC)).events
try:
    migrate("django_phi_oidc", "0003", alias="phi_audit")
except IrreversibleError as error:
    refusal = str(error)
print(json.dumps([without, sealed, refusal, triggers("phi_audit")]))
"""
    without, sealed, refusal, left = run(environment, script)
    assert without == [name for name in in_place(environment) if name.startswith("phi_oidc_audit_refuse")]
    assert sealed == 1, "an event of before the migration was not caught up with"
    assert "holds events" in refusal
    assert left == in_place(environment)


def test_migrate_of_pairwise_identifiers_back_drops_their_table_and_forth_makes_it_again(tmp_path: Path) -> None:
    script = """
from django.contrib.auth import get_user_model
from django_phi_oidc.subjects.models import PairwiseIdentifier

def kept():
    return "django_phi_oidc_pairwiseidentifier" in connections["default"].introspection.table_names()

def store():
    PairwiseIdentifier.objects.create(user=user, sector="lab", value="f" * 64)

migrate_both()
user = get_user_model().objects.create_user("amina")
store()
found = [kept()]
migrate_both("django_phi_oidc", "0002")
found += [kept()]
migrate_both()
store()
print(json.dumps([*found, PairwiseIdentifier.objects.count()]))
"""
    with scratch_databases(tmp_path) as environment:
        assert run(environment, script) == [True, False, 1]


def test_migrate_of_names_touches_no_table_there_and_back(environment: dict[str, str]) -> None:
    """0014, which makes a table, is the control."""
    script = """
from io import StringIO

def statements(name, alias, **options):
    out = StringIO()
    call_command("sqlmigrate", "django_phi_oidc", name, database=alias, stdout=out, no_color=True, **options)
    return [line for line in out.getvalue().splitlines() if line not in ("BEGIN;", "COMMIT;") and line[:2] != "--"]

migrate_both()
found = [statements("0015", alias, backwards=back) for alias in ("default", "phi_audit") for back in (False, True)]
migrate_both("django_phi_oidc", "0014")
migrate_both()
print(json.dumps([found, bool(statements("0014", "default"))]))
"""
    assert run(environment, script) == [[[]] * 4, True]


def test_migrations_import_nothing_of_ours_but_fields() -> None:
    """What is imported outlives the file that it lies in: a feature leaves by its folder, and a migration stays."""
    files = sorted(Path(migrations.__file__).parent.glob("0*.py"))
    assert len(files) >= 3
    imported = {
        name.name if isinstance(node, ast.Import) else f"{'.' * node.level}{node.module or ''}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in node.names
    }
    assert {name for name in imported if name.startswith(("django_phi_oidc", "."))} == {"django_phi_oidc.fields"}


def test_makemigrations_has_nothing_to_add() -> None:
    command = [sys.executable, "-m", "django", "makemigrations", "--check", "--dry-run", "--settings=tests.settings"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
