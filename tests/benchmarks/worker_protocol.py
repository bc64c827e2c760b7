"""Orders to a process that measures, a line each, and its answers, in JSON."""

import json
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import django

Order = Callable[..., dict[str, Any]]


def carry_out(orders: Mapping[str, Order]) -> None:
    """Do what the lines of the standard input say, a name and numbers each, until it ends."""
    django.setup()
    for line in sys.stdin:
        name, *numbers = line.split()
        print(json.dumps(orders[name](*map(int, numbers))), flush=True)


def orders_to(running: subprocess.Popen[str]) -> Order:
    """Return what gives an order to that process, and returns its answer."""
    return lambda *order: begin(running, *order)()


def begin(running: subprocess.Popen[str], *order: object) -> Callable[[], dict[str, Any]]:
    """Give an order, and return what waits for the answer."""
    assert running.stdin is not None
    running.stdin.write(" ".join(map(str, order)) + "\n")
    running.stdin.flush()
    return lambda: dict(json.loads(line_of(running)))


def line_of(running: subprocess.Popen[str]) -> str:
    """Return the next line that the process says."""
    assert running.stdout is not None
    return running.stdout.readline()


def peak_memory() -> int:
    """Return the most bytes of memory that this process has ever held. Spec: proc(5)."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
