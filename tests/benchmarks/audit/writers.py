"""The processes of one contender: `python -m tests.benchmarks.audit.writers COUNT` creates its tables and forks them.

For each line `WRITERS SECONDS` on standard input, that many writers write for that time, starting together, and the
result is a line of JSON. When the input ends, the last line contains the number of events.
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
"""Seconds before each measured turn, for starting all writers and for warm-up."""


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
        writers, seconds = int(line.split()[0]), float(line.split()[1])
        begin = time.monotonic() + HEAD_START
        for pipe in pipes[:writers]:
            pipe.send((begin, seconds))
        turns = [pipe.recv() for pipe in pipes[:writers]]
        reported += sum(not_counted + written for not_counted, written, _ in turns)
        events, cpu = sum(written for _, written, _ in turns), sum(cpu for *_, cpu in turns)
        print(json.dumps({"events": events, "cpu": cpu}), flush=True)
    print(json.dumps({"reported": reported, "found": contenders().count()}), flush=True)


def _run_writer(pipe: Connection, others: list[Connection]) -> None:
    """Run a writer until the parent process ends. If the writer fails, it terminates the parent."""
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
    """Return the number of events written until then."""
    written = 0
    while time.monotonic() < end:
        write()
        written += 1
    return written


def contenders() -> Any:
    """Return the module, which cannot be imported before django.setup()."""
    return import_module("tests.benchmarks.audit.contenders")


if __name__ == "__main__":
    main()
