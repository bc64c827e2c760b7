"""Concurrent processes that run one activity each, and are killed by SIGKILL at the point that a test chooses.

`python -m tests.integration.audit.killable_processes` sets Django up without open connections, and forks a child per
order, because starting Django takes longer than everything else. Children report points and results on stdout.
"""

import gc
import json
import os
import secrets
import select
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, NoReturn

import django
from django.conf import settings
from django.db import connections

from tests.support.databases import ALIASES, child_environment
from tests.support.kill_points import watch
from tests.support.phi_oidc_settings import override_phi_oidc

END = "the end"
LONGEST_SECONDS = 60
"""A child that runs longer is killed by its alarm, and fails its test."""


@dataclass(slots=True)
class ProcessResult:
    """The points that a child passed, in order, the ids that it reported as done, and its exit status."""

    passed: list[str] = field(default_factory=list)
    reported: list[str] = field(default_factory=list)
    status: int = 0
    """0, or the negative signal number."""
    seconds: float = 0.0

    @property
    def is_killed(self) -> bool:
        assert self.status in {0, -signal.SIGKILL}, f"The child failed with status {self.status}; see stderr."
        return self.status != 0


class Processes:
    """The forking process, on the databases of the running test."""

    def __init__(self, phi_oidc: Mapping[str, Any]) -> None:
        self._mark = f"killed {secrets.token_hex(4)}"
        self._server = subprocess.Popen(
            [sys.executable, "-m", "tests.integration.audit.killable_processes", json.dumps(phi_oidc)],
            env={**child_environment(os.environ, settings.DATABASES), "PGAPPNAME": self._mark},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=LONGEST_SECONDS)
        self._server.stdout.close()

    def run(self, *orders: Mapping[str, Any]) -> list[ProcessResult]:
        """Run the orders concurrently, and return the results after all have disconnected from the databases.

        An order has `activity`, a key of ACTIVITIES, and its arguments; `kill_at`, a point (the third pass of X is
        `X 3`); `kill_after`, seconds; `watched`, to report points without a kill; `endless`, for an activity that is
        stopped after all others have ended.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(orders) + "\n")
        self._server.stdin.flush()
        ended = [ProcessResult() for _ in orders]
        for line in self._server.stdout:
            message = json.loads(line)
            if "ended" in message:
                break
            child = ended[message["child"]]
            child.passed += message.get("passed", ())
            child.reported += message.get("reported", ())
            child.status = message.get("status", 0)
            child.seconds = message.get("seconds", 0.0)
        else:
            raise RuntimeError("The forking process has ended; see stderr.")
        self._wait_until_gone()
        return ended

    def _wait_until_gone(self) -> None:
        """Wait until PostgreSQL has noticed that the clients are gone. It may finish a statement before."""
        if connections["default"].vendor != "postgresql":
            return
        ends_at = time.monotonic() + LONGEST_SECONDS
        with connections["default"].cursor() as cursor:
            while cursor.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = %s", [self._mark]).fetchone():
                assert time.monotonic() < ends_at, "A killed process is still connected."
                time.sleep(0.001)


def serve() -> None:
    """Run orders until the standard input ends."""
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **json.loads(sys.argv[1]))
    django.setup()
    activities = import_module("tests.integration.audit.process_activities").ACTIVITIES
    for alias in ALIASES:
        # A first connection loads modules and caches, which children then share.
        connections[alias].ensure_connection()
        connections[alias].close()
    # Garbage collection in a child would copy the pages that it shares with this process.
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        _run_orders(json.loads(line), activities)
        _report(ended=True)


def _run_orders(orders: list[dict[str, Any]], activities: Mapping[str, Callable[..., None]]) -> None:
    """Start the children at the same moment, after all have connected, and wait for them.

    Unused pipe ends are closed, because a pipe ends only after all its writers have closed it.
    """
    is_ready, ready = os.pipe()
    gate, opener = os.pipe()
    stop, stopper = os.pipe()
    children = []
    for number, order in enumerate(orders):
        child = os.fork()
        if not child:
            for end in (is_ready, opener, stopper):
                os.close(end)
            _run_child(number, order, activities, ready=ready, gate=gate, stop=stop)
        children.append(child)
    for end in (ready, gate, stop):
        os.close(end)
    for _ in orders:
        os.read(is_ready, 1)
    os.close(opener)
    began = time.monotonic()
    for child, order in zip(children, orders, strict=True):
        if "kill_after" in order:
            time.sleep(order["kill_after"])
            os.kill(child, signal.SIGKILL)
    for number in sorted(range(len(orders)), key=lambda number: orders[number].get("endless", False)):
        if orders[number].get("endless"):
            stopper = _closed(stopper)
        status = os.waitstatus_to_exitcode(os.waitpid(children[number], 0)[1])
        _report(child=number, status=status, seconds=time.monotonic() - began)
    _closed(stopper)
    os.close(is_ready)


def _closed(end: int) -> int:
    if end >= 0:
        os.close(end)
    return -1


def _run_child(
    number: int,
    order: dict[str, Any],
    activities: Mapping[str, Callable[..., None]],
    *,
    ready: int,
    gate: int,
    stop: int,
) -> NoReturn:
    """Run an order in the child, which never returns."""
    status = 1
    try:
        signal.alarm(LONGEST_SECONDS)
        activity, kill_at = activities[order.pop("activity")], order.pop("kill_at", "")
        is_watched = order.pop("watched", False) or bool(kill_at)
        is_endless = order.pop("endless", False)
        order.pop("kill_after", None)
        for alias in ALIASES:
            connections[alias].ensure_connection()
        passed: Counter[str] = Counter()

        def reach(point: str) -> None:
            passed[point] += 1
            name = point if passed[point] == 1 else f"{point} {passed[point]}"
            _report(child=number, passed=[name])
            if name == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        if is_watched:
            watch(reach)
        if is_endless:
            order["goes_on"] = lambda: not select.select([stop], [], [], 0)[0]
        os.write(ready, b"+")
        os.read(gate, 1)
        activity(report=lambda ids: _report_ids(number, ids), **order)
        if is_watched:
            reach(END)
        status = 0
    except BaseException:  # noqa: BLE001 -- nothing may propagate into the loop of the forking process
        traceback.print_exc()
    finally:
        os.write(ready, b"+")
        os._exit(status)


def _report_ids(number: int, ids: Any) -> None:
    texts = [str(id_) for id_ in ids]
    for start in range(0, len(texts), 50):
        _report(child=number, reported=texts[start : start + 50])


def _report(**values: Any) -> None:
    """Report by one write below PIPE_BUF, which is atomic. Spec: POSIX, write()."""
    line = json.dumps(values).encode() + b"\n"
    assert len(line) < select.PIPE_BUF
    os.write(sys.__stdout__.fileno(), line)


if __name__ == "__main__":
    serve()
