"""DeadlineScheduler runs callbacks at their time, in one thread per process."""

import os
import queue
import subprocess
import sys
import threading
import time

from django_phi_oidc._internal.deadlines import DeadlineScheduler

FORKING_PROGRAM = """
import os, sys, threading, time
from django_phi_oidc._internal.deadlines import call_at
called = threading.Event()
call_at(time.monotonic() + 3600, print)
call_at(time.monotonic(), called.set)
assert called.wait(10)
child = os.fork()
if child == 0:
    called = threading.Event()
    call_at(time.monotonic(), called.set)
    os._exit(0 if called.wait(10) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def new_threads(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before]


def test_callbacks_run_in_order_of_time() -> None:
    scheduler, called = DeadlineScheduler(), queue.Queue[tuple[str, float]]()
    started_at = time.monotonic()
    for name, delay in (("late", 0.3), ("early", 0.1), ("later", 0.4), ("past", -1.0)):
        scheduler.call_at(started_at + delay, lambda name=name: called.put((name, time.monotonic() - started_at)))
    calls = [called.get(timeout=10) for _ in range(4)]
    assert [name for name, _ in calls] == ["past", "early", "late", "later"]
    assert all(seconds >= delay for (_, seconds), delay in zip(calls, (0, 0.1, 0.3, 0.4), strict=True))


def test_calls_from_many_threads_use_one_thread_and_lose_nothing() -> None:
    before = set(threading.enumerate())
    scheduler, called = DeadlineScheduler(), queue.Queue[int]()

    def schedule(number: int) -> None:
        for offset in range(20):
            scheduler.call_at(time.monotonic() + 0.2, lambda: called.put(number))
            scheduler.call_at(time.monotonic() + 3600 + offset, lambda: called.put(-1))

    threads = [threading.Thread(target=schedule, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(called.get(timeout=10) for _ in range(200)) == sorted(list(range(10)) * 20)
    assert called.empty()
    assert [thread.daemon for thread in new_threads(before)] == [True]


def test_cancelled_callback_does_not_run() -> None:
    scheduler, called = DeadlineScheduler(), queue.Queue[str]()
    now = time.monotonic()
    cancel = scheduler.call_at(now + 0.2, lambda: called.put("cancelled"))
    scheduler.call_at(now + 0.3, lambda: called.put("kept"))
    cancel()
    assert called.get(timeout=10) == "kept"
    cancel()
    assert called.empty()


def test_scheduler_thread_is_restarted_after_an_error() -> None:
    scheduler, called = DeadlineScheduler(), threading.Event()
    before = set(threading.enumerate())
    original_excepthook, threading.excepthook = threading.excepthook, lambda args: None
    try:
        scheduler.call_at(time.monotonic(), lambda: int(""))
        while new_threads(before):
            time.sleep(0.01)
    finally:
        threading.excepthook = original_excepthook
    scheduler.call_at(time.monotonic(), called.set)
    assert called.wait(10)


def test_forked_child_runs_its_own_callbacks() -> None:
    program = [sys.executable, "-W", "ignore", "-c", FORKING_PROGRAM]
    assert subprocess.run(program, env=os.environ, check=False, timeout=60).returncode == 0
