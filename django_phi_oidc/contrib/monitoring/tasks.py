"""The periodic tasks: rules over new events, and changes of the providers' metadata and keys."""

import logging
import time
import uuid
from datetime import datetime

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from ... import conf
from ..._internal import clock
from ..._internal.periodic_task import periodic_task, row_pruner
from ...audit.log.cursor import find_recent_event
from ...errors import MetadataError, TransportError
from ...http.http_transport import HTTPTransport
from . import conf as monitoring_conf
from .alerts import delete_acknowledged_alerts, send_due_alerts
from .engine import check_sealing_lag, evaluate_batch, evaluate_event, limit_event_time
from .provider_drift import check_provider_drift
from .rules import Rule, merge_rules

logger = logging.getLogger(__name__)
RUN_SECONDS = 50.0


@periodic_task("phi_oidc.watch")
def watch() -> None:
    """Evaluate the events that were sealed since the last run, and send the due alerts."""
    rules = get_declared_rules()
    ends_at = time.monotonic() + RUN_SECONDS
    # Each step runs even if another one fails, such as because of a row that a stopped process has
    # locked.
    try:
        while time.monotonic() < ends_at and evaluate_batch(rules, now=clock.now()) is not None:
            pass
    finally:
        try:
            check_sealing_lag(now=clock.now())
        finally:
            send_due_alerts(recipients=conf.security_contacts(), now=clock.now())


@periodic_task("phi_oidc.watch_providers")
def watch_providers() -> None:
    """Raise an alert for each provider whose keys or metadata have changed."""
    for declaration in conf.providers().values():
        transport = HTTPTransport(declaration)
        try:
            check_provider_drift(declaration, transport=transport, now=clock.now())
        except (MetadataError, TransportError) as error:
            # This is no change; `phi_oidc doctor` reports the details.
            logger.warning(
                "Cannot check provider %s for changes: %s.", declaration.name, error.code
            )
        finally:
            transport.close()


def get_declared_rules() -> tuple[Rule, ...]:
    """Return the built-in rules and those of ANOMALY_RULES. Raises: ImproperlyConfigured."""
    rules = []
    for path in monitoring_conf.anomaly_rules():
        try:
            rule = import_string(path)
        except ImportError as error:
            raise ImproperlyConfigured(
                f"PHI_OIDC['ANOMALY_RULES']: {path} cannot be imported."
            ) from error
        if not isinstance(rule, Rule):
            raise ImproperlyConfigured(f"PHI_OIDC['ANOMALY_RULES']: {path} is not a Rule.")
        rules.append(rule)
    return merge_rules(rules)


def evaluate_set_aside_event(kind: str, event_id: uuid.UUID) -> None:
    """Evaluate a rule on one sealed event.

    Raises: LookupError without the event or the rule; what the rule raises; AuditUnavailable.
    """
    recent_event = find_recent_event(event_id)
    if recent_event is None:
        raise LookupError("The log does not have the event.")
    rules = {rule.kind: rule for rule in get_declared_rules()}
    evaluate_event(rules[kind], limit_event_time(recent_event), now=clock.now())


@row_pruner
def prune_alerts(*, now: datetime, before: datetime) -> None:
    """Delete the alerts that were acknowledged before that time."""
    delete_acknowledged_alerts(before=before)
