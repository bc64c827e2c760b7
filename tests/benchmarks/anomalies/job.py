"""A process that runs the rules: `python -m tests.benchmarks.anomalies.job`, one command per line, results in JSON."""

import json
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib import import_module
from typing import Any

from django.core.management import call_command

from django_phi_oidc.audit.events import NewEvent
from tests.benchmarks.worker_protocol import Command, peak_memory, run_commands
from tests.support.hospital_week import MONDAY, act, week

FLOODERS = 5_000
"""Addresses of a flood."""
_module = import_module
"""Modules with models cannot be imported before django.setup()."""


def migrate() -> dict[str, Any]:
    """Create the tables."""
    call_command("migrate", verbosity=0)
    return {}


def fill_week(count: int) -> dict[str, Any]:
    """Write and seal that many events of a week without anomalies."""
    return _write(week(events=count))


def fill_flood(count: int) -> dict[str, Any]:
    """Write and seal that many refusals, 10 ms apart, which match every rule about refusals."""
    fields = {
        "reason": "signature_invalid",
        "outcome": "failure",
        "provider": "default",
        "detail": {"stage": "callback"},
    }
    return _write(
        [
            act(
                "login.refused",
                at=MONDAY + number * timedelta(milliseconds=10),
                actor=str(number % 97),
                client_ip=f"198.51.{number % FLOODERS // 250}.{number % 250}",
                **fields,
            )
            for number in range(count)
        ]
    )


def _write(new_events: list[NewEvent]) -> dict[str, Any]:
    recorder, sequencer = _module("django_phi_oidc.audit.recorder"), _module("django_phi_oidc.audit.log.sequencer")
    for start in range(0, len(new_events), 500):
        recorder.record_many(new_events[start : start + 500])
    key = _module("django_phi_oidc.audit.log.signing_keys").find_signing_key()
    batches = list(sequencer.append_all_to_log(key=key, clock=lambda: datetime.now(UTC)))
    return {"events": sum(batch.event_count for batch in batches)}


def read() -> dict[str, Any]:
    """Read and parse all sealed events, as the baseline of the rules."""
    reader, models = _module("django_phi_oidc.audit.log.reader"), _module("django_phi_oidc.audit.models")
    size = models.AuditCheckpoint.objects.latest("tree_size").tree_size
    began, events = time.perf_counter(), 0
    for raw in reader.read_leaves(0, size):
        events += "action" in json.loads(raw.canonical)
    return {"events": events, "wall": time.perf_counter() - began}


def judge() -> dict[str, Any]:
    """Evaluate all sealed events from the beginning, like the task."""
    engine, models = (
        _module("django_phi_oidc.contrib.monitoring.engine"),
        _module("django_phi_oidc.contrib.monitoring.models"),
    )
    rules = _module("django_phi_oidc.contrib.monitoring.tasks").get_declared_rules()
    for model in (models.WatchCursor, models.AnomalyMemory, models.SecurityAlert):
        model.objects.all().delete()
    began, cpu, events = time.perf_counter(), time.process_time(), 0
    while (count := engine.evaluate_batch(rules, now=datetime.now(UTC))) is not None:
        events += count
    return {
        "events": events,
        "wall": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
        "peak": peak_memory(),
        "alerts": models.SecurityAlert.objects.count(),
    }


COMMANDS: Mapping[str, Command] = {
    command.__name__: command for command in (migrate, fill_week, fill_flood, read, judge)
}


if __name__ == "__main__":
    run_commands(COMMANDS)
