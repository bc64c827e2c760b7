"""The processes of one contender: `python -m tests.benchmarks.audit.writers COUNT` creates its tables and forks them.

For each line `PROCESSES THREADS SECONDS` on standard input, that many processes with that many threads each write for
that time, starting together, and the result is a line of JSON. When the input ends, the last line contains the number
of events.
"""

import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import django
from django.conf import settings
from django.db import connections

WARM_UP = 20
MOST_THREADS = 8
HEAD_START = 0.3
"""Seconds before each measured turn, for starting all writers and for warm-up."""
_thread = threading.local()
"""`write`: the function of each thread, with a connection of its own."""


def main() -> None:
    """Serve until the standard input ends."""
    django.setup()
    contenders().prepare()
    connections.close_all()
    fork = multiprocessing.get_context("fork")
    pipes = []
    for _ in range(int(sys.argv[1])):
        parent_end, writer_end = fork.Pipe()
        pipes.append(parent_end)
        fork.Process(target=_run_writer, args=(writer_end, pipes), daemon=True).start()
    reported = WARM_UP * len(pipes)
    for pipe in pipes:
        pipe.recv()
    print("ready", flush=True)
    for line in sys.stdin:
        processes, threads, seconds = line.split()
        begin = time.monotonic() + HEAD_START
        for pipe in pipes[: int(processes)]:
            pipe.send((int(threads), begin, float(seconds)))
        turns = [turn for pipe in pipes[: int(processes)] for turn in pipe.recv()]
        reported += sum(not_counted + len(waits) for not_counted, waits, _ in turns)
        print(json.dumps(_summarize(turns)), flush=True)
    each = contenders().EVENTS_PER_WRITE.get(settings.CONTENDER, 1)
    print(json.dumps({"reported": reported * each, "found": contenders().count()}), flush=True)


def _summarize(turns: list[tuple[int, list[float], float]]) -> dict[str, float]:
    """Return the events, the CPU seconds, and the seconds of the 99th percentile and of the slowest write."""
    each = contenders().EVENTS_PER_WRITE.get(settings.CONTENDER, 1)
    waits = sorted(wait for _, part, _ in turns for wait in part) or [0.0]
    written, cpu = sum(len(part) for _, part, _ in turns), sum(cpu for *_, cpu in turns)
    return {"events": written * each, "cpu": cpu, "p99": waits[len(waits) * 99 // 100], "slowest": waits[-1]}


def _run_writer(pipe: Connection, others: list[Connection]) -> None:
    """Run a writer until the parent process ends. If the writer fails, it terminates the parent."""
    for other in others:
        other.close()
    try:
        _write(pipe)
    except EOFError:
        os._exit(0)
    except BaseException:
        os.kill(os.getppid(), signal.SIGTERM)
        raise


def _write(pipe: Connection) -> None:
    with ThreadPoolExecutor(MOST_THREADS) as pool:
        pool.submit(_warm_up).result()
        pipe.send(None)
        while True:
            threads, begin, seconds = pipe.recv()
            turn = partial(_take_turn, begin=begin, seconds=seconds)
            pipe.send(list(pool.map(turn, range(threads))))


def _warm_up() -> int:
    """Connect this thread, unless it did before, and return the number of events written."""
    if hasattr(_thread, "write"):
        return 0
    _thread.write = contenders().writer()
    for _ in range(WARM_UP):
        _thread.write()
    return WARM_UP


def _take_turn(number: int, *, begin: float, seconds: float) -> tuple[int, list[float], float]:
    """Return how many writes were not counted, the seconds of the others, and the CPU seconds of this thread."""
    not_counted = _warm_up() + len(_write_until(begin, _thread.write))
    cpu = time.thread_time()
    waits = _write_until(begin + seconds, _thread.write)
    return not_counted, waits, time.thread_time() - cpu


def _write_until(end: float, write: Callable[[], object]) -> list[float]:
    """Return the seconds of each write until then."""
    waits = []
    began = time.monotonic()
    while began < end:
        write()
        ended = time.monotonic()
        waits.append(ended - began)
        began = ended
    return waits


def contenders() -> Any:
    """Return the module, which cannot be imported before django.setup()."""
    return import_module("tests.benchmarks.audit.contenders")


if __name__ == "__main__":
    main()
