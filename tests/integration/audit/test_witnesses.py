"""The witness of Debian's package litetlog answers our requests as the protocol says.

Up to 0~git20231125 it crashes when it stores a checkpoint, after all its checks: a request that it accepts ends without
a response. So these tests cover each refusal, next to a request that differs in one thing and is not refused.
"""

import base64
import os
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from django.conf import settings
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.log.models import LogWitness
from django_phi_oidc.audit.log.witnesses import submit_newest_checkpoint
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key
from django_phi_oidc.audit.merkle.cosignature import parse_witness_key
from django_phi_oidc.audit.models import AuditCheckpoint
from tests.support.audit_log import KEY, NOW, OTHER_KEY, sealed
from tests.support.external_tools import PARTS
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = [pytest.mark.litewitness, pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])]
ORIGIN = "phi-oidc-audit"
ACCEPTED = {"transport_unreachable", "transport_invalid", ""}
"""What a request that the witness does not refuse leads to: a lost connection, or a cosignature once it is repaired."""


def run(folder: Path, *command: str, **environment: str) -> str:
    """Run the command in the folder, and return what it prints."""
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, **environment}, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout


@dataclass
class LiteWitness:
    database: Path
    vkey: str = ""
    url: str = ""

    def control(self, *arguments: str) -> None:
        subprocess.run(
            ["witnessctl", arguments[0], "-db", self.database, *arguments[1:]],
            check=True,
            capture_output=True,
            timeout=30,
        )

    def store(self, tree_size: int, root_hash: bytes) -> None:
        """Make this its latest checkpoint."""
        with closing(sqlite3.connect(self.database)) as connection, connection:
            row = [tree_size, base64.b64encode(root_hash).decode()]
            connection.execute("UPDATE log SET tree_size = ?, tree_hash = ?", row)


@pytest.fixture
def lite(tmp_path: Path) -> Iterator[LiteWitness]:
    """Run the witness with a key in an ssh-agent of its own."""
    run(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", "key")
    fingerprint = run(tmp_path, "ssh-keygen", "-lf", "key.pub").split()[1]
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    agent_socket = tmp_path / "agent"
    # In the foreground, so that it ends with this test.
    agent = subprocess.Popen(["ssh-agent", "-D", "-a", agent_socket], stdout=subprocess.DEVNULL)
    witness = LiteWitness(database=tmp_path / "witness.db", url=f"http://127.0.0.1:{port}")
    try:
        wait_until(agent_socket.exists)
        run(tmp_path, "ssh-add", "key", SSH_AUTH_SOCK=str(agent_socket))
        arguments = ["-db", witness.database, "-name", "witness.example/lite", "-key", fingerprint]
        arguments += ["-ssh-agent", agent_socket, "-listen", f"127.0.0.1:{port}"]
        log = tmp_path / "log.txt"
        # Its routes are those of Go before 1.22.
        environment = {**os.environ, "GODEBUG": "httpmuxgo121=0"}
        with log.open("w") as output:
            server = subprocess.Popen(
                [PARTS["litewitness"]().where, *arguments], env=environment, stdout=output, stderr=output
            )
        try:
            wait_until(lambda: "listening" in log.read_text())
            witness.vkey = log.read_text().partition("vkey=")[2].split()[0]
            yield witness
        finally:
            server.terminate()
            server.wait(10)
    finally:
        agent.terminate()
        agent.wait(10)


def wait_until(is_ready: Callable[[], bool]) -> None:
    for _ in range(200):
        with suppress(OSError):
            if is_ready():
                return
        time.sleep(0.05)
    raise TimeoutError


def submit(lite: LiteWitness) -> str:
    LogWitness.objects.update(due_at=NOW)
    declared = {"lite": {"key": lite.vkey, "url": lite.url}}
    with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"witnesses": declared})):
        (result,) = submit_newest_checkpoint(clock=clock.now)
    return str(result.fault)


def test_key_of_the_witness_is_read(lite: LiteWitness) -> None:
    assert parse_witness_key(lite.vkey).name == "witness.example/lite"


def test_unknown_log_and_unknown_key_are_refused(lite: LiteWitness) -> None:
    sealed(3)
    # This version answers 403, and not 404, for an unknown log.
    assert submit(lite) in {"witness_log_unknown", "witness_key_unknown"}
    lite.control("add-log", "-origin", ORIGIN)
    lite.control("add-key", "-origin", ORIGIN, "-key", encode_verifier_key(ORIGIN, OTHER_KEY.public_key()))
    assert submit(lite) == "witness_key_unknown"
    lite.control("add-key", "-origin", ORIGIN, "-key", encode_verifier_key(ORIGIN, KEY.public_key()))
    assert submit(lite) in ACCEPTED


@pytest.mark.parametrize(
    ("tree_size", "is_other_root", "faults"),
    [
        (3, False, ACCEPTED),
        (3, True, {"witness_log_inconsistent"}),
        (300, False, {"witness_log_shorter"}),
    ],
    ids=["continued", "rewritten", "rolled back"],
)
def test_log_must_continue_what_the_witness_has_seen(
    lite: LiteWitness, tree_size: int, is_other_root: bool, faults: set[str]
) -> None:
    lite.control("add-log", "-origin", ORIGIN)
    lite.control("add-key", "-origin", ORIGIN, "-key", encode_verifier_key(ORIGIN, KEY.public_key()))
    sealed(3)
    sealed(200)
    root = bytes(AuditCheckpoint.objects.get(tree_size=3).root_hash)
    # Our first request names size 0, and the witness answers with the size that it has.
    lite.store(tree_size, bytes(32) if is_other_root else root)
    assert submit(lite) in faults
