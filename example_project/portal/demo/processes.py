"""The demo's processes: each with a log of its own, all of them stopped in the end."""

import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

SECONDS_TO_START = 60.0
SECONDS_TO_STOP = 10.0


class NotStarted(Exception):
    """A process ended, or did not answer in time."""


class Processes:
    """Starts programs in `directory`, logs under `logs`, and stops all of them when the block ends, however it ends."""

    def __init__(self, *, directory: Path, logs: Path, environ: Mapping[str, str]) -> None:
        self.directory = directory
        self.logs = logs
        self.environ = environ
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def __enter__(self) -> Self:
        self.logs.mkdir(parents=True, exist_ok=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def log(self, name: str) -> Path:
        """Return the path of that process's log."""
        return self.logs / f"{name}.log"

    def python(self, name: str, *arguments: str) -> None:
        """Start this Python with arguments."""
        with self.log(name).open("wb") as log:
            # A session of its own: Ctrl-C is for the demo alone, which then stops the others one by one.
            self.running[name] = subprocess.Popen(
                [sys.executable, *arguments],
                cwd=self.directory,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def run(self, name: str, *arguments: str) -> None:
        """Run this Python with arguments and wait for its end.

        Raises: NotStarted when it failed.
        """
        self.python(name, *arguments)
        if self.running[name].wait(SECONDS_TO_START) != 0:
            raise NotStarted(f"{name} failed:\n{self.last_lines(name)}")
        del self.running[name]

    def wait_until_answers(self, name: str, url: str) -> None:
        """Return when a GET of url is answered with 200.

        Raises: NotStarted.
        """
        self._wait(name, lambda: _answers(url))

    def wait_until_says(self, name: str, words: str) -> None:
        """Return when the process has written those words into its log.

        Raises: NotStarted.
        """
        self._wait(name, lambda: words in self.log(name).read_text(errors="replace"))

    def last_lines(self, name: str, count: int = 15) -> str:
        """Return the end of that process's log."""
        return "\n".join(self.log(name).read_text(errors="replace").splitlines()[-count:])

    def ended(self) -> Sequence[str]:
        """Return the names of those that have ended by themselves."""
        return [name for name, process in self.running.items() if process.poll() is not None]

    def stop(self) -> None:
        """Stop all, the last started first: politely, and after 10 s by force."""
        processes = list(reversed(self.running.values()))
        for process in processes:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + SECONDS_TO_STOP
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
        self.running.clear()

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + SECONDS_TO_START
        while not condition():
            if self.running[name].poll() is not None or time.monotonic() > deadline:
                raise NotStarted(f"{name} did not start:\n{self.last_lines(name)}")
            time.sleep(0.1)


def _answers(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    """Signal the process and what it started: it leads a group of its own."""
    if process.poll() is None:
        os.killpg(process.pid, number)
