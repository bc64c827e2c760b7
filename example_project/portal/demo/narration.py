"""Runs the steps in order, prints each with its audit events, and counts the steps that passed."""

import http.client
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from django.core.management.color import Style
from django.db import DatabaseError

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.errors import PhiOidcError

from .audit_log import AuditLogReader, EventsMissing, format_event
from .scene import Scene, StepFailed
from .story import Step

STEP_ERRORS = (
    *(StepFailed, EventsMissing, PhiOidcError, OSError, http.client.HTTPException, DatabaseError),
    *(LookupError, ValueError),
)
"""Errors that fail a step. Other exceptions are bugs of the demo."""
WIDTH = 100
INDENT = " " * 5

Write = Callable[[str], object]


def run_steps(steps: Sequence[Step], scene: Scene, *, write: Write, style: Style) -> bool:
    """Run all steps, also after a failed one, and return whether all passed."""
    reader = AuditLogReader()
    results = [
        _run_step(number, step, scene, reader, write=write, style=style) for number, step in enumerate(steps, start=1)
    ]
    total = f"{sum(results)} of {len(results)} steps passed."
    write(style.SUCCESS(total) if all(results) else style.ERROR(total))
    return all(results)


def _run_step(number: int, step: Step, scene: Scene, reader: AuditLogReader, *, write: Write, style: Style) -> bool:
    try:
        text = step.run(scene)
        events = reader.wait_for(step.events)
    except STEP_ERRORS as error:
        write(style.ERROR(f"{number:2} ✗ {step.title}"))
        _write_paragraph(f"{type(error).__name__}: {error}", write)
        _write_events(reader.read_remaining(), write)
        return False
    write(style.SUCCESS(f"{number:2} ✓ ") + step.title)
    _write_paragraph(text, write)
    _write_events(events, write)
    return True


def _write_paragraph(text: str, write: Write) -> None:
    write(textwrap.fill(text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False))


def _write_events(events: Iterable[AuditEvent], write: Write) -> None:
    """Print the events. Equal ones are printed once with their number."""
    for text, count in Counter(map(format_event, events)).items():
        times = f"  ×{count}" if count > 1 else ""
        action, _, rest = text.partition(" ")
        write(f"{INDENT}  audit log: {action:<16} {rest}{times}")
    write("")
