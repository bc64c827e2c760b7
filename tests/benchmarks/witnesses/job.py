"""A process that seals and proves next to witnesses: `python -m tests.benchmarks.witnesses.job`.

Three witnesses run in a process of their own: two are honest, and one hangs.
"""

import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any

from django.db import connections
from django.test import override_settings

from tests.benchmarks.audit.job import build_sealed, migrate
from tests.benchmarks.audit.processes import process
from tests.benchmarks.worker_protocol import Command, command_runner, run_commands

LIES = ("", "", "hang")
QUORUM = 2
EVENTS_PER_SEAL = 100
EVENTS_PER_TURN = 50
_module = import_module
"""Modules with models cannot be imported before django.setup()."""


def seal(rounds: int) -> dict[str, Any]:
    """Seal in turns with and without witnesses, and return milliseconds: of the seals, and until the quorum."""
    plain, witnessed, quorum = list[float](), list[float](), list[float]()
    with _witnesses():
        for number in range(2 * rounds):
            is_witnessed = bool(number % 2)
            _record(EVENTS_PER_SEAL)
            if not is_witnessed:
                with _declare({}):
                    _module("django_phi_oidc.audit.log.models").LogWitness.objects.update(note="")
                    plain.append(_time(_seal))
                continue
            # What the sealer compares the log with, as after the last cosignature.
            newest = _module("django_phi_oidc.audit.models").AuditCheckpoint.objects.last()
            _module("django_phi_oidc.audit.log.models").LogWitness.objects.exclude(tree_size=0).update(note=newest.note)
            witnessed.append(_time(_seal))
            quorum.append(_time_of_quorum())
    return {"plain": plain, "witnessed": witnessed, "quorum": quorum}


def record(rounds: int) -> dict[str, Any]:
    """Record single events, in turns while witnesses are asked all the time and without, and return milliseconds.

    Another process records, as a web process does: only the sealer asks.
    """
    plain, witnessed = list[float](), list[float]()
    with process("tests.benchmarks.witnesses.job") as recorder:
        run = command_runner(recorder)
        run("record_events", EVENTS_PER_TURN)
        for _ in range(max(1, rounds // EVENTS_PER_TURN)):
            plain += run("record_events", EVENTS_PER_TURN)["times"]
            is_over = threading.Event()
            with _witnesses():
                asking = threading.Thread(target=_ask_until, args=[is_over])
                asking.start()
                witnessed += run("record_events", EVENTS_PER_TURN)["times"]
                is_over.set()
                asking.join()
    return {"plain": plain, "witnessed": witnessed}


def record_events(count: int) -> dict[str, Any]:
    """Record single events, and return the milliseconds of each."""
    return {"times": [_time(lambda: _record(1)) for _ in range(count)]}


def prove(rounds: int) -> dict[str, Any]:
    """Prove random events under a checkpoint with a quorum, in turns with one without witnesses."""
    models = _module("django_phi_oidc.audit.models")
    create_proof = _module("django_phi_oidc.audit.log.proofs").create_inclusion_proof
    with _witnesses():
        _record(EVENTS_PER_SEAL)
        _seal()
        _time_of_quorum()
        size = models.AuditLeaf.objects.last().leaf_index + 1
        # The filler of the large log has no events.
        rows = models.AuditLeaf.objects.filter(leaf_index__gte=size - EVENTS_PER_SEAL).values_list(
            "event_id", flat=True
        )
        ids = list(rows)
        plain, witnessed = list[float](), list[float]()
        for _ in range(rounds):
            prove_one = partial(create_proof, random.choice(ids))
            witnessed.append(_time(prove_one))
            with _declare({}):
                plain.append(_time(prove_one))
    return {"size": size, "plain": plain, "witnessed": witnessed}


@contextmanager
def _witnesses() -> Iterator[None]:
    """Run and declare the witnesses."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        command = [sys.executable, "-m", "tests.benchmarks.witnesses.servers", folder, *LIES]
        running = stack.enter_context(
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        )
        stack.callback(running.kill)
        assert running.stdout is not None
        declared = {}
        for number in range(len(LIES)):
            key, url = running.stdout.readline().split()
            declared[f"w{number}"] = {"key": key, "url": url}
        _module("django_phi_oidc.audit.log.models").LogWitness.objects.all().delete()
        stack.enter_context(_declare({"witnesses": declared, "quorum": QUORUM}))
        yield


def _declare(audit: Mapping[str, Any]) -> override_settings:
    settings = _module("django.conf").settings
    return override_settings(PHI_OIDC={**settings.PHI_OIDC, "AUDIT": dict(audit)})


def _record(count: int) -> None:
    _module("tests.support.audit_log").events(count, at=datetime.now(UTC))


def _seal() -> None:
    sequencer = _module("django_phi_oidc.audit.log.sequencer")
    key = _module("django_phi_oidc.audit.log.signing_keys").find_signing_key()
    assert sequencer.append_to_log(key=key, now=datetime.now(UTC)).event_count


def _time_of_quorum() -> float:
    """Ask the witnesses, and return the milliseconds until the cosignatures of a quorum are committed."""
    model = _module("django_phi_oidc.audit.log.models").Cosignature
    size = _module("django_phi_oidc.audit.models").AuditCheckpoint.objects.last().tree_size
    seen: list[float] = []
    begun = time.perf_counter()

    def watch() -> None:
        while not seen:
            if model.objects.filter(tree_size=size).count() >= QUORUM:
                seen.append((time.perf_counter() - begun) * 1000)
            time.sleep(0.001)
        connections.close_all()

    watching = threading.Thread(target=watch)
    watching.start()
    _submit()
    watching.join()
    return seen[0]


def _submit() -> None:
    submit = _module("django_phi_oidc.audit.log.witnesses").submit_newest_checkpoint
    submit(clock=lambda: datetime.now(UTC), round_seconds=0.5)


def _ask_until(is_over: threading.Event) -> None:
    model = _module("django_phi_oidc.audit.log.models").LogWitness
    while not is_over.is_set():
        _submit()
        model.objects.update(cosigned_at=None, due_at=datetime.now(UTC))
    connections.close_all()


def _time(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return (time.perf_counter() - begun) * 1000


COMMANDS: Mapping[str, Command] = {
    command.__name__: command for command in (migrate, build_sealed, seal, record, record_events, prove)
}
if __name__ == "__main__":
    run_commands(COMMANDS)
