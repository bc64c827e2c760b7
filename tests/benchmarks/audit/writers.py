"""The processes of one contender: `python -m tests.benchmarks.audit.writers COUNT` makes its tables and forks them.

On the standard input comes `WRITERS SECONDS` for each turn; so many write for so long, all from one moment on, and the
answer is a line of JSON. In the end, when the input ends, the last line says how many events there are.
"""

import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable
from importlib import import_module
from multiprocessing.connection import Connection
from typing import Any

import django
from django.db import connections

WARM_UP = 20
HEAD_START = 0.3
"""Seconds of each turn, before those that count, in which all hear of it, and what they work on gets warm again."""


def main() -> None:
    """Serve until the standard input ends."""
    django.setup()
    contenders().prepare()
    connections.close_all()
    fork = multiprocessing.get_context("fork")
    pipes = []
    for _ in range(int(sys.argv[1])):
        ours, theirs = fork.Pipe()
        pipes.append(ours)
        fork.Process(target=_live, args=(theirs, pipes), daemon=True).start()
    told = WARM_UP * len(pipes)
    for pipe in pipes:
        pipe.recv()
    print("ready", flush=True)
    for line in sys.stdin:
        writers, seconds = int(line.split()[0]), float(line.split()[1])
        begin = time.monotonic() + HEAD_START
        for pipe in pipes[:writers]:
            pipe.send((begin, seconds))
        turns = [pipe.recv() for pipe in pipes[:writers]]
        told += sum(not_counted + written for not_counted, written, _ in turns)
        events, cpu = sum(written for _, written, _ in turns), sum(cpu for *_, cpu in turns)
        print(json.dumps({"events": events, "cpu": cpu}), flush=True)
    print(json.dumps({"told": told, "found": contenders().count()}), flush=True)


def _live(pipe: Connection, others: list[Connection]) -> None:
    """The life of a writer; it ends with the process that it was forked from, and ends that when it fails itself."""
    for other in others:
        other.close()
    try:
        _write(pipe)
    except EOFError:
        return
    except BaseException:
        os.kill(os.getppid(), signal.SIGTERM)
        raise


def _write(pipe: Connection) -> None:
    write = contenders().writer()
    for _ in range(WARM_UP):
        write()
    pipe.send(None)
    while True:
        begin, seconds = pipe.recv()
        not_counted = _write_until(begin, write)
        cpu = time.process_time()
        written = _write_until(begin + seconds, write)
        pipe.send((not_counted, written, time.process_time() - cpu))


def _write_until(end: float, write: Callable[[], object]) -> int:
    """Return how many events were written until then."""
    written = 0
    while time.monotonic() < end:
        write()
        written += 1
    return written


def contenders() -> Any:
    """Return the module, which can't be imported before Django is set up."""
    return import_module("tests.benchmarks.audit.contenders")


if __name__ == "__main__":
    main()
