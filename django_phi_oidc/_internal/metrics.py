"""Metrics hooks: counters and timers are forwarded to the registered sinks; without a sink they do
nothing. No Django.

Labels contain declared names, rule codes and fixed words: never data about a person.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric: its name without the prefix `phi_oidc`, and its labels, all of which are
    required.
    """

    name: str
    help: str
    labels: tuple[str, ...]


COMPLETED_SIGN_INS = Metric(
    "sign_ins", "Sign-ins, including refusals", ("provider", "stage", "outcome", "reason")
)
COMMITTED_EVENTS = Metric(
    "events", "Events that this process committed", ("provider", "action", "outcome", "reason")
)
SIGN_IN_STEP_DURATION = Metric("sign_in", "Duration of a step of a sign-in", ("provider", "step"))
PROVIDER_CALL_DURATION = Metric(
    "provider_call", "Duration of a request to a provider", ("provider", "call", "outcome")
)
WITNESS_ANSWERS = Metric(
    "witness_answers", "Answers of the witnesses of the audit log", ("witness", "outcome")
)
COUNTERS = (COMPLETED_SIGN_INS, COMMITTED_EVENTS, WITNESS_ANSWERS)
TIMERS = (SIGN_IN_STEP_DURATION, PROVIDER_CALL_DURATION)
"""In seconds."""


class MetricsSink(Protocol):
    """A receiver of counts and durations. It does not raise, and does not block."""

    def increment(self, metric: Metric, labels: Mapping[str, str]) -> None:
        """Count one more."""

    def observe(self, metric: Metric, seconds: float, labels: Mapping[str, str]) -> None:
        """Add a duration."""


_sinks: tuple[MetricsSink, ...] = ()


def set_sinks(sinks: Sequence[MetricsSink]) -> None:
    """Replace the sinks of this process."""
    global _sinks  # noqa: PLW0603 -- the seam is this one variable
    _sinks = tuple(sinks)


def has_sinks() -> bool:
    """Say whether a sink is registered."""
    return bool(_sinks)


def increment(metric: Metric, **labels: str) -> None:
    """Count one more."""
    for sink in _sinks:
        sink.increment(metric, labels)


@contextmanager
def measure_duration(metric: Metric, **labels: str) -> Iterator[dict[str, str]]:
    """Measure the block, also if it raises. The block may set labels in the dictionary that it
    gets.
    """
    started = time.monotonic()
    try:
        yield labels
    finally:
        for sink in _sinks:
            sink.observe(metric, time.monotonic() - started, labels)
