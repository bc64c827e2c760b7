"""A process that works on a trail: `python -m tests.benchmarks.audit.job`, an order a line, and an answer in JSON.

What one order takes is measured inside, without the start of Python and Django; its CPU time is of this process, and of
the server's that serves it, where that runs on this machine.
"""

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
from tests.benchmarks.worker_protocol import Order, carry_out, peak_memory

_module = import_module
"""What has models can't be imported before Django is set up."""


def migrate() -> dict[str, Any]:
    """Make the tables."""
    call_command("migrate", verbosity=0)
    return {}


def build_genuine(count: int) -> dict[str, Any]:
    """Write genuine events that wait to be sealed."""
    with _taking() as took:
        _module("tests.benchmarks.audit.trail_builder").build_genuine(count)
    return took


def build_sealed(count: int) -> dict[str, Any]:
    """Write a sealed log."""
    with _taking() as took:
        _module("tests.benchmarks.audit.trail_builder").build_sealed(count)
        with connections["phi_audit"].cursor() as cursor:
            # What the server would do by itself some time later, and at the wrong moment.
            cursor.execute("VACUUM ANALYZE")
            cursor.execute("CHECKPOINT")
    return took


def seal() -> dict[str, Any]:
    """Seal all that waits."""
    sealing, key = (
        _module("django_phi_oidc.audit.log.sequencer"),
        _module("django_phi_oidc.audit.log.signing_keys").signing_key(),
    )
    with _taking() as took:
        done = list(sealing.seal_all(key=key, clock=lambda: datetime.now(UTC)))
    return {**took, "events": sum(each.events for each in done), "refused": sum(each.refused for each in done)}


def verify() -> dict[str, Any]:
    """Verify the whole log."""
    verifying, keys = (
        _module("django_phi_oidc.audit.log.verifier"),
        _module("django_phi_oidc.audit.log.signing_keys").public_keys(),
    )
    tally = VerificationSummary()
    with _taking() as took:
        findings = list(verifying.verify(keys=keys, now=datetime.now(UTC), tally=tally))
    found = [f"{finding.kind}: {finding.event_id}" for finding in findings]
    return {**took, "events": tally.events, "found": found, "peak": peak_memory()}


def tamper() -> dict[str, Any]:
    """Change one event."""
    return {"event": _module("tests.benchmarks.audit.trail_builder").tamper()}


ORDERS: Mapping[str, Order] = {
    order.__name__: order for order in (migrate, build_genuine, build_sealed, seal, verify, tamper)
}


@contextmanager
def _taking() -> Iterator[dict[str, Any]]:
    """Yield what is filled, when the block has ended, with what it took: seconds."""
    connections["phi_audit"].ensure_connection()
    took: dict[str, Any] = {}
    wall, cpu, server = time.perf_counter(), time.process_time(), server_cpu()
    yield took
    took |= {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
    after = server_cpu()
    took["server_cpu"] = None if server is None or after is None else after - server


def server_cpu() -> float | None:
    """Return the CPU time so far of the server's process for us; None where it is on another machine. Spec: proc(5)."""
    process = Path(f"/proc/{connections['phi_audit'].connection.info.backend_pid}")
    try:
        if process.joinpath("comm").read_text().strip() != "postgres":
            return None
        fields = process.joinpath("stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    carry_out(ORDERS)
