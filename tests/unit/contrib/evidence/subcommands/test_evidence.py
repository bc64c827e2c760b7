"""`manage.py phi_oidc evidence`: the content of the file, its event, and its verification on another machine."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.management import CommandError, call_command
from django.db import OperationalError, connections
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.configuration import read_configuration
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key
from django_phi_oidc.audit.models import AuditCheckpoint, AuditEvent
from django_phi_oidc.contrib.evidence.pack import build_pack
from tests.support.audit_log import KEY, NOW, OTHER_KEY, PEM, sealed
from tests.support.audit_tampering import sql, without_triggers
from tests.support.client_keys import create_private_key_pem
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ROOT = Path(__file__).resolve().parents[5]
LATER = NOW + timedelta(minutes=1)
VKEY = encode_verifier_key("phi-oidc-audit", KEY.public_key())
OTHER_VKEY = encode_verifier_key("phi-oidc-audit", OTHER_KEY.public_key())
CLEAN_SETTINGS = """\
INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django_phi_oidc",
    "django_phi_oidc.audit",
    "django_phi_oidc.contrib.evidence",
]
"""
Run = Callable[..., str]


@pytest.fixture(autouse=True)
def _with_key() -> Iterator[None]:
    with use_options(KEYS={"audit_signing": PEM}), clock.override_clock(lambda: LATER):
        yield


@pytest.fixture
def evidence(capsys: pytest.CaptureFixture[str]) -> Run:
    """Return a function that runs the subcommand and returns its output."""

    def run(*arguments: object) -> str:
        capsys.readouterr()
        call_command("phi_oidc", "evidence", *map(str, arguments))
        return capsys.readouterr().out

    return run


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "evidence.json"


def use_options(**options: Any) -> Any:
    return override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, **options))


def read(file: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(file.read_text())["evidence"]
    return content


def verify_elsewhere(file: Path, *keys: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    """Verify in a process whose settings have no database, no keys and no portal."""
    (folder / "auditor_settings.py").write_text(CLEAN_SETTINGS)
    arguments = [word for key in keys for word in ("--public-key", key)]
    return subprocess.run(
        [sys.executable, "-m", "django", "phi_oidc", "evidence", "verify", file, *arguments],
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": f"{folder}:{ROOT}",
            "DJANGO_SETTINGS_MODULE": "auditor_settings",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


# Writing


def test_pack_contains_what_an_auditor_asks_for(evidence: Run, file: Path) -> None:
    sealed(312)
    call_command("phi_oidc", "audit", "verify")
    evidence("--output", file)
    pack = read(file)
    assert (pack["log"], pack["created_at"]) == ("phi-oidc-audit", LATER.isoformat())
    assert pack["versions"]["databases"][1]["alias"] == "phi_audit"
    assert pack["versions"]["databases"][0]["version"]
    assert pack["configuration"]["digest"] == read_configuration().digest
    assert {"name": "SESSIONS.idle_timeout", "value": "0:15:00"} in pack["configuration"]["settings"]
    assert pack["checkpoint"] == AuditCheckpoint.objects.get().note
    verified = AuditEvent.objects.get(action="audit.verified")
    assert pack["last_verification"] == {
        "event_id": str(verified.id),
        "occurred_at": LATER.isoformat(),
        "outcome": "success",
        "tree_size": 312,
        "events": 312,
        "findings": 0,
        "kinds": [],
    }
    assert {control["state"] for found in pack["controls"] for control in found["controls"]} >= {"partly", "met"}
    assert any(component["name"] == "cryptography" for component in pack["sbom"]["components"])
    assert pack["oscal"].keys() == {"component-definition", "assessment-results"}


def test_pack_contains_each_check_with_its_text_and_whether_it_is_silenced(evidence: Run, file: Path) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "leeway": 31}
    with use_options(PROVIDERS={"default": provider}):
        evidence("--output", file)
        checks = {check["id"]: check for check in read(file)["configuration"]["checks"]}
        assert "more than 30 s" in checks["django_phi_oidc.W004"]["text"]
        assert (checks["django_phi_oidc.W004"]["level"], checks["django_phi_oidc.W004"]["silenced"]) == (
            "warning",
            False,
        )
        assert "django_phi_oidc.W019" in checks, "the process that signs has the signing key"
        file.unlink()
        with override_settings(SILENCED_SYSTEM_CHECKS=["django_phi_oidc.W004"]):
            evidence("--output", file)
        silenced = read(file)["configuration"]
        assert silenced["silenced"] == ["django_phi_oidc.W004"]
        assert {check["id"] for check in silenced["checks"] if check["silenced"]} == {"django_phi_oidc.W004"}
    file.unlink()
    evidence("--output", file)
    assert "django_phi_oidc.W004" not in {check["id"] for check in read(file)["configuration"]["checks"]}


def test_pack_contains_no_secret(evidence: Run, file: Path) -> None:
    client_key = create_private_key_pem("OKP")
    provider = {
        **settings.PHI_OIDC["PROVIDERS"]["default"],
        "token_endpoint_auth_method": "private_key_jwt",
        "client_keys": [client_key],
        "proxy": "http://operator:canary-password@127.0.0.1:3128",
    }
    sink = {"type": "https", "url": "https://siem.example/canary-path?token=canary", "headers": {"X-Token": "canary-h"}}
    with use_options(PROVIDERS={"default": provider}, SIEM={"siem": sink}):
        evidence("--output", file)
        declared = settings.PHI_OIDC["KEYS"]
    text = file.read_text()
    assert "https://siem.example" in text
    keys = [key for ring in ("encryption", "subject", "audit_mac") for key in declared[ring]]
    for secret in ("canary", settings.SECRET_KEY, *keys, *client_key.splitlines()[1:-1], *PEM.splitlines()[1:-1]):
        assert secret not in text


def test_event_has_the_digest_of_the_file(evidence: Run, file: Path) -> None:
    printed = evidence("--output", file)
    (event,) = AuditEvent.objects.filter(action="audit.exported")
    detail = json.loads(event.detail)
    assert detail == {"format": "evidence", "sha256": detail["sha256"]}
    assert printed == f"{file}: evidence of phi-oidc-audit, SHA-256 {detail['sha256']}.\n"
    assert f"sha256 {detail['sha256']}\n" in json.loads(file.read_text())["signature"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_pack_is_not_written_without_its_event(evidence: Run, file: Path) -> None:
    def fail(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if sql.startswith("INSERT"):
            raise OperationalError("the server is away")
        return execute(sql, params, many, context)

    with connections["phi_audit"].execute_wrapper(fail), pytest.raises(CommandError):
        evidence("--output", file)
    assert not file.exists()
    assert not AuditEvent.objects.exists()


def test_existing_file_is_not_replaced_and_leaves_no_event(evidence: Run, file: Path) -> None:
    file.write_text("earlier")
    with pytest.raises(CommandError, match="File exists"):
        evidence("--output", file)
    assert file.read_text() == "earlier"
    assert not AuditEvent.objects.filter(action="audit.exported").exists()


def test_pack_needs_the_signing_key(evidence: Run, file: Path) -> None:
    message = r"\['audit_signing'\] is not configured here"
    with use_options(KEYS={"audit_signing": None, "audit_public": [VKEY]}), pytest.raises(CommandError, match=message):
        evidence("--output", file)
    assert not file.exists()
    evidence("--output", file)
    assert file.exists()


def test_pack_does_not_confirm_a_checkpoint_that_is_not_valid(evidence: Run, file: Path) -> None:
    sealed(3)
    other = use_options(KEYS={"audit_signing": create_private_key_pem("OKP")})
    with other, pytest.raises(CommandError, match="not signed by a known key"):
        evidence("--output", file)
    assert not file.exists()
    evidence("--output", file)
    with without_triggers():
        sql("UPDATE phi_oidc_audit_auditcheckpoint SET note = replace(note, '3', '4')")
    file.unlink()
    with pytest.raises(CommandError):
        evidence("--output", file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "Name the new file: --output FILE."),
        (("--output", "x", "verify", "y", "--public-key", VKEY), "--output writes a file, and verify reads one."),
    ],
)
def test_wrong_arguments_are_refused(words: tuple[str, ...], message: str, evidence: Run) -> None:
    with pytest.raises(CommandError, match=message):
        evidence(*words)


# Verifying


def test_pack_is_verified_on_a_machine_without_a_database(evidence: Run, file: Path, tmp_path: Path) -> None:
    sealed(312)
    call_command("phi_oidc", "audit", "verify")
    evidence("--output", file)
    done = verify_elsewhere(file, VKEY, folder=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    lines = dict(line.partition(": ")[::2] for line in done.stdout.splitlines())
    pack = read(file)
    assert lines["log"] == "phi-oidc-audit"
    assert lines["time"] == LATER.isoformat()
    assert lines["version"].startswith("0.1.0 (Python 3.")
    assert lines["checkpoint"] == "312 events, its signature is valid"
    assert lines["last verification"] == f"{LATER.isoformat()}, 312 events, 0 findings"
    assert lines["configuration"] == pack["configuration"]["digest"]
    assert lines["warnings"] == ", ".join(sorted(check["id"] for check in pack["configuration"]["checks"]))
    assert lines["silenced"] == "none"
    assert lines["components"] == str(len(pack["sbom"]["components"]))
    counts = dict(reversed(text.split(" ", 1)) for text in lines["controls"].split(", "))
    total = [control for found in pack["controls"] for control in found["controls"]]
    assert sum(map(int, counts.values())) == len(total)
    assert int(counts["met"]) == sum(control["state"] == "met" for control in total)
    assert done.stdout.endswith("The signature is valid.\n")


MANIPULATIONS: dict[str, Callable[[str], str]] = {
    "a changed setting": lambda text: text.replace('"value": "0:15:00"', '"value": "0:10:00"'),
    "a removed warning": lambda text: text.replace("django_phi_oidc.W019", "django_phi_oidc.W999"),
    "a silenced warning": lambda text: text.replace('"silenced": false', '"silenced": true', 1),
    "a control that is met": lambda text: text.replace('"state": "partly"', '"state": "met"', 1),
    "another checkpoint": lambda text: text.replace("phi-oidc-audit\\n3\\n", "phi-oidc-audit\\n2\\n"),
    "another version of a component": lambda text: text.replace('"name": "cryptography"', '"name": "cryptografy"'),
    "a duplicate member": lambda text: text.replace('"log":', '"log": "x",\n  "log":', 1),
    "truncated": lambda text: text[:-40],
    "appended bytes": lambda text: f"{text} ",
}


@pytest.mark.parametrize("manipulate", MANIPULATIONS.values(), ids=MANIPULATIONS)
def test_manipulated_pack_exits_with_1(manipulate: Callable[[str], str], evidence: Run, file: Path) -> None:
    sealed(3)
    evidence("--output", file)
    assert "The signature is valid." in evidence("verify", file, "--public-key", VKEY)
    manipulated = manipulate(file.read_text())
    assert manipulated != file.read_text()
    file.write_text(manipulated)
    with pytest.raises(CommandError):
        evidence("verify", file, "--public-key", VKEY)


def test_another_key_exits_with_1_and_prints_nothing(evidence: Run, file: Path, tmp_path: Path) -> None:
    sealed(3)
    evidence("--output", file)
    done = verify_elsewhere(file, OTHER_VKEY, folder=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "CommandError: The note is not signed by a known key of the log.\n"
    assert verify_elsewhere(file, OTHER_VKEY, VKEY, folder=tmp_path).returncode == 0


def test_checkpoint_of_another_key_exits_with_1_unless_both_keys_are_named(
    evidence: Run, file: Path, tmp_path: Path
) -> None:
    sealed(3)
    evidence("--output", file)
    file.write_text(build_pack(read(file), key=OTHER_KEY))
    with pytest.raises(CommandError, match="its checkpoint is not valid with these keys"):
        evidence("verify", file, "--public-key", OTHER_VKEY)
    assert "its signature is valid" in evidence("verify", file, "--public-key", OTHER_VKEY, "--public-key", VKEY)


def test_pack_of_an_empty_log_says_so(evidence: Run, file: Path) -> None:
    evidence("--output", file)
    printed = evidence("verify", file, "--public-key", VKEY)
    assert "checkpoint: none\n" in printed
    assert "last verification: none\n" in printed


def test_missing_file_exits_with_1(evidence: Run, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="No such file"):
        evidence("verify", tmp_path / "none", "--public-key", VKEY)
