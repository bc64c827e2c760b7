"""A process that judges a trail: `python -m tests.benchmarks.anomalies.job`, an order a line, and an answer in JSON."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.core.management import call_command

from django_phi_oidc.audit.events import NewEvent
from tests.benchmarks.worker_protocol import Order, carry_out, peak_memory
from tests.support.hospital_week import MONDAY, act, week

FLOODERS = 5_000
"""Addresses that a flood comes from."""
_module = import_module
"""What has models can't be imported before Django is set up."""


def migrate() -> dict[str, Any]:
    """Make the tables."""
    call_command("migrate", verbosity=0)
    return {}


def fill_week(count: int) -> dict[str, Any]:
    """Write and seal so much of a week in which nothing is wrong."""
    return _write(week(events=count))


def fill_flood(count: int) -> dict[str, Any]:
    """Write and seal that many refusals, 10 ms apart, each of which concerns every rule about refusals."""
    told = {"reason": "signature_invalid", "outcome": "failure", "provider": "default", "detail": {"stage": "callback"}}
    return _write(
        [
            act(
                "login.refused",
                at=MONDAY + number * timedelta(milliseconds=10),
                actor=str(number % 97),
                client_ip=f"198.51.{number % FLOODERS // 250}.{number % 250}",
                **told,
            )
            for number in range(count)
        ]
    )


def _write(acts: list[NewEvent]) -> dict[str, Any]:
    recording, sealing = _module("django_phi_oidc.audit.recorder"), _module("django_phi_oidc.audit.log.sequencer")
    for start in range(0, len(acts), 500):
        recording.record_many(acts[start : start + 500])
    key = _module("django_phi_oidc.audit.log.signing_keys").signing_key()
    done = list(sealing.seal_all(key=key, clock=lambda: datetime.now(UTC)))
    return {"events": sum(each.events for each in done)}


def read() -> dict[str, Any]:
    """Read all that is sealed, and parse it: the floor of whoever looks at each event."""
    reading, models = _module("django_phi_oidc.audit.log.reader"), _module("django_phi_oidc.audit.models")
    size = models.AuditCheckpoint.objects.latest("tree_size").tree_size
    began, events = time.perf_counter(), 0
    for raw in reading.read_leaves(0, size):
        events += "action" in json.loads(raw.canonical)
    return {"events": events, "wall": time.perf_counter() - began}


def judge() -> dict[str, Any]:
    """Judge all that is sealed, from the beginning, as the task does."""
    judging, models = _module("django_phi_oidc.anomalies.engine"), _module("django_phi_oidc.anomalies.models")
    rules = _module("django_phi_oidc.anomalies.tasks").declared()
    for model in (models.WatchCursor, models.AnomalyMemory, models.SecurityAlert):
        model.objects.all().delete()
    began, cpu, events = time.perf_counter(), time.process_time(), 0
    while (judged := judging.judge_next(rules, now=datetime.now(UTC))) is not None:
        events += judged
    return {
        "events": events,
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "peak": peak_memory(),
        "alerts": models.SecurityAlert.objects.count(),
    }


ORDERS: Mapping[str, Order] = {order.__name__: order for order in (migrate, fill_week, fill_flood, read, judge)}


if __name__ == "__main__":
    carry_out(ORDERS)
