"""The processes of the demo. Each has a log file; all are stopped at the end."""

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

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0


class ProcessFailed(Exception):
    """A process exited, or was not ready in time."""


class Processes:
    """Starts processes in `directory` with logs in `logs`, and stops them when the block ends."""

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

    def get_log_path(self, name: str) -> Path:
        """Return the path of the process's log."""
        return self.logs / f"{name}.log"

    def start(self, name: str, *arguments: str) -> None:
        """Start Python with these arguments."""
        with self.get_log_path(name).open("wb") as log:
            # In a new session, Ctrl-C only reaches the demo, which then stops the processes in order.
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
        """Run Python with these arguments until it exits.

        Raises: ProcessFailed if it fails.
        """
        self.start(name, *arguments)
        if self.running[name].wait(START_TIMEOUT_SECONDS) != 0:
            raise ProcessFailed(f"{name} failed:\n{self.get_last_lines(name)}")
        del self.running[name]

    def wait_for_url(self, name: str, url: str) -> None:
        """Wait until url returns 200.

        Raises: ProcessFailed.
        """
        self._wait(name, lambda: _is_reachable(url))

    def wait_for_log(self, name: str, text: str) -> None:
        """Wait until the process has logged the text.

        Raises: ProcessFailed.
        """
        self._wait(name, lambda: text in self.get_log_path(name).read_text(errors="replace"))

    def get_last_lines(self, name: str, count: int = 15) -> str:
        """Return the last lines of the process's log."""
        return "\n".join(self.get_log_path(name).read_text(errors="replace").splitlines()[-count:])

    def list_exited(self) -> Sequence[str]:
        """Return the names of the processes that have exited."""
        return [name for name, process in self.running.items() if process.poll() is not None]

    def stop(self) -> None:
        """Stop all processes in reverse order: with SIGTERM, after 10 s with SIGKILL."""
        processes = list(reversed(self.running.values()))
        for process in processes:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_TIMEOUT_SECONDS
        for process in processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                _signal(process, signal.SIGKILL)
                process.wait()
        self.running.clear()

    def _wait(self, name: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + START_TIMEOUT_SECONDS
        while not condition():
            if self.running[name].poll() is not None or time.monotonic() > deadline:
                raise ProcessFailed(f"{name} did not start:\n{self.get_last_lines(name)}")
            time.sleep(0.1)


def _is_reachable(url: str) -> bool:
    try:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5) as response:
            return int(response.status) == 200
    except (urllib.error.URLError, OSError):
        return False


def _signal(process: subprocess.Popen[bytes], signal_number: int) -> None:
    """Send a signal to the process group of the process."""
    if process.poll() is None:
        os.killpg(process.pid, signal_number)
