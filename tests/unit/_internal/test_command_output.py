"""Text, JSON and progress of subcommands."""

import io
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from django.core.management import CommandError
from django.core.management.base import OutputWrapper
from django.core.management.color import color_style

from django_phi_oidc._internal.command_output import SECONDS_BETWEEN_DRAWINGS, Output, ProgressLine
from tests.unit.management.terminal import Terminal

ROW = {"name": "x", "at": datetime(2026, 11, 24, 12, 0, tzinfo=UTC)}
LINE = '{"name": "x", "at": "2026-11-24T12:00:00+00:00"}\n'


def create_output(
    *, err: type[io.StringIO] = io.StringIO, out: type[io.StringIO] = io.StringIO, **fields: Any
) -> Output:
    return Output(OutputWrapper(out()), OutputWrapper(err()), **fields)


def read(stream: OutputWrapper) -> str:
    return str(stream._out.getvalue())  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("as_json", "verbosity", "printed"),
    [
        (False, 1, "text\nrow\ndone\nDry run: plan\n"),
        (False, 0, "text\nrow\nDry run: plan\n"),
        (True, 1, 2 * LINE + LINE.replace("}", ', "dry_run": true}')),
        (True, 0, 2 * LINE + LINE.replace("}", ', "dry_run": true}')),
    ],
)
def test_standard_output_has_either_text_or_json(as_json: bool, verbosity: int, printed: str) -> None:
    output = create_output(as_json=as_json, verbosity=verbosity)
    output.write("text")
    output.write_row(ROW, "row")
    output.confirm(ROW, "done")
    output.preview(ROW, "plan")
    assert read(output.stdout) == printed
    assert read(output.stderr) == ""


@pytest.mark.parametrize(("as_json", "printed"), [(False, ""), (True, LINE)])
def test_fault_is_an_error_with_the_text_and_json_is_printed_before(as_json: bool, printed: str) -> None:
    output = create_output(as_json=as_json)
    with pytest.raises(CommandError, match=r"^done Not all\.$"):
        output.confirm(ROW, "done", fault="Not all.")
    assert read(output.stdout) == printed


@pytest.mark.parametrize(("verbosity", "printed"), [(0, "warning\n"), (1, "note\nwarning\n")])
def test_warnings_are_printed_even_if_notes_are_not(verbosity: int, printed: str) -> None:
    output = create_output(verbosity=verbosity, as_json=True)
    output.note("note")
    output.warn("warning")
    assert (read(output.stderr), read(output.stdout)) == (printed, "")


def test_only_a_warning_on_a_terminal_is_coloured() -> None:
    style = color_style(force_color=True)
    for err, is_coloured in ((Terminal, True), (io.StringIO, False)):
        output = create_output(err=err, style=style)
        output.note("note")
        output.warn("warning")
        lines = read(output.stderr).splitlines()
        assert lines[0] == "note"
        assert (lines[1] != "warning") == is_coloured
    assert "\x1b[" in output.colour("x", "failure")
    assert output.colour("x", "") == "x"


# Progress


@pytest.fixture
def moments(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return a list whose only item is the time."""
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    return now


def drawn(output: Output) -> list[str]:
    return read(output.stderr).split("\r\x1b[K")[1:]


def test_progress_shows_count_total_and_percentage(moments: list[float]) -> None:
    output = create_output(err=Terminal)
    with ProgressLine(output, "texts", 4000) as progress:
        progress(1000)
        moments[0] += 1
        progress(1, 2)
        moments[0] += 1
        progress(5000)
    assert drawn(output) == [
        f"[{'#' * 8}{'.' * 22}]  25% 1,000 of 4,000 texts",
        f"[{'#' * 15}{'.' * 15}]  50% 1 of 2 texts",
        f"[{'#' * 30}] 100% 5,000 of 4,000 texts\n",
    ]


def test_progress_without_a_total_shows_the_count() -> None:
    output = create_output(err=Terminal)
    with ProgressLine(output, "lines") as progress:
        assert list(progress.track("abc")) == ["a", "b", "c"]
    assert drawn(output) == ["1 lines", "3 lines\n"]


def test_progress_is_drawn_at_most_four_times_a_second_and_at_the_end(moments: list[float]) -> None:
    assert SECONDS_BETWEEN_DRAWINGS == 0.25
    output = create_output(err=Terminal)
    with ProgressLine(output, "x") as progress:
        for number in range(1, 101):
            progress(number)
            moments[0] += 0.02
    # 1, then every 0.26 s, and the last one.
    assert drawn(output) == [f"{number} x" for number in range(1, 101, 13)] + ["100 x\n"]


def test_progress_ends_its_line_after_an_error_and_starts_again_after_an_end() -> None:
    output = create_output(err=Terminal)
    progress = ProgressLine(output, "x")
    progress(1)
    progress.end()
    progress.end()

    def fail() -> None:
        with progress:
            progress(2)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert drawn(output) == ["1 x\n", "2 x\n"]


@pytest.mark.parametrize(
    ("err", "out", "verbosity", "prints_rows", "is_shown"),
    [
        (Terminal, io.StringIO, 1, False, True),
        (Terminal, Terminal, 1, False, True),
        (io.StringIO, io.StringIO, 1, False, False),
        (Terminal, io.StringIO, 0, False, False),
        (Terminal, io.StringIO, 1, True, True),
        (Terminal, Terminal, 1, True, False),
    ],
)
def test_progress_is_shown_only_on_the_terminal_of_standard_error(
    err: type[io.StringIO], out: type[io.StringIO], verbosity: int, prints_rows: bool, is_shown: bool
) -> None:
    output = create_output(err=err, out=out, verbosity=verbosity)
    with ProgressLine(output, "x", 2, prints_rows=prints_rows) as progress:
        assert list(progress.track("ab")) == ["a", "b"]
    assert progress.is_shown == is_shown
    assert bool(read(output.stderr)) == is_shown


def test_json_row_is_printed_as_one_line() -> None:
    output = create_output(as_json=True)
    output.write_row({"text": "a\nb\x1b"}, "")
    (line,) = read(output.stdout).splitlines()
    assert json.loads(line) == {"text": "a\nb\x1b"}
    assert "\x1b" not in line
