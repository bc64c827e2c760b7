"""A step that does not hold is told as such, and the rest goes on."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from django.core.management.color import no_style
from portal.demo.scene import NotHeld, Scene
from portal.demo.story import STEPS, Step
from portal.demo.narration import tell

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def holds(scene: Scene) -> str:
    return "It was so."


def fails(error: Exception) -> Callable[[Scene], str]:
    def step(scene: Scene) -> str:
        raise error

    return step


def told(*steps: Step) -> tuple[bool, str]:
    lines: list[str] = []
    held = tell(steps, cast(Scene, None), say=lines.append, style=no_style())
    return held, "\n".join(lines)


def test_tell_of_steps_that_hold_is_true() -> None:
    held, text = told(Step(title="One", tell=holds), Step(title="Two", tell=holds))
    assert held
    assert " 1 ✓ One\n     It was so." in text
    assert "2 of 2 steps held." in text


@pytest.mark.parametrize(
    "error", [NotHeld("she came elsewhere"), ConnectionResetError("reset"), LookupError("no form")]
)
def test_tell_of_a_step_that_fails_is_false_and_goes_on(error: Exception) -> None:
    held, text = told(Step(title="One", tell=fails(error)), Step(title="Two", tell=holds))
    assert not held
    assert " 1 ✗ One" in text
    assert str(error) in text
    assert " 2 ✓ Two" in text
    assert "1 of 2 steps held." in text


def test_tell_without_an_expected_event_is_false(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.demo.audit_log.SECONDS", 0.0)
    held, text = told(Step(title="One", tell=holds, events=("login.succeeded success",)))
    assert not held
    assert "the trail has no login.succeeded success" in text


def test_story_has_titles_that_differ() -> None:
    titles: list[Any] = [step.title for step in STEPS]
    assert len(set(titles)) == len(titles) == 17
