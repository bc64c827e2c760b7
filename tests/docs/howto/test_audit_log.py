"""The commands of the pages on sealing, restoring and archiving print what the pages show."""

import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connections
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.declaration import parse_witness
from django_phi_oidc.audit.formats import item_to_line
from django_phi_oidc.audit.log.cursor import DeliveryPosition, read_items
from django_phi_oidc.audit.log.signing_keys import get_public_keys
from django_phi_oidc.audit.merkle.checkpoint import RetiredKey, encode_verifier_key
from django_phi_oidc.audit.merkle.cosignature import parse_witness_key
from django_phi_oidc.audit.merkle.witness_protocol import WitnessFault
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.testing.runner import DROP_TRIGGER_STATEMENTS
from tests.support.audit_fixtures import TRIGGERS
from tests.support.audit_log import KEY, NOW, PEM, events, seal_now, sealed
from tests.support.audit_tampering import is_postgresql, sql, without_triggers
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.witness_server import witness

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ROOT = Path(__file__).resolve().parents[3]
HOW_TO = ROOT / "docs" / "how-to"
NAMES = (
    *("read-the-audit-log", "seal-the-audit-log", "archive-the-audit-log", "restore-from-a-backup"),
    *("siem", "rotate-keys", "postgresql-role", "tiles", "witnesses"),
)
PAGES = {name: (HOW_TO / f"{name}.md").read_text() for name in NAMES}
EXAMPLE_ID = "01990000-0000-7000-8000-000000000001"


def block(page: str, name: str) -> str:
    match = re.search(rf"<!-- tested: {name} -->\n```\w+\n(.*?)```", PAGES[page], re.DOTALL)
    assert match, name
    return match[1]


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    options = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})
    with override_settings(PHI_OIDC=options), clock.override_clock(lambda: NOW + timedelta(minutes=1)):
        yield


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[[str, str, dict[str, str]], None]:
    """Return a function that runs the commands of a block, and compares their output with the page."""

    def run_block(page: str, name: str, replacements: dict[str, str]) -> None:
        lines = block(page, name).splitlines()
        commands = [number for number, line in enumerate(lines) if line.startswith("$ ")]
        assert commands
        for number, after in zip(commands, [*commands[1:], len(lines)], strict=True):
            command, expected = lines[number][2:], "\n".join(lines[number + 1 : after])
            for old, new in replacements.items():
                command, expected = command.replace(old, new), expected.replace(old, new)
            printed = execute(command, capsys)
            pattern = re.escape(expected.strip()).replace("…", r"[^ ]*?").replace(r"\n", "\n")
            if "=" not in expected:
                assert re.fullmatch(pattern, printed.strip()), (command, printed)

    return run_block


def execute(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    command, _, target = command.partition(" > ")
    parts = shlex.split(command)
    capsys.readouterr()
    if parts[0] == "cat":
        printed = Path(parts[1]).read_text()
    elif parts[1] == "manage.py":
        call_command(*parts[2:])
        printed = capsys.readouterr().out
    else:
        environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
        process = subprocess.run(
            [sys.executable, *parts[1:]], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        printed = process.stdout
    if target:
        Path(target).write_text(printed)
        return ""
    return printed


def verifier_key(capsys: pytest.CaptureFixture[str]) -> str:
    return execute("python manage.py phi_oidc audit checkpoint --public-key", capsys).strip()


def test_export_and_its_verification(run: Callable[..., None]) -> None:
    sealed(3, at=NOW - timedelta(days=30))
    sealed(4)
    dates = {"2026-03-01": "2026-10-01", "2026-04-01": "2026-11-01"}
    run("read-the-audit-log", "check-export", {**dates, "853": "3", "1763": "7", "a18a037c": ""})


def test_commands_of_the_sealing_page(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    ids = events(312)
    run("seal-the-audit-log", "seal", {})
    replacements = {"portal.example/audit+1d5a4a4f+AQ…": verifier_key(capsys), EXAMPLE_ID: str(ids[0])}
    for name in ("checkpoint", "verify", "prove"):
        run("seal-the-audit-log", name, replacements)
    # The events of verifying and proving.
    seal_now()
    sealed(330 - 312 - AuditEvent.objects.filter(action__startswith="audit.").count())
    execute("python manage.py phi_oidc audit checkpoint > newer.txt", capsys)
    run("seal-the-audit-log", "consistency", replacements)


def test_commands_of_the_page_on_witnesses(
    run: Callable[..., None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    ids = events(312)
    with ExitStack() as stack:
        running = [
            stack.enter_context(witness(f"witness.example/w{number}", tmp_path, {"phi-oidc-audit": KEY.public_key()}))
            for number in (1, 2)
        ]
        for started in running:
            started.clock = NOW.timestamp
        example: dict[str, Any] = {"PHI_OIDC": {"AUDIT": {}}}
        exec(block("witnesses", "witnesses"), example)
        audit = example["PHI_OIDC"]["AUDIT"]
        for (name, raw), started in zip(audit["witnesses"].items(), running, strict=True):
            assert parse_witness_key(parse_witness(name, raw).key)
            raw.update(key=started.vkey, url=started.url)
        with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT=audit)):
            seal_now()
            run("witnesses", "state", {})
            keys = {"LOG_KEY": verifier_key(capsys), "FIRST_KEY": running[0].vkey, "SECOND_KEY": running[1].vkey}
            run("witnesses", "prove", {**keys, EXAMPLE_ID: str(ids[0])})


def test_commands_of_the_page_on_tiles(run: Callable[..., None], tmp_path: Path) -> None:
    sealed(312)
    example: dict[str, Any] = {"PHI_OIDC": {"AUDIT": {}}, "Path": Path}
    exec(block("tiles", "tiles"), example)
    assert example["PHI_OIDC"]["AUDIT"]["tiles"].is_absolute()
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": tmp_path / "tiles"})):
        run("tiles", "export", {})
    assert (tmp_path / "tiles" / "tile" / "0" / "001.p" / "56").is_file()


def test_every_reason_of_a_witness_is_documented() -> None:
    assert set(re.findall(r"`(witness_\w+)`", PAGES["witnesses"])) >= {fault.value for fault in WitnessFault}


def test_commands_of_the_restore_page(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    sealed(305)
    sealed(7)
    execute("python manage.py phi_oidc audit checkpoint > checkpoint.txt", capsys)
    with without_triggers():
        sql("DELETE FROM phi_oidc_audit_auditleaf WHERE leaf_index >= 305")
        sql("DELETE FROM phi_oidc_audit_auditcheckpoint WHERE tree_size > 305")
    printed = execute(block("restore-from-a-backup", "resume").splitlines()[0][2:], capsys)
    assert printed.splitlines()[:2] == block("restore-from-a-backup", "resume").splitlines()[1:3]


def test_commands_of_the_archive_page(run: Callable[..., None]) -> None:
    sealed(312)
    run("archive-the-audit-log", "archive", {})
    if is_postgresql():
        # Test databases do not have this trigger.
        for statement in TRIGGERS.create_refusals_postgresql("auditevent"):
            if "refuse_delete" in statement:
                sql(statement)
        for statement in block("archive-the-audit-log", "removing").split(";\n"):
            if statement.strip():
                sql(statement)
        with connections["phi_audit"].cursor() as cursor:
            cursor.execute("SELECT tgenabled FROM pg_trigger WHERE tgname = 'phi_oidc_audit_refuse_delete'")
            assert cursor.fetchone() == ("A",)
        sql("DROP TRIGGER phi_oidc_audit_refuse_delete ON phi_oidc_audit_auditevent")
        assert AuditEvent.objects.filter(action="claim.revealed").count() == 0
        run("archive-the-audit-log", "after", {})


def test_commands_that_verify_a_copy(run: Callable[..., None], capsys: pytest.CaptureFixture[str]) -> None:
    sealed(312)
    items = read_items(DeliveryPosition(), limit=1000).items
    Path("audit.jsonl").write_text("".join(f"{item_to_line(item, 'json', hostname='portal')}\n" for item in items))
    run("siem", "copy", {"portal.example/audit+1d5a4a4f+AQ…": verifier_key(capsys)})
    assert AuditEvent.objects.count() == 312


def test_retired_key_of_the_manual_is_accepted() -> None:
    namespace: dict[str, Any] = {"PHI_OIDC": {"KEYS": {}}}
    vkey = encode_verifier_key("portal.example/audit", KEY.public_key())
    text = block("rotate-keys", "retired")
    exec(re.sub(r"portal\.example/audit\+\w+\+AQ…", vkey, text), namespace)
    options = override_phi_oidc(settings.PHI_OIDC, KEYS=namespace["PHI_OIDC"]["KEYS"])
    with override_settings(PHI_OIDC=options):
        current, retired, _ = get_public_keys()
    assert (current, retired) == (KEY.public_key(), RetiredKey(KEY.public_key(), 48213))


def test_command_that_repairs_the_triggers(run: Callable[..., None]) -> None:
    repairing = block("postgresql-role", "protection").split("$ ")[2]
    try:
        command, printed = repairing.split("\n", 1)
        call_command(*command.split()[2:], stdout=(output := StringIO()))
        assert output.getvalue() == printed
    finally:
        for statement in DROP_TRIGGER_STATEMENTS[connections["phi_audit"].vendor]:
            sql(statement)
