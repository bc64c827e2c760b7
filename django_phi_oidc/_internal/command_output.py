"""Output of a subcommand: text or JSON lines on standard output, notes and progress on standard
error.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, Self, TypeVar

from django.core.management.base import CommandError, OutputWrapper
from django.core.management.color import Style, no_style

SECONDS_BETWEEN_DRAWINGS = 0.25
Level = Literal["failure", "warning", "ok"]
Row = Mapping[str, Any]
T = TypeVar("T")
_STYLES: Mapping[str, str] = {"failure": "ERROR", "warning": "WARNING", "ok": "SUCCESS"}


@dataclass(frozen=True, slots=True)
class Output:
    """The streams of a subcommand, and its options `--json`, `--verbosity` and `--no-color`."""

    stdout: OutputWrapper
    stderr: OutputWrapper
    as_json: bool = False
    verbosity: int = 1
    style: Style = no_style()  # noqa: RUF009 -- immutable

    def write(self, text: str) -> None:
        """Print a line of text, unless `--json` was given."""
        if not self.as_json:
            self.stdout.write(text)

    def write_row(self, row: Row, text: str | Callable[[Row], str]) -> None:
        """Print row as one line of JSON if `--json` was given, otherwise its text, or what the
        function returns.
        """
        if self.as_json:
            self.stdout.write(json.dumps(row, default=format_value))
        else:
            self.stdout.write(text if isinstance(text, str) else text(row))

    def confirm(self, row: Row, text: str, *, fault: str = "") -> None:
        """Print what was done as write_row does, but with `-v 0` no text.

        Raises: CommandError if there is a fault; then the text is part of the error.
        """
        if self.as_json or (self.verbosity > 0 and not fault):
            self.write_row(row, text)
        if fault:
            raise CommandError(f"{text} {fault}")

    def preview(self, row: Row, text: str) -> None:
        """Print what a run without `--dry-run` would do."""
        self.write_row({**row, "dry_run": True}, f"Dry run: {text}")

    def note(self, text: str) -> None:
        """Print a line on standard error, unless `-v 0` was given."""
        if self.verbosity > 0:
            self.stderr.write(text, style_func=str)

    def warn(self, text: str) -> None:
        """Print a line on standard error that must not be missed: with `-v 0`, too."""
        style_func: Callable[[str], str]
        if self.stderr.isatty():
            style_func = self.style.WARNING
        else:
            style_func = str
        self.stderr.write(text, style_func=style_func)

    def colour(self, text: str, level: Level | str) -> str:
        """Return the text in the colour of the level, if standard output has colours."""
        return getattr(self.style, _STYLES[level])(text) if level in _STYLES else text


class ProgressLine:
    """A line on standard error with a count, total and percentage, which is rewritten at most four
    times a second.

    It is shown only if standard error is a terminal, and not with `-v 0`. prints_rows: neither if
    standard output is a terminal, because the rows on it would be mixed with the line.
    """

    def __init__(
        self, output: Output, label: str, total: int = 0, *, prints_rows: bool = False
    ) -> None:
        is_shown = (
            output.verbosity > 0
            and output.stderr.isatty()
            and not (prints_rows and output.stdout.isatty())
        )
        self._stderr: OutputWrapper | None
        if is_shown:
            self._stderr = output.stderr
        else:
            self._stderr = None

        self._label = label
        self._total = total
        self._undrawn: tuple[int, int] | None = None
        self._next_at = 0.0
        self._is_open = False

    @property
    def is_shown(self) -> bool:
        """Whether it is worth to find out the total."""
        return self._stderr is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.end()

    def __call__(self, done: int, total: int = 0) -> None:
        """Show how many of total are done; 0: of the total of this line, if it is known."""
        if self._stderr is None:
            return
        self._undrawn = done, total or self._total
        if time.monotonic() >= self._next_at:
            self._draw()

    def track(self, items: Iterable[T]) -> Iterator[T]:
        """Yield the items, and show how many there were."""
        for number, item in enumerate(items, start=1):
            yield item
            self(number)

    def end(self) -> None:
        """Show the last progress, if it was not shown yet, and start a new line if anything was
        shown.
        """
        if self._undrawn is not None:
            self._draw()
        if self._is_open and self._stderr is not None:
            self._stderr.write("", style_func=str)
            self._is_open = False

    def _draw(self) -> None:
        if self._stderr is None or self._undrawn is None:
            return
        (done, total), self._undrawn = self._undrawn, None
        if total:
            share = min(done / total, 1)
        else:
            share = 0

        if total:
            bar = f"[{'#' * round(share * 30):.<30}] {share:4.0%} "
        else:
            bar = ""

        if total:
            of_total = f" of {total:,}"
        else:
            of_total = ""

        self._stderr.write(
            f"\r\x1b[K{bar}{done:,}{of_total} {self._label}", style_func=str, ending=""
        )
        self._stderr.flush()
        self._is_open, self._next_at = True, time.monotonic() + SECONDS_BETWEEN_DRAWINGS


def format_value(value: object) -> str:
    """Return a datetime as ISO 8601 in seconds, None as an empty string, and other values as
    text.
    """
    if isinstance(value, datetime):
        return value.isoformat(timespec="seconds")
    if value is None:
        return ""
    return str(value)


def format_untrusted(text: str) -> str:
    """Return text, escaped if it holds control characters: those from a form or provider must not
    reach a terminal.
    """
    if text.isprintable():
        return text
    return ascii(text)
