"""Tells the story: plays the steps in order, prints each one with the events it left, and counts those that held."""

import http.client
import textwrap
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from django.core.management.color import Style
from django.db import DatabaseError

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.errors import PhiOidcError

from .scene import NotHeld, Scene
from .story import Step
from .audit_log import Missing, Trail, line

FAULTS = (NotHeld, Missing, PhiOidcError, OSError, http.client.HTTPException, DatabaseError, LookupError, ValueError)
"""What a step fails with; anything else is a fault of the demo itself."""
WIDTH = 100
INDENT = " " * 5

Say = Callable[[str], object]


def tell(steps: Sequence[Step], scene: Scene, *, say: Say, style: Style) -> bool:
    """Play the steps and say whether all of them held. One that does not hold keeps nothing from the rest."""
    trail = Trail()
    held = [_play(number, step, scene, trail, say=say, style=style) for number, step in enumerate(steps, start=1)]
    count = sum(held)
    words = f"{count} of {len(held)} steps held."
    say(style.SUCCESS(words) if all(held) else style.ERROR(words))
    return all(held)


def _play(number: int, step: Step, scene: Scene, trail: Trail, *, say: Say, style: Style) -> bool:
    try:
        said = step.tell(scene)
        events = trail.wait_for(step.events)
    except FAULTS as fault:
        say(style.ERROR(f"{number:2} ✗ {step.title}"))
        _paragraph(f"{type(fault).__name__}: {fault}", say)
        _events(trail.rest(), say)
        return False
    say(style.SUCCESS(f"{number:2} ✓ ") + step.title)
    _paragraph(said, say)
    _events(events, say)
    return True


def _paragraph(text: str, say: Say) -> None:
    say(textwrap.fill(text, WIDTH, initial_indent=INDENT, subsequent_indent=INDENT, break_on_hyphens=False))


def _events(events: Iterable[AuditEvent], say: Say) -> None:
    """Print the events; equal ones on one line with their number."""
    for text, count in Counter(map(line, events)).items():
        times = f"  ×{count}" if count > 1 else ""
        action, _, rest = text.partition(" ")
        say(f"{INDENT}  trail: {action:<16} {rest}{times}")
    say("")
