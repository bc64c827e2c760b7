"""A process that works on an audit log: `python -m tests.benchmarks.audit.job`, one command per line, results in JSON.

Times exclude the start of Python and Django. CPU time is that of this process, and of the PostgreSQL process that
serves it if that runs on this machine.
"""

import hashlib
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.db import connections

from django_phi_oidc.audit.log.findings import VerificationSummary
from tests.benchmarks.worker_protocol import Command, peak_memory, run_commands

FLOOR_TEXTS = (
    *("mac_key", "action", "outcome", "actor", "subject", "provider", "session"),
    *("client_ip", "purpose", "resource", "reason", "request_id", "detail"),
)
FLOOR = f"""
    COPY (SELECT l.leaf_index, l.event_id, l.leaf_hash, e.v::int8, e.occurred_at, e.mac, {", ".join(FLOOR_TEXTS)}
    FROM phi_oidc_audit_auditleaf l LEFT JOIN phi_oidc_audit_auditevent e ON e.id = l.event_id
    ORDER BY l.leaf_index) TO STDOUT (FORMAT BINARY)
"""
FLOOR_TYPES = ("int8", "bytea", "bytea", "int8", "int8", "bytea", *["bytea"] * len(FLOOR_TEXTS))
_module = import_module
"""Modules with models cannot be imported before django.setup()."""


def migrate() -> dict[str, Any]:
    """Create the tables."""
    call_command("migrate", verbosity=0)
    return {}


def build_genuine(count: int) -> dict[str, Any]:
    """Write valid events to be sealed."""
    with _measure() as took:
        _module("tests.benchmarks.audit.trail_builder").build_genuine(count)
    return took


def build_sealed(count: int) -> dict[str, Any]:
    """Write a sealed log."""
    with _measure() as took:
        _module("tests.benchmarks.audit.trail_builder").build_sealed(count)
        with connections["phi_audit"].cursor() as cursor:
            # Otherwise the server would do this later, during the measurement.
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")
    return took


def seal() -> dict[str, Any]:
    """Seal all new events."""
    sequencer = _module("django_phi_oidc.audit.log.sequencer")
    key = _module("django_phi_oidc.audit.log.signing_keys").find_signing_key()
    with _measure() as took:
        batches = list(sequencer.append_all_to_log(key=key, clock=lambda: datetime.now(UTC)))
    return {
        **took,
        "events": sum(batch.event_count for batch in batches),
        "refused": sum(batch.refused_count for batch in batches),
    }


def verify() -> dict[str, Any]:
    """Verify the whole log."""
    verifier = _module("django_phi_oidc.audit.log.verifier")
    keys = _module("django_phi_oidc.audit.log.signing_keys").get_public_keys()
    summary = VerificationSummary()
    with _measure() as took:
        findings = list(verifier.verify_log(keys=keys, now=datetime.now(UTC), summary=summary))
    texts = [f"{finding.kind}: {finding.event_id}" for finding in findings]
    return {**took, "events": summary.events, "found": texts, "peak": peak_memory()}


def floor() -> dict[str, Any]:
    """Read the same columns as a verification, in the same order, and hash their bytes once."""
    reader = _module("django_phi_oidc.audit.log.reader")
    count = 0
    with (
        _measure() as took,
        reader.trusted_transaction(force_index_lookups=True),
        connections["phi_audit"].cursor() as cursor,
        cursor.copy(FLOOR) as copied,
    ):
        copied.set_types(FLOOR_TYPES)
        for _, event_id, leaf_hash, _, _, mac, *texts in copied.rows():
            hashlib.sha256(b"".join((event_id, leaf_hash, mac, *texts))).digest()
            count += 1
    return {**took, "events": count}


def tamper() -> dict[str, Any]:
    """Change one event."""
    return {"event": _module("tests.benchmarks.audit.trail_builder").tamper()}


COMMANDS: Mapping[str, Command] = {
    command.__name__: command for command in (migrate, build_genuine, build_sealed, seal, verify, floor, tamper)
}


@contextmanager
def _measure() -> Iterator[dict[str, Any]]:
    """Yield a dict that receives the times of the block in seconds."""
    connections["phi_audit"].ensure_connection()
    took: dict[str, Any] = {}
    wall, cpu, server = time.perf_counter(), time.process_time(), server_cpu()
    yield took
    took |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    after = server_cpu()
    took["server_cpu"] = None if server is None or after is None else after - server


def server_cpu(alias: str = "phi_audit") -> float | None:
    """Return the CPU time of our PostgreSQL process so far; None if it runs on another machine. Spec: proc(5)."""
    process = Path(f"/proc/{connections[alias].connection.info.backend_pid}")
    try:
        if process.joinpath("comm").read_text().strip() != "postgres":
            return None
        fields = process.joinpath("stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    run_commands(COMMANDS)
