"""Poll the transmitters that do not push."""

from ..._internal import clock
from ..._internal.periodic_task import periodic_task
from ...errors import SignInRefused
from . import conf
from .event_poll import poll_events
from .event_reception import RETRIABLE_ERRORS, log_fault

_FAULTS: tuple[type[Exception], ...] = (SignInRefused, *RETRIABLE_ERRORS)
POLL_SECONDS = 40.0
"""For each provider."""


@periodic_task("phi_oidc.poll_signals")
def poll_signals() -> None:
    """Fetch and process the security events of each provider whose `signals` are polled."""
    for name, signals in conf.signals().items():
        if signals.delivery != "poll":
            continue
        try:
            poll_events(name, clock=clock.now, budget_seconds=POLL_SECONDS)
        except _FAULTS as fault:
            log_fault(fault, provider=name)
