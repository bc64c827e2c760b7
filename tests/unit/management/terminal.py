"""Commands on a terminal."""

import io
import os
import pty
import select
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

from django.db import connections

from tests.support import databases

ROOT = Path(__file__).resolve().parents[3]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def run_on_terminal(*arguments: str, prompt: bytes, answer: str) -> tuple[int, bytes]:
    """Run `phi_oidc` on a pseudo terminal, answer its prompt, and return exit status and output."""
    environment = databases.child_environment(
        os.environ, {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    )
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "django", "phi_oidc", *arguments],
        env={**environment, "PYTHONPATH": str(ROOT)},
        cwd=ROOT,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        start_new_session=True,
    )
    os.close(terminal)
    output = b""
    with process, suppress(OSError):
        while select.select([controller], [], [], 30)[0] and (data := os.read(controller, 1024)):
            output += data
            if output.endswith(prompt):
                os.write(controller, answer.encode() + b"\n")
    os.close(controller)
    return process.returncode, output
