"""One thread calls what is due, each at its time, in a forked child too."""

import os
import queue
import subprocess
import sys
import threading
import time

from django_phi_oidc.provider.deadlines import DeadlineScheduler

FORKED = """
import os, sys, threading, time
from django_phi_oidc.provider.deadlines import call_at
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


def started(before: set[threading.Thread]) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread not in before]


def test_call_at_calls_each_at_its_time_whatever_the_order_they_came_in() -> None:
    watch, called = DeadlineScheduler(), queue.Queue[tuple[str, float]]()
    begun = time.monotonic()
    for name, after in (("late", 0.3), ("early", 0.1), ("later", 0.4), ("over", -1.0)):
        watch.call_at(begun + after, lambda name=name: called.put((name, time.monotonic() - begun)))
    told = [called.get(timeout=10) for _ in range(4)]
    assert [name for name, _ in told] == ["over", "early", "late", "later"]
    assert all(when >= after for (_, when), after in zip(told, (0, 0.1, 0.3, 0.4), strict=True))


def test_call_at_from_many_threads_uses_one_thread_and_loses_nothing() -> None:
    before = set(threading.enumerate())
    watch, called = DeadlineScheduler(), queue.Queue[int]()

    def ask(number: int) -> None:
        for offset in range(20):
            watch.call_at(time.monotonic() + 0.2, lambda: called.put(number))
            watch.call_at(time.monotonic() + 3600 + offset, lambda: called.put(-1))

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert sorted(called.get(timeout=10) for _ in range(200)) == sorted(list(range(10)) * 20)
    assert called.empty()
    assert [thread.daemon for thread in started(before)] == [True]


def test_call_at_after_the_thread_has_died_calls_all_the_same() -> None:
    watch, called = DeadlineScheduler(), threading.Event()
    before = set(threading.enumerate())
    threading_excepthook, threading.excepthook = threading.excepthook, lambda args: None
    try:
        watch.call_at(time.monotonic(), lambda: int(""))
        while started(before):
            time.sleep(0.01)
    finally:
        threading.excepthook = threading_excepthook
    watch.call_at(time.monotonic(), called.set)
    assert called.wait(10)


def test_call_at_in_a_forked_child_calls_there() -> None:
    child = subprocess.run([sys.executable, "-W", "ignore", "-c", FORKED], env=os.environ, check=False, timeout=60)
    assert child.returncode == 0
