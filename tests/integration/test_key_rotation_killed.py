"""20,000 rows get another key while two processes write to them and the one that rotates is killed, twice."""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.key_rotation.encryption_keys import (
    EncryptedColumn,
    KeyUsage,
    count_key_usage,
)
from django_phi_oidc.crypto import keyring
from django_phi_oidc.sessions.models import PendingRevocation, RevocationStatus
from tests.support import databases
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ROWS = 20_000
KILLED_AT = (3_000, 6_000)
"""Texts that each of those who are killed has looked at by then."""


@contextmanager
def at_work(what: str) -> Iterator[subprocess.Popen[str]]:
    """Run such a process on the databases of this test, which has Django set up and waits."""
    names = {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    command = [sys.executable, "-m", "tests.integration.key_rotation_process", what]
    environment = databases.child_environment(os.environ, names)
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=environment, **pipes) as process:
        try:
            yield process
        finally:
            process.kill()


def start(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    assert line_of(process) == "ready"
    process.stdin.write("go\n")
    process.stdin.flush()


def line_of(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_reseal_killed_twice_while_two_processes_write_loses_no_write_and_brings_none_back(settings: Any) -> None:
    column, now = EncryptedColumn("default", PendingRevocation._meta.get_field("token")), clock.now()  # type: ignore[arg-type]
    declared = settings.PHI_OIDC
    new, old = keyring.get_keys("encryption")
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"encryption": declared["KEYS"]["encryption"][1:]})
    made = {"token": "0", "status": RevocationStatus.DONE, "due_at": now, "created_at": now}
    PendingRevocation.objects.bulk_create(PendingRevocation(id=uuid.uuid4(), **made) for _ in range(ROWS))
    settings.PHI_OIDC = declared
    assert count_key_usage(column) == KeyUsage(counts_by_key_id={old.id: ROWS})

    with ExitStack() as stack:
        writers = [stack.enter_context(at_work("write")) for _ in range(2)]
        rotating = [stack.enter_context(at_work("reseal")) for _ in KILLED_AT]
        for writer in writers:
            start(writer)
        left = ROWS
        for process, at in zip(rotating, KILLED_AT, strict=True):
            start(process)
            while int(line_of(process)) < at:
                pass
            process.kill()
            assert process.wait(timeout=30) == -signal.SIGKILL
            before, left = left, count_key_usage(column).counts_by_key_id[old.id]
            assert 0 < left < before - at / 2
        out = StringIO()
        call_command("phi_oidc", "keys", "rotate", "--json", stdout=out, stderr=StringIO())
        answers = [writer.communicate(timeout=30)[0] for writer in writers]

    done = json.loads(out.getvalue())
    assert done["key"] == new.id
    assert 0 < done["done"] <= left
    assert count_key_usage(column) == KeyUsage(counts_by_key_id={new.id: ROWS})
    wrote: Counter[str] = sum((Counter(json.loads(answer)) for answer in answers), Counter())
    assert min(sum(json.loads(answer).values()) for answer in answers) > 20
    field = column.field
    found = {str(row.pk): int(field.decrypt(row) or "") for row in PendingRevocation.objects.iterator()}
    assert {pk: number for pk, number in found.items() if number} == wrote
