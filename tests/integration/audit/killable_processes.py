"""Processes that do one thing of the trail each, at the same time, and die by SIGKILL at the point that a test says.

`python -m tests.integration.audit.killable_processes` has Django set up and no connection open, and forks a child for each order: Django's
start would take longer than all the rest. On the standard output a child says what it comes past and what is done.
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

END = "the end"
LONGEST_SECONDS = 60
"""A child that has not ended by then is killed by its alarm, and fails its test."""


@dataclass(slots=True)
class Ended:
    """What a child came past, in order, what it told of as done, and how it ended."""

    passed: list[str] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    status: int = 0
    """0, or the signal's number, negative."""
    seconds: float = 0.0

    @property
    def is_killed(self) -> bool:
        assert self.status in {0, -signal.SIGKILL}, f"The child failed with status {self.status}; stderr says why."
        return self.status != 0


class Processes:
    """The forking process, on the running test's databases."""

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
        """End it."""
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.close()
        self._server.wait(timeout=LONGEST_SECONDS)
        self._server.stdout.close()

    def run(self, *orders: Mapping[str, Any]) -> list[Ended]:
        """Carry out the orders all at once, and return how each ended, once the databases are rid of them all.

        An order has `activity`, a name in `activities`, and what that takes; `kill_at`, a point (the third time that it
        comes past X is `X 3`); `kill_after`, seconds; `watched`, to hear of points without a kill; `endless`, for one
        that is told to stop when all others have ended.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        self._server.stdin.write(json.dumps(orders) + "\n")
        self._server.stdin.flush()
        ended = [Ended() for _ in orders]
        for line in self._server.stdout:
            said = json.loads(line)
            if "ended" in said:
                break
            child = ended[said["child"]]
            child.passed += said.get("passed", ())
            child.told += said.get("told", ())
            child.status = said.get("status", 0)
            child.seconds = said.get("seconds", 0.0)
        else:
            raise RuntimeError("The forking process has ended; stderr says why.")
        self._wait_until_gone()
        return ended

    def _wait_until_gone(self) -> None:
        """PostgreSQL notices by itself that a client is gone, and may finish a statement before."""
        if connections["default"].vendor != "postgresql":
            return
        ends_at = time.monotonic() + LONGEST_SECONDS
        with connections["default"].cursor() as cursor:
            while cursor.execute("SELECT 1 FROM pg_stat_activity WHERE application_name = %s", [self._mark]).fetchone():
                assert time.monotonic() < ends_at, "A killed process is still connected."
                time.sleep(0.001)


def serve() -> None:
    """Carry out orders until the standard input ends."""
    settings.PHI_OIDC = {**settings.PHI_OIDC, **json.loads(sys.argv[1])}
    django.setup()
    activities = import_module("tests.integration.audit.process_activities").ACTIVITIES
    for alias in ALIASES:
        # What a first connection loads and makes need not be loaded and made by each child.
        connections[alias].ensure_connection()
        connections[alias].close()
    # A collection in a child would copy the pages that it shares with this process.
    gc.collect()
    gc.freeze()
    gc.disable()
    for line in sys.stdin:
        _carry_out(json.loads(line), activities)
        _say(ended=True)


def _carry_out(orders: list[dict[str, Any]], activities: Mapping[str, Callable[..., None]]) -> None:
    """Let the children start at one moment, when all are connected, and wait for them.

    Each end of a pipe is closed where it is of no use: to wait for the end of a pipe is to wait for all who have it.
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
            _live(number, order, activities, ready=ready, gate=gate, stop=stop)
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
        _say(child=number, status=status, seconds=time.monotonic() - began)
    _closed(stopper)
    os.close(is_ready)


def _closed(end: int) -> int:
    if end >= 0:
        os.close(end)
    return -1


def _live(
    number: int,
    order: dict[str, Any],
    activities: Mapping[str, Callable[..., None]],
    *,
    ready: int,
    gate: int,
    stop: int,
) -> NoReturn:
    """The life of a child, which never goes back to where it was forked."""
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
            _say(child=number, passed=[name])
            if name == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

        if is_watched:
            watch(reach)
        if is_endless:
            order["goes_on"] = lambda: not select.select([stop], [], [], 0)[0]
        os.write(ready, b"+")
        os.read(gate, 1)
        activity(tell=lambda ids: _tell(number, ids), **order)
        if is_watched:
            reach(END)
        status = 0
    except BaseException:  # noqa: BLE001 -- whatever it is, it must not go up into the loop of the one that forks
        traceback.print_exc()
    finally:
        os.write(ready, b"+")
        os._exit(status)


def _tell(number: int, ids: Any) -> None:
    texts = [str(id_) for id_ in ids]
    for start in range(0, len(texts), 50):
        _say(child=number, told=texts[start : start + 50])


def _say(**said: Any) -> None:
    """One write below PIPE_BUF: whole, whatever others write and whenever it is killed. Spec: POSIX, write()."""
    line = json.dumps(said).encode() + b"\n"
    assert len(line) < select.PIPE_BUF
    os.write(sys.__stdout__.fileno(), line)


if __name__ == "__main__":
    serve()
