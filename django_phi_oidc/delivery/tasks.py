"""The log goes out: every few seconds, to every sink that is due."""

import logging
import socket
from collections.abc import Mapping

from celery import shared_task
from django.core.exceptions import ImproperlyConfigured

from .. import clock, conf
from ..errors import AuditUnavailable, DeclarationInvalid
from . import delivering, working
from .declaration import SinkDeclaration, parse_sink
from .delivering import Result
from .sinks import open_sink

logger = logging.getLogger(__name__)

RUN_SECONDS = 50.0
"""For all sinks together."""


@shared_task(name="phi_oidc.deliver", ignore_result=True, acks_late=True)
def deliver() -> None:
    """Deliver to all sinks that are due, and tell of those that lag."""
    deliver_due(seconds=RUN_SECONDS)


@shared_task(name="phi_oidc.work_trail_jobs", ignore_result=True, acks_late=True)
def work_trail_jobs() -> None:
    """Do one export or verification that somebody asked for, and delete what is a day old."""
    folder = conf.export_folder()
    working.work_next(clock=clock.now, folder=folder, site=site())
    working.prune(now=clock.now(), folder=folder)


def declared() -> Mapping[str, SinkDeclaration]:
    """Return the declared sinks by name. Raises: ImproperlyConfigured."""
    sinks = conf.option("SINKS")
    if not isinstance(sinks, Mapping):
        raise ImproperlyConfigured("PHI_OIDC['SINKS'] must be a dictionary.")
    try:
        return {name: parse_sink(name, raw) for name, raw in sinks.items()}
    except DeclarationInvalid as error:
        raise ImproperlyConfigured(f"PHI_OIDC: {error}") from error


def deliver_due(*, seconds: float) -> dict[str, Result]:
    """Deliver to each sink that is due, the healthy ones first, each for its part of seconds; then look for lags.

    One that is away or hangs holds up the others of this run for the deadline of one exchange at most.
    """
    sinks = declared()
    results: dict[str, Result] = {}
    for name in delivering.cursors(tuple(sinks), now=clock.now()):
        sink = open_sink(sinks[name], site=site())
        results[name] = delivering.deliver(name, sink, clock=clock.now, seconds=seconds / len(sinks))
        try:
            delivering.watch_lag(name, lag_alert=sinks[name].lag_alert, now=clock.now())
        except AuditUnavailable:
            logger.warning("The audit trail can't be read; how far sink %s is behind is not known.", name)
    return results


def site() -> str:
    """Return the name of this machine, which the formats tell."""
    return socket.gethostname() or "localhost"
