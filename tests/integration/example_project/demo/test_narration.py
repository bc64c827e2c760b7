"""A failed step is reported, and the following steps run."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from django.core.management.color import no_style
from portal.demo.narration import run_steps
from portal.demo.scene import Scene, StepFailed
from portal.demo.story import STEPS, Step

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def passing_step(scene: Scene) -> str:
    return "It passed."


def create_failing_step(error: Exception) -> Callable[[Scene], str]:
    def failing_step(scene: Scene) -> str:
        raise error

    return failing_step


def run(*steps: Step) -> tuple[bool, str]:
    lines: list[str] = []
    passed = run_steps(steps, cast(Scene, None), write=lines.append, style=no_style())
    return passed, "\n".join(lines)


def test_passing_steps_are_reported() -> None:
    passed, text = run(Step(title="One", run=passing_step), Step(title="Two", run=passing_step))
    assert passed
    assert " 1 ✓ One\n     It passed." in text
    assert "2 of 2 steps passed." in text


@pytest.mark.parametrize("error", [StepFailed("another page"), ConnectionResetError("reset"), LookupError("no form")])
def test_failed_step_is_reported_and_the_next_one_runs(error: Exception) -> None:
    passed, text = run(Step(title="One", run=create_failing_step(error)), Step(title="Two", run=passing_step))
    assert not passed
    assert " 1 ✗ One" in text
    assert str(error) in text
    assert " 2 ✓ Two" in text
    assert "1 of 2 steps passed." in text


def test_step_without_its_expected_event_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("portal.demo.audit_log.TIMEOUT_SECONDS", 0.0)
    passed, text = run(Step(title="One", run=passing_step, events=("login.succeeded success",)))
    assert not passed
    assert "the audit log has no login.succeeded success" in text


def test_titles_of_the_steps_are_unique() -> None:
    titles: list[Any] = [step.title for step in STEPS]
    assert len(set(titles)) == len(titles) == 17
