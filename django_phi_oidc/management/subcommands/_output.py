"""Output of a subcommand: text or JSON lines on standard output, progress on standard error."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.core.management.base import OutputWrapper


@dataclass(frozen=True, slots=True)
class Output:
    """The streams of a subcommand, and whether `--json` was given."""

    stdout: OutputWrapper
    stderr: OutputWrapper
    as_json: bool = False

    def write(self, text: str) -> None:
        """Print a line of text."""
        self.stdout.write(text)

    def write_row(self, row: Mapping[str, Any], format_row: Callable[[Mapping[str, Any]], str]) -> None:
        """Print row as one line of JSON if `--json` was given, otherwise as text."""
        self.stdout.write(json.dumps(row, default=format_value) if self.as_json else format_row(row))


class ProgressLine:
    """A progress line on standard error that overwrites itself. Prints nothing unless that is a terminal."""

    def __init__(self, output: Output, label: str) -> None:
        self._stderr = output.stderr if output.stderr.isatty() else None
        self._label = label
        self._is_open = False

    def __call__(self, done: int, total: int = 0) -> None:
        """Show how many of total are done, with a bar unless total is 0 (unknown)."""
        if self._stderr is None:
            return
        share = done / total if total else 0
        bar = f"[{'#' * round(share * 30):.<30}] {share:4.0%} " if total else ""
        self._stderr.write(f"\r\x1b[K{bar}{done:,} {self._label}", ending="")
        self._stderr.flush()
        self._is_open = True

    def end(self) -> None:
        """Start a new line after the last progress shown, if any."""
        if self._is_open and self._stderr is not None:
            self._stderr.write("")
            self._is_open = False


def format_value(value: object) -> str:
    """Return a datetime as ISO 8601 in seconds, None as an empty string, and other values as text."""
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    return "" if value is None else str(value)


def format_untrusted(text: str) -> str:
    """Return text, escaped if it holds control characters: those from a form or provider must not reach a terminal."""
    return text if text.isprintable() else ascii(text)
