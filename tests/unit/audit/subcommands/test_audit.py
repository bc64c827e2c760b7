"""`manage.py phi_oidc audit`: output, recorded events and exit status."""

import gzip
import hashlib
import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from django.conf import settings
from django.core.files.storage import InMemoryStorage
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.errors import CheckpointInvalid, ProofInvalid
from django_phi_oidc.audit.events import (
    Action,
    AuthenticatedEvent,
    NewEvent,
    Origin,
    build_event,
    canonical_bytes,
    compute_mac,
    parse_detail,
)
from django_phi_oidc.audit.log import bundle
from django_phi_oidc.audit.log.archive import verify_archive
from django_phi_oidc.audit.log.archive_records import read_archive_record
from django_phi_oidc.audit.log.models import ArchiveFile
from django_phi_oidc.audit.merkle.checkpoint import parse_checkpoint, parse_verifier_key
from django_phi_oidc.audit.merkle.rfc6962 import hash_leaf
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent, AuditLeaf, VerificationRecord
from django_phi_oidc.audit.storage import authenticate_event, authenticate_late, insert_events, parse_event_row
from django_phi_oidc.crypto import keyring
from tests.support.audit_log import KEY, NOW, OTHER_KEY, PEM, events, forge_declaration, seal_now, sealed
from tests.support.audit_tampering import EVENT, LEAF, is_postgresql, sql, without_triggers
from tests.support.manual_blocks import block
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.witness_server import Witness, witness

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
LATER = NOW + timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _with_key() -> Iterator[None]:
    with (
        override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})),
        clock.override_clock(lambda: LATER),
    ):
        yield


@pytest.fixture
def audit(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Return a function that runs a subcommand and returns its output."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        call_command("phi_oidc", "audit", *map(str, arguments))
        return capsys.readouterr().out

    return run


def detail_of(action: str) -> dict[str, Any]:
    """Return the detail of the newest event of that action."""
    return json.loads(AuditEvent.objects.filter(action=action).last().detail)


def test_seal_seals_new_events_and_prints_their_number(audit: Callable[..., str]) -> None:
    events(3)
    assert audit("seal") == "Sealed: 3; refused: 0.\n"
    assert audit("seal") == "Sealed: 0; refused: 0.\n"
    assert AuditLeaf.objects.count() == 3


def test_seal_with_a_refused_event_fails_and_seals_the_others(audit: Callable[..., str]) -> None:
    ids = events(3)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET actor = 'x' WHERE id = %s", ids[1])
    with pytest.raises(CommandError, match="refused"):
        audit("seal")
    # The alert is the third event.
    assert AuditLeaf.objects.count() == 2
    assert audit("seal") == "Sealed: 1; refused: 0.\n"


def test_seal_requires_the_signing_key(audit: Callable[..., str]) -> None:
    events(1)
    without = override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": None}))
    with without, pytest.raises(CommandError, match="audit_signing"):
        audit("seal")
    assert "Sealed: 1" in audit("seal")


def test_verify_of_an_intact_log_succeeds_and_records_an_event(audit: Callable[..., str]) -> None:
    sealed(3)
    assert audit("verify") == (
        "3 sealed events (0 of them from archives), 1 checkpoints, 0 events wait to be sealed; no faults.\n"
    )
    assert detail_of("audit.verified") == {"tree_size": 3, "events": 3, "findings": 0, "kinds": []}


def test_p2_verify_says_how_many_events_were_signed_late(audit: Callable[..., str]) -> None:
    sealed(2)
    assert "signed late" not in audit("verify")
    keys = keyring.get_keys("audit_mac")
    for count in range(2):
        withdrawal = NewEvent("session.ended", Origin(), NOW + timedelta(seconds=count), reason="logout")
        event = build_event(withdrawal, id=uuid7(withdrawal.now), mac_key="")
        insert_events([authenticate_late(event, keys=keys)])
    seal_now(at=NOW + timedelta(seconds=2))
    assert audit("verify").endswith("; no faults. 2 of the events were signed late.\n")
    assert '"signed_late": 2' in audit("verify", "--json", "--full")


def test_verify_of_a_tampered_log_reports_the_event_and_fails(
    audit: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    ids = sealed(3)
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE id = %s", ids[1])
    with pytest.raises(CommandError, match="changed after it was sealed"):
        audit("verify")
    assert f"event_missing: event {ids[1]} leaf 1: It was sealed, and is gone." in capsys.readouterr().out
    with pytest.raises(CommandError):
        audit("verify", "--json")
    first, whole = map(json.loads, capsys.readouterr().out.splitlines())
    assert (first["kind"], first["event_id"], first["leaf_index"], first["fault"]) == (
        "event_missing",
        str(ids[1]),
        1,
        True,
    )
    assert (whole["faults"], whole["found"], whole["tree_size"]) == (1, {"event_missing": 1}, 3)
    assert detail_of("audit.verified")["kinds"] == ["event_missing"]
    assert AuditEvent.objects.filter(action="audit.verified", outcome="failure").count() == 2


def test_verify_with_an_external_checkpoint_detects_truncation(
    audit: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sealed(3)
    checkpoint = tmp_path / "checkpoint.txt"
    checkpoint.write_text(audit("checkpoint"))
    assert "no faults" in audit("verify", "--checkpoint", checkpoint)
    with without_triggers():
        for table in ("event", "leaf", "checkpoint", "unsealed"):
            sql(f"DELETE FROM phi_oidc_audit_audit{table}")
    VerificationRecord.objects.all().delete()
    assert "no faults" in audit("verify")
    with pytest.raises(CommandError):
        audit("verify", "--checkpoint", checkpoint)
    assert "log_truncated" in capsys.readouterr().out


def test_verify_with_an_unsigned_checkpoint_is_refused(audit: Callable[..., str], tmp_path: Path) -> None:
    sealed(3)
    checkpoint = tmp_path / "checkpoint.txt"
    checkpoint.write_text(audit("checkpoint").replace("\n3\n", "\n2\n"))
    with pytest.raises(CommandError, match=r"checkpoint\.txt"):
        audit("verify", "--checkpoint", checkpoint)
    with pytest.raises(CommandError, match="No such file"):
        audit("verify", "--checkpoint", tmp_path / "none.txt")


def check(file: Path, *keys: str) -> subprocess.CompletedProcess[str]:
    """Check a proof in a process without Django."""
    without = (
        "import sys; sys.modules['django'] = None; from django_phi_oidc.audit.log.bundle import main; sys.exit(main())"
    )
    arguments = [part for key in keys for part in ("--public-key", key)]
    return subprocess.run(
        [sys.executable, "-c", without, str(file), *arguments],
        env={"PATH": "", "PYTHONPATH": str(Path(__file__).parents[4])},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def check_form(proof: Path, form: dict[str, Any]) -> None:
    """Compare the members of a proof with those on the page."""
    bundle = json.loads(proof.read_text())
    assert list(bundle) == list(form)
    assert bundle["format"] == form["format"]
    assert {name: type(value) for name, value in bundle.items()} == {name: type(value) for name, value in form.items()}


def test_proof_is_verified_without_django(audit: Callable[..., str], tmp_path: Path) -> None:
    ids = sealed(300)
    proof = tmp_path / "proof.json"
    proof.write_text(audit("prove", ids[7]))
    check_form(proof, json.loads(block("log-format", "inclusion")))
    assert (detail_of("audit.exported"), AuditEvent.objects.last().resource) == (
        {"format": "proof"},
        f"AuditEvent/{ids[7]}",
    )
    vkey = audit("checkpoint", "--public-key").strip()
    (tmp_path / "key.pem").write_bytes(KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for key in (vkey, str(tmp_path / "key.pem")):
        done = check(proof, key)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"event {ids[7]} (claim.revealed" in done.stdout
        assert "leaf 7 of 300 in phi-oidc-audit" in done.stdout
    assert audit("check-proof", proof, "--public-key", vkey) == done.stdout


DAMAGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a changed field": lambda proof: proof["event"].update(actor="8"),
    "an additional field": lambda proof: proof["event"].update(more="8"),
    "a missing field": lambda proof: proof["event"].pop("actor"),
    "another leaf": lambda proof: proof.update(leaf_index=8),
    "not an integer": lambda proof: proof.update(leaf_index="7"),
    "a missing hash": lambda proof: proof["proof"].pop(),
    "not base64": lambda proof: proof["proof"].__setitem__(0, "!"),
    "not a list": lambda proof: proof.update(proof=7),
    "not an event": lambda proof: proof.update(event=[]),
    "another size": lambda proof: proof.update(checkpoint=proof["checkpoint"].replace("\n300\n", "\n299\n")),
    "another format": lambda proof: proof.update(format="phi-oidc-inclusion-proof/2"),
    "an additional member": lambda proof: proof.update(more=1),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_check_proof_of_a_damaged_proof_fails(
    damage: Callable[[dict[str, Any]], object], audit: Callable[..., str], tmp_path: Path
) -> None:
    proof = tmp_path / "proof.json"
    ids = sealed(300)
    whole = audit("prove", ids[7])
    key = audit("checkpoint", "--public-key").strip()
    proof.write_text(whole)
    assert "Holds" in audit("check-proof", proof, "--public-key", key)
    bundle = json.loads(whole)
    damage(bundle)
    proof.write_text(json.dumps(bundle))
    with pytest.raises(CommandError):
        audit("check-proof", proof, "--public-key", key)


def test_check_proof_with_another_key_or_without_a_proof_fails(audit: Callable[..., str], tmp_path: Path) -> None:
    (id_,) = sealed(1)
    proof = tmp_path / "proof.json"
    proof.write_text(audit("prove", id_))
    other = OTHER_KEY.public_key().public_bytes_raw().hex()
    for key in (other, "", "x" * 44):
        assert check(proof, key).returncode == 1
    proof.write_text("[]")
    assert check(proof, audit("checkpoint", "--public-key").strip()).returncode == 1
    assert check(tmp_path / "none", "x").returncode == 1


def test_prove_of_an_unsealed_or_missing_event_fails(audit: Callable[..., str]) -> None:
    (id_,) = events(1)
    with pytest.raises(CommandError, match="not sealed yet"):
        audit("prove", id_)
    with pytest.raises(CommandError, match="no event"):
        audit("prove", uuid.uuid4())
    audit("seal")
    assert "inclusion-proof" in audit("prove", id_)


def test_consistency_proof_is_verified_without_django(audit: Callable[..., str], tmp_path: Path) -> None:
    files = []
    for number, count in enumerate((3, 400, 7)):
        sealed(count, at=NOW + timedelta(seconds=number))
        files.append(tmp_path / f"{number}.txt")
        files[-1].write_text(audit("checkpoint"))
    key = audit("checkpoint", "--public-key").strip()
    proof = tmp_path / "proof.json"
    for old, new in ((0, 1), (1, 2), (0, 2), (2, 2)):
        proof.write_text(audit("consistency", files[old], files[new]))
        check_form(proof, json.loads(block("log-format", "consistency")))
        assert "continues that of" in check(proof, key).stdout
    bundle = json.loads(proof.read_text())
    bundle["old"] = files[0].read_text()
    proof.write_text(json.dumps(bundle))
    assert check(proof, key).returncode == 1
    with pytest.raises(CommandError, match="larger"):
        audit("consistency", files[2], files[0])
    files[0].write_text(files[0].read_text().replace("\n3\n", "\n4\n"))
    with pytest.raises(CommandError, match="another root"):
        audit("consistency", files[0], files[2])


def test_checkpoint_prints_the_newest_checkpoint_and_its_key(audit: Callable[..., str]) -> None:
    with pytest.raises(CommandError, match="no checkpoint yet"):
        audit("checkpoint")
    sealed(2)
    assert parse_checkpoint(audit("checkpoint")).tree_size == 2
    name, key = parse_verifier_key(audit("checkpoint", "--public-key").strip())
    assert (name, key.public_bytes_raw()) == ("phi-oidc-audit", KEY.public_key().public_bytes_raw())


def test_export_prints_matching_events_after_it_is_recorded(audit: Callable[..., str]) -> None:
    ids = events(5, at=NOW)
    events(2, at=LATER, action="access.denied", detail={})
    lines = [json.loads(line) for line in audit("export", "--action", "claim.revealed").splitlines()]
    assert [line["id"] for line in lines] == [str(id_) for id_ in ids]
    assert detail_of("audit.exported") == {"filters": ["action"], "format": "json"}
    since = (LATER - timedelta(seconds=1)).isoformat()
    assert {json.loads(line)["action"] for line in audit("export", "--since", since).splitlines()} == {
        "access.denied",
        "audit.exported",
    }
    assert len(audit("export", "--until", "2026-11-24").splitlines()) == 0
    with pytest.raises(CommandError, match="a time is written"):
        audit("export", "--since", "yesterday")


def test_check_export_accepts_the_file_and_refuses_one_altered_byte(audit: Callable[..., str], tmp_path: Path) -> None:
    sealed(5)
    period = ("--until", (NOW + timedelta(seconds=2)).isoformat())
    file, altered = tmp_path / "export.jsonl", tmp_path / "altered.jsonl"
    file.write_text(audit("export", *period))
    assert "5 are as sealed under the checkpoint of 5 events" in audit("check-export", file, *period)
    assert detail_of("audit.viewed") == {"filters": ["until"], "page": "file"}
    totals = json.loads(audit("check-export", file, *period, "--json"))
    assert (totals["sealed_count"], totals["fault_count"], totals["tree_size"]) == (5, 0, 5)
    assert totals["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    altered.write_bytes(file.read_bytes().replace(b"birthdate", b"birthdatf", 1))
    with pytest.raises(CommandError, match="not what was exported"):
        audit("check-export", altered, *period)
    altered.write_bytes(b"".join(file.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(CommandError, match="not what was exported"):
        audit("check-export", altered, *period)
    file.write_bytes(b"")
    with pytest.raises(CommandError, match="not verified"):
        audit("check-export", file, "--until", "2026-11-01")


@pytest.mark.parametrize("name", ["archive.jsonl", "archive.jsonl.gz"])
def test_archive_is_accepted_in_place_of_its_events(name: str, audit: Callable[..., str], tmp_path: Path) -> None:
    first = sealed(300)
    last = sealed(10, at=LATER)
    first_file, second_file = tmp_path / name, tmp_path / f"second-{name}"
    assert "leaves 0 to 299" in audit("archive", first_file, "--before", (LATER - timedelta(seconds=1)).isoformat())
    assert (first_file.stat().st_mode & 0o777, detail_of("audit.archived")["tree_size"]) == (0o600, 300)
    # With the event of the first archive.
    assert "leaves 300 to 310" in audit("archive", second_file)
    archives = ("--archive", first_file, "--archive", second_file)
    assert "(0 of them from archives)" in audit("verify", *archives)
    with without_triggers():
        for id_ in (*first[:50], last[-1]):
            sql(f"DELETE FROM {EVENT} WHERE id = %s", id_)
    assert "(51 of them from archives)" in audit("verify", *archives)
    with pytest.raises(CommandError, match="changed after it was sealed"):
        audit("verify", "--archive", first_file)
    with pytest.raises(CommandError, match="gone"):
        audit("archive", tmp_path / "third", "--first", 0)
    with pytest.raises(CommandError, match="exists"):
        audit("archive", first_file, "--first", 250)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted([first_file.name, second_file.name])


def test_tampered_archive_is_refused(audit: Callable[..., str], tmp_path: Path) -> None:
    sealed(5)
    file = tmp_path / "archive"
    audit("archive", file)
    whole, keys = file.read_text(), [KEY.public_key()]
    assert verify_archive(file, keys).tree_size == 5
    lines = whole.splitlines(keepends=True)
    damaged = {
        "a changed field": whole.replace('"actor":"7"', '"actor":"8"', 1),
        "a missing line": "".join(lines[:-1]),
        "a repeated line": "".join([*lines, lines[-1]]),
        "two lines swapped": "".join([lines[0], lines[2], lines[1], *lines[3:]]),
        "only the header": lines[0],
        "another start": whole.replace('"first": 0', '"first": 1', 1),
        "no header": "".join(lines[1:]),
        "empty": "",
        "trailing data": whole + "x\n",
        "another signer": whole.replace("phi-oidc-audit", "phi-oidc-other"),
    }
    for what, text in damaged.items():
        assert text != whole, what
        file.write_text(text)
        with pytest.raises((ProofInvalid, CheckpointInvalid)):
            verify_archive(file, keys)
    (tmp_path / "archive.gz").write_bytes(b"\x1f\x8b no gzip")
    with pytest.raises(ProofInvalid):
        verify_archive(tmp_path / "archive.gz", keys)


def test_resume_continues_a_restored_log_and_refuses_an_intact_one(audit: Callable[..., str], tmp_path: Path) -> None:
    sealed(3)
    events(2)
    checkpoint = tmp_path / "checkpoint.txt"
    checkpoint.write_text(audit("checkpoint"))
    with pytest.raises(CommandError, match="nothing to resume"):
        audit("resume", "--checkpoint", checkpoint, "--reason", "x")
    audit("seal")
    checkpoint.write_text(audit("checkpoint"))
    with without_triggers():
        sql("DELETE FROM phi_oidc_audit_auditleaf WHERE leaf_index >= 3")
        sql("DELETE FROM phi_oidc_audit_auditcheckpoint WHERE tree_size > 3")
    witness = override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"witness_file": str(checkpoint)}))
    with witness, pytest.raises(CommandError, match="does not continue"):
        audit("seal")
    note = audit("resume", "--checkpoint", checkpoint, "--reason", "the disk broke")
    assert (parse_checkpoint(note).origin, parse_checkpoint(note).tree_size) == ("phi-oidc-audit/epoch-2", 4)
    detail = detail_of("audit.restored")
    assert (detail["epoch"], detail["tree_size"], detail["why"]) == (2, 5, "the disk broke")
    assert AuditCheckpoint.objects.last().epoch == 2
    with pytest.raises(CommandError, match="changed after it was sealed"):
        audit("verify", "--checkpoint", checkpoint)
    assert "no faults" in audit("verify", "--checkpoint", checkpoint, "--lost-size", 5)
    with witness:
        assert audit("seal").startswith("Sealed: ")


def test_archived_restore_event_still_declares_its_epoch(audit: Callable[..., str], tmp_path: Path) -> None:
    sealed(5)
    lost = tmp_path / "lost.txt"
    lost.write_text(audit("checkpoint"))
    with without_triggers():
        for table in ("event", "leaf", "checkpoint", "unsealed"):
            sql(f"DELETE FROM phi_oidc_audit_audit{table}")
    audit("resume", "--checkpoint", lost, "--reason", "x")
    archive = tmp_path / "archive"
    audit("archive", archive)
    with without_triggers():
        sql(f"DELETE FROM {EVENT} WHERE action = 'audit.restored'")
    output = audit("verify", "--archive", archive, "--checkpoint", lost, "--lost-size", 5)
    assert "fork_declared" in output
    assert "no faults" in output


def test_archive_with_a_flipped_bit_is_refused_or_unchanged(audit: Callable[..., str], tmp_path: Path) -> None:
    sealed(20)
    file = tmp_path / "archive.gz"
    audit("archive", file)
    whole, keys = file.read_bytes(), [KEY.public_key()]
    for place in range(0, len(whole), 7):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            assert verify_archive(file, keys).tree_size == 20
        except (ProofInvalid, CheckpointInvalid):
            continue
    (tmp_path / "deep").write_text("[" * 100_000)
    with pytest.raises(ProofInvalid):
        verify_archive(tmp_path / "deep", keys)


@pytest.mark.parametrize("size", [3, 5, 10**12])
def test_p7_archive_that_the_web_role_declares_is_refused_and_moves_no_archive(
    size: int, audit: Callable[..., str], tmp_path: Path
) -> None:
    sealed(5)
    detail = {"first": 0, "tree_size": size, "archived_size": size, "detached_leaves": [f"202610:0-{size}"]}
    forged = forge_declaration("audit.archived", detail)
    assert seal_now().refused_count == 1
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert (alert.resource, parse_detail(alert.detail)["rule"]) == (f"AuditEvent/{forged}", "event_invalid")
    assert "leaves 0 to 4" in audit("archive", tmp_path / "one", "--before", (NOW + timedelta(seconds=2)).isoformat())
    assert read_archive_record([KEY.public_key()]).archived_size == 5


def test_p7_declaration_with_a_leaf_that_no_checkpoint_covers_is_not_believed(
    audit: Callable[..., str], tmp_path: Path
) -> None:
    """The owner of the tables inserts the leaf, too."""
    sealed(5)
    forged = forge_declaration("audit.archived", {"archived_size": 3})
    leaf_hash = hash_leaf(canonical_bytes(parse_event_row(AuditEvent.objects.get(id=forged)).event))
    AuditLeaf.objects.create(leaf_index=5, event_id=forged, leaf_hash=leaf_hash)
    assert read_archive_record([KEY.public_key()]).archived_size == 0
    with without_triggers():
        sql(f"DELETE FROM {LEAF} WHERE leaf_index = 5")
        sql(f"UPDATE {LEAF} SET event_id = %s WHERE leaf_index = 4", str(forged) if is_postgresql() else forged.hex)
    assert read_archive_record([KEY.public_key()]).archived_size == 0


HOSTILE_DECLARATIONS: list[tuple[str, dict[str, Any]]] = [
    ("audit.archived", {"archived_size": 10**12, "tree_size": 10**12}),
    ("audit.archived", {"archived_size": -1, "first": -5}),
    ("audit.archived", {"archived_size": 4, "detached": ["202611"], "detached_leaves": ["202611:0-4"]}),
    ("audit.archived", {"detached_leaves": ["x", "202611:9-1", "202611:0-99999999999999999999"]}),
    ("audit.archived", {}),
    ("audit.restored", {"epoch": 2, "tree_size": 5, "root_hash": "00" * 32, "origin": "phi-oidc-audit", "why": "x"}),
    ("audit.restored", {"epoch": 10**9, "tree_size": -1, "root_hash": "x", "origin": ""}),
    ("audit.restored", {}),
]


def test_p7_declarations_of_the_web_role_stop_no_command(audit: Callable[..., str], tmp_path: Path) -> None:
    (first, *_) = sealed(5)
    for number, (action, detail) in enumerate(HOSTILE_DECLARATIONS):
        forge_declaration(action, detail, at=NOW + timedelta(seconds=number))
    # What was refused has an alert and a finding. Nothing else is different.
    with pytest.raises(CommandError, match="see `audit verify`"):
        audit("seal")
    assert AuditEvent.objects.filter(action="alert.raised").count() == 1
    with pytest.raises(CommandError, match="changed after it was sealed"):
        audit("verify")
    with pytest.raises(CommandError, match="changed after it was sealed"):
        audit("verify", "--full")
    assert "refused: 0" in audit("seal")
    leaves = AuditLeaf.objects.count()
    assert leaves == AuditEvent.objects.count() - len(HOSTILE_DECLARATIONS)
    assert f"leaves 0 to {leaves - 1}" in audit("archive", tmp_path / "1.jsonl")
    assert f"leaves {leaves} to" in audit("archive", tmp_path / "2.jsonl", "--detach")
    assert str(first) in audit("prove", first)
    assert str(first) in audit("export")
    assert "phi-oidc-audit" in audit("checkpoint")
    (tmp_path / "note").write_text(audit("checkpoint"))
    with pytest.raises(CommandError, match="nothing to resume"):
        audit("resume", "--checkpoint", tmp_path / "note", "--reason", "x")
    seal_now(at=LATER)
    sizes = [*AuditCheckpoint.objects.values_list("tree_size", flat=True)]
    assert sizes == sorted(set(sizes))


def test_p7_archive_needs_the_signing_key(audit: Callable[..., str], tmp_path: Path) -> None:
    sealed(5)
    public = KEY.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    keys = {"audit_signing": None, "audit_public": [public]}
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, KEYS=keys)):
        with pytest.raises(CommandError, match="audit_signing"):
            audit("archive", tmp_path / "one")
        assert list(tmp_path.iterdir()) == []
    assert "leaves 0 to 4" in audit("archive", tmp_path / "one")


@pytest.mark.parametrize("detail", ["no JSON", '{"tree_size":"x"}', "[" * 100_000])
def test_e3_row_that_is_no_event_does_not_stop_the_next_archive(
    detail: str, audit: Callable[..., str], tmp_path: Path
) -> None:
    sealed(3)
    audit("archive", tmp_path / "one")
    sealed(2, at=NOW + timedelta(minutes=1))
    new_event = NewEvent(Action.AUDIT_ARCHIVED, Origin(), clock.now() + timedelta(days=1))
    event = authenticate_event(new_event, allow_declaration=True).event
    event = event._replace(detail=detail)
    insert_events([AuthenticatedEvent(event, compute_mac(event, keyring.get_keys("audit_mac")[0].material))])
    assert "leaves 3 to" in audit("archive", tmp_path / "two")


@pytest.mark.parametrize(
    "arguments",
    [
        ("verify", "--unsealed-after", "1e12"),
        ("verify", "--unsealed-after", "-1"),
        ("export", "--since", "1066-10-14"),
        ("archive", "x", "--before", "0001-01-01T00:00:00+14:00"),
        ("prove", "no-uuid"),
    ],
)
def test_invalid_arguments_are_reported(arguments: tuple[str, ...], audit: Callable[..., str]) -> None:
    with pytest.raises(CommandError, match=r"argument|whole number|1970"):
        audit(*arguments)


def test_commands_report_an_unreachable_audit_database(audit: Callable[..., str], audit_database_away: Any) -> None:
    sealed(1)
    for arguments in (("verify",), ("seal",), ("checkpoint",), ("export",), ("prove", uuid.uuid4())):
        with audit_database_away(), pytest.raises(CommandError, match=r"(?i)database|audit log"):
            audit(*arguments)
    assert "no faults" in audit("verify")


def test_prove_of_a_changed_event_is_refused(audit: Callable[..., str]) -> None:
    changed, other = sealed(2)
    with without_triggers():
        sql(f"UPDATE {EVENT} SET actor = 'evil' WHERE id = %s", changed)
    with pytest.raises(CommandError, match="not what was sealed"):
        audit("prove", changed)
    assert str(other) in audit("prove", other)


def test_grants_prints_sql_and_refuses_names_that_need_quoting(audit: Callable[..., str]) -> None:
    leaf = 'GRANT SELECT, INSERT ON phi_oidc_audit_auditleaf TO "portal";'
    assert 'GRANT SELECT, INSERT ON phi_oidc_audit_auditevent TO "portal";' in audit("grants", "portal")
    assert leaf not in audit("grants", "portal")
    assert leaf in audit("grants", "portal", "--sealer")
    for name in ("Portal", "x; DROP TABLE y", 'x"', ""):
        with pytest.raises(CommandError, match="lower-case"):
            audit("grants", name)


@pytest.fixture
def witnesses(tmp_path: Path) -> Iterator[list[Witness]]:
    """Run three witnesses, of which the last one fails, and declare them: two are a quorum."""
    folder = tmp_path / "witnesses"
    folder.mkdir()
    with ExitStack() as stack:
        running = [
            stack.enter_context(witness(f"witness.example/w{number}", folder, {"phi-oidc-audit": KEY.public_key()}))
            for number in (1, 2, 3)
        ]
        running[-1].lie = "fail"
        for started in running:
            started.clock = NOW.timestamp
        declared = {f"w{number}": {"key": w.vkey, "url": w.url} for number, w in enumerate(running, start=1)}
        stack.enter_context(
            override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"witnesses": declared}))
        )
        yield running


def test_seal_and_witnesses_ask_for_cosignatures(audit: Callable[..., str], witnesses: list[Witness]) -> None:
    events(3)
    audit("seal")
    assert [running.read_latest("phi-oidc-audit")[0] for running in witnesses] == [3, 3, 0]
    expected = "w1: 3 events cosigned\nw2: 3 events cosigned\nw3: 0 events cosigned; witness_response_invalid\n"
    assert audit("witnesses") == expected
    row = json.loads(audit("witnesses", "--json").splitlines()[0])
    assert (row["witness"], row["tree_size"], row["fault"]) == ("w1", 3, "")
    witnesses[1].lie = "fail"
    sealed(1)
    with pytest.raises(CommandError, match=r"^The newest checkpoint with a quorum has 3 events\.$"):
        audit("witnesses")
    witnesses[2].lie = ""
    assert "w3: 4 events cosigned" in audit("witnesses")


def test_verify_requires_the_quorum_after_a_time(audit: Callable[..., str], witnesses: list[Witness]) -> None:
    events(3)
    audit("seal")
    with clock.override_clock(lambda: LATER + timedelta(minutes=6)):
        assert "no faults" in audit("verify")
        witnesses[1].lie = "fail"
        audit("seal")
    with clock.override_clock(lambda: LATER + timedelta(minutes=13)):
        with pytest.raises(CommandError, match="is not cosigned by enough witnesses"):
            audit("verify", "--unsealed-after", "360")
        assert detail_of("audit.verified")["kinds"] == ["checkpoint_unwitnessed"]
        witnesses[1].lie = ""
        audit("witnesses")
        assert "no faults" in audit("verify", "--unsealed-after", "1000")


def test_proof_has_the_cosignatures_that_the_verifier_requires(
    audit: Callable[..., str], witnesses: list[Witness], tmp_path: Path
) -> None:
    ids = events(3)
    audit("seal")
    # A newer checkpoint has no quorum yet, so the proof is under the one before.
    sealed(1)
    proof = tmp_path / "proof.json"
    proof.write_text(audit("prove", ids[0]))
    key = audit("checkpoint", "--public-key").strip()
    expected = "leaf 0 of 3 in phi-oidc-audit, cosigned by witness.example/w1, witness.example/w2.\n"
    assert audit("check-proof", proof, "--public-key", key).endswith(expected)
    first, second, third = (running.vkey for running in witnesses)
    for required, is_met in (
        (["--witness", first, "--witness", second], True),
        (["--witness", first, "--witness", third], False),
        (["--witness", first, "--witness", third, "--quorum", "1"], True),
        (["--witness", third, "--quorum", "0"], True),
        (["--quorum", "3"], False),
    ):
        arguments = [str(proof), "--public-key", key, *required]
        if "--witness" in required:
            assert bundle.main(arguments) == (0 if is_met else 1)
        if is_met:
            assert "Holds" in audit("check-proof", *arguments)
        else:
            with pytest.raises(CommandError, match="are required"):
                audit("check-proof", *arguments)
    assert bundle.main([str(proof), "--public-key", key, "--witness", key]) == 1, "the key of a log"
    assert bundle.main([str(proof), "--public-key", key, "--quorum", "1"]) == 1, "no witness is named"


def test_consistency_proof_has_the_cosignatures_that_the_verifier_requires(
    audit: Callable[..., str], witnesses: list[Witness], tmp_path: Path
) -> None:
    sealed(3)
    old, new, proof = (tmp_path / name for name in ("old.txt", "new.txt", "proof.json"))
    old.write_text(audit("checkpoint"))
    events(2)
    audit("seal")
    new.write_text(audit("checkpoint"))
    assert new.read_text().count("\n— witness.example/") == 2
    proof.write_text(audit("consistency", old, new))
    arguments = [str(proof), "--public-key", audit("checkpoint", "--public-key").strip(), "--witness"]
    assert bundle.main([*arguments, witnesses[0].vkey]) == 0
    assert bundle.main([*arguments, witnesses[2].vkey]) == 1


def test_verified_archive_that_is_not_known_is_registered(audit: Callable[..., str], tmp_path: Path) -> None:
    """It was written by an earlier version, or the command was killed."""
    sealed(3)
    audit("archive", tmp_path / "1.jsonl.gz")
    (written,) = ArchiveFile.objects.values()
    ArchiveFile.objects.all().delete()
    (tmp_path / "1.jsonl").write_bytes(gzip.decompress((tmp_path / "1.jsonl.gz").read_bytes()))
    for name in ("1.jsonl.gz", "1.jsonl"):
        audit("verify", "--archive", tmp_path / name)
    # The second file has the same events.
    assert list(ArchiveFile.objects.values()) == [written]
    (tmp_path / "1.jsonl").write_bytes((tmp_path / "1.jsonl").read_bytes().replace(b'"actor":"7"', b'"actor":"8"'))
    ArchiveFile.objects.all().delete()
    with pytest.raises(CommandError, match="does not hold the events"):
        audit("verify", "--archive", tmp_path / "1.jsonl")
    assert not ArchiveFile.objects.exists()


class UnavailableStorage(InMemoryStorage):
    """Fails with an error of its library, such as botocore's."""

    def _open(self, name: str, mode: str = "rb") -> Any:
        raise RuntimeError


def test_archive_is_recorded_if_the_storage_of_the_tiles_fails(audit: Callable[..., str], tmp_path: Path) -> None:
    sealed(3)
    file = tmp_path / "1.jsonl"
    storages = {**settings.STORAGES, "tiles": {"BACKEND": f"{__name__}.UnavailableStorage"}}
    tiles = override_phi_oidc(settings.PHI_OIDC, AUDIT={"tiles": "tiles"})
    with (
        override_settings(STORAGES=storages, PHI_OIDC=tiles),
        pytest.raises(CommandError, match="Nothing is detached: The storage of the tiles failed"),
    ):
        audit("archive", file, "--detach")
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert detail_of("audit.archived")["sha256"] == digest
    assert ArchiveFile.objects.filter(sha256=digest).exists()


def test_archive_behind_a_gap_does_not_make_the_events_before_it_archived(
    audit: Callable[..., str], tmp_path: Path
) -> None:
    for number in range(3):
        sealed(4, at=NOW + timedelta(minutes=number))
    early = ("--before", (NOW + timedelta(seconds=30)).isoformat())
    # The last one is small again, and takes nothing back.
    runs = {"gap": ("--first", 4), "start": early, "all": (), "again": ("--first", 0, *early)}
    sizes = []
    for minutes, (name, options) in enumerate(runs.items()):
        with clock.override_clock(partial(datetime.__add__, LATER, timedelta(minutes=minutes))):
            audit("archive", tmp_path / name, *options)
        sizes.append(read_archive_record([KEY.public_key()]).archived_size)
    # With the events of the first two archives.
    assert sizes == [0, 4, 14, 14]
