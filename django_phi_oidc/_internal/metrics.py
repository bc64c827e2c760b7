"""The one seam to metrics: what is counted and timed, for whoever has attached itself. Nobody: nothing happens.

No label holds what tells of a person: labels are declared names, rule codes and words of ours. No Django.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Metric:
    """A metric, without the prefix `phi_oidc`, what it tells, and its labels, all of which are always given."""

    name: str
    help: str
    labels: tuple[str, ...]


COMPLETED_SIGN_INS = Metric(
    "sign_ins", "Ends of sign-ins, refusals among them", ("provider", "stage", "outcome", "reason")
)
COMMITTED_EVENTS = Metric(
    "events", "Events that this process has committed", ("provider", "action", "outcome", "reason")
)
SIGN_IN_STEP_DURATION = Metric("sign_in", "How long a step of a sign-in takes", ("provider", "step"))
PROVIDER_CALL_DURATION = Metric("provider_call", "How long a provider takes to answer", ("provider", "call", "outcome"))
COUNTERS = (COMPLETED_SIGN_INS, COMMITTED_EVENTS)
TIMERS = (SIGN_IN_STEP_DURATION, PROVIDER_CALL_DURATION)
"""In seconds."""


class MetricsSink(Protocol):
    """Whatever takes what is counted and timed. It does not raise, and does not wait."""

    def increment(self, metric: Metric, labels: Mapping[str, str]) -> None:
        """Count one more."""

    def observe(self, metric: Metric, seconds: float, labels: Mapping[str, str]) -> None:
        """Note how long something took."""


_sinks: tuple[MetricsSink, ...] = ()


def set_sinks(sinks: Sequence[MetricsSink]) -> None:
    """Let these take everything from now on, in this process, and no others."""
    global _sinks  # noqa: PLW0603 -- the seam is this one variable
    _sinks = tuple(sinks)


def has_sinks() -> bool:
    """Say whether anybody listens."""
    return bool(_sinks)


def increment(metric: Metric, **labels: str) -> None:
    """Count one more."""
    for sink in _sinks:
        sink.increment(metric, labels)


@contextmanager
def measure_duration(metric: Metric, **labels: str) -> Iterator[dict[str, str]]:
    """Note how long the block takes, however it ends; it may fill in labels, in what is given to it."""
    started = time.monotonic()
    try:
        yield labels
    finally:
        for sink in _sinks:
            sink.observe(metric, time.monotonic() - started, labels)
