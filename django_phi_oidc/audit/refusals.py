"""Report a refusal: throttle, audit event, log line and the reference that the user sees."""

import logging
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NamedTuple

from django.core.exceptions import PermissionDenied

from .._internal import randomness
from ..errors import AuditUnavailable
from .events import Action, Origin
from .recorder import record
from .throttling import allow_event


class RecordedRefusal(PermissionDenied):
    """A refusal whose event is committed. RevocationMiddleware shows its page, unless the project
    has its own.

    reference: the id of the event. permission: `app.codename`, which the page names; "": none.
    reason: the code of the event, unless only the audit log may have it. emergency_url: the form
    that opens emergency access to the resource; "": the user may not open it.
    """

    def __init__(
        self, *, reference: str, permission: str = "", reason: str = "", emergency_url: str = ""
    ) -> None:
        # No arguments: Django's default page shows them.
        super().__init__()
        self.reference = reference
        self.permission = permission
        self.reason = reason
        self.emergency_url = emergency_url


class RefusalLog(NamedTuple):
    """Where and how a refusal is logged. message: with %(name)s of the fields and of
    `reference`.
    """

    logger: logging.Logger
    message: str
    fields: Mapping[str, str]
    level: int = logging.WARNING


class ReportedRefusal(NamedTuple):
    """reference: the id of the event; an id of the same form when throttled; the request id when
    not recorded.
    """

    reference: str
    audit_error: AuditUnavailable | None


def report_refusal(
    action: Action,
    reason: str,
    *,
    origin: Origin,
    now: datetime,
    log: RefusalLog | None = None,
    throttle_key: str = "",
    is_event_allowed: bool | None = None,
    audit_error: AuditUnavailable | None = None,
    **event_fields: Any,
) -> ReportedRefusal:
    """Record the refusal unless it is throttled, and log it. If the audit log is unavailable, only
    log it.

    throttle_key: the reason that throttling counts, if it is another one. is_event_allowed: the
    result of allow_event, or True for a refusal that is never throttled; None: ask allow_event
    here. audit_error: the error that caused the refusal, in which case no event is tried.
    event_fields: of NewEvent; outcome is "failure" by default.
    """
    if is_event_allowed is None:
        is_event_allowed = allow_event(throttle_key or reason, origin.client_ip, now=now)
    reference = origin.request_id
    level = log.level if log else logging.WARNING
    if not is_event_allowed:
        # In the form of an event id: the form must not show whether a refusal was throttled.
        reference = str(randomness.uuid7(now))
    elif audit_error is None:
        event_fields.setdefault("outcome", "failure")
        try:
            reference = str(record(action, origin=origin, now=now, reason=reason, **event_fields))
        except AuditUnavailable as error:
            level = logging.ERROR
            audit_error = error
    if log:
        log.logger.log(
            level, log.message, {**log.fields, "reference": reference}, exc_info=audit_error
        )
    return ReportedRefusal(reference, audit_error)
