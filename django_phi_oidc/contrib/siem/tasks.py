"""The periodic task that delivers the audit log to the sinks that are due."""

import logging
import uuid
from collections.abc import Mapping

from django.db import OperationalError

from ..._internal import clock
from ..._internal.periodic_task import periodic_task
from ..._internal.sql import is_lock_timeout
from ...audit.log.cursor import UnreadableEvent, find_sealed_event
from ...errors import AuditUnavailable
from ..common.hostname import get_hostname
from . import conf, delivery
from .declaration import SinkDeclaration
from .delivery import DeliveryResult
from .sinks import create_sink

logger = logging.getLogger(__name__)

RUN_SECONDS = 50.0
"""For all sinks of a run together."""


@periodic_task("phi_oidc.deliver")
def deliver() -> None:
    """Deliver to all sinks that are due, and raise an alert for each that lags."""
    deliver_to_due_sinks(seconds=RUN_SECONDS)


def get_declared_sinks() -> Mapping[str, SinkDeclaration]:
    """Return the declared sinks by name. Raises: ImproperlyConfigured."""
    return conf.sinks()


def deliver_event(name: str, event_id: uuid.UUID) -> None:
    """Send one sealed event to a sink, whatever was delivered to it.

    Raises: LookupError without the event or the sink; ValueError if the sink does not accept it;
    AuditUnavailable.
    """
    item = find_sealed_event(event_id)
    if item is None or isinstance(item, UnreadableEvent):
        raise LookupError("The log does not have the event.")
    sink = create_sink(get_declared_sinks()[name], hostname=get_hostname())
    if not sink.send([item], timeout_seconds=delivery.SEND_SECONDS).accepted:
        raise ValueError("The sink does not accept the event.")


def deliver_to_due_sinks(*, seconds: float) -> dict[str, DeliveryResult]:
    """Deliver to each sink that is due, healthy ones first, each for its share of seconds; then
    check its lag.

    A sink that is down or hangs delays the others of this run by the timeout of one exchange at
    most.
    """
    sinks = get_declared_sinks()
    results: dict[str, DeliveryResult] = {}
    for name in delivery.get_cursors(tuple(sinks), now=clock.now()):
        sink = create_sink(sinks[name], hostname=get_hostname())
        try:
            results[name] = delivery.deliver(
                name, sink, clock=clock.now, seconds=seconds / len(sinks)
            )
            delivery.check_lag(name, lag_alert=sinks[name].lag_alert, now=clock.now())
        except AuditUnavailable:
            logger.warning("Cannot read the audit log, so the lag of sink %s is unknown.", name)
        except OperationalError as error:
            if not is_lock_timeout(error):
                raise
            logger.error("The cursor of sink %s is locked by another transaction.", name)  # noqa: TRY400
    return results
