"""The actions of audit events, and the details they may have. No Django."""

from collections.abc import Mapping
from enum import StrEnum


class Action(StrEnum):
    """The actions of this package; a host project registers its own by `register_actions`."""

    LOGIN_SUCCEEDED = "login.succeeded"
    LOGIN_REFUSED = "login.refused"
    LOGOUT_COMPLETED = "logout.completed"
    LOGOUT_RECEIVED = "logout.received"
    LOGOUT_REFUSED = "logout.refused"
    SIGNAL_RECEIVED = "signal.received"
    SIGNAL_REFUSED = "signal.refused"
    SIGNAL_STREAM_CHANGED = "signal.stream_changed"
    SESSION_RENEWED = "session.renewed"
    SESSION_ENDED = "session.ended"
    SESSION_END_REQUESTED = "session.end_requested"
    TOKEN_REVOKED = "token.revoked"
    TOKEN_REVOCATION_FAILED = "token.revocation_failed"
    CLAIM_STORED = "claim.stored"
    CLAIM_REVEALED = "claim.revealed"
    CLAIM_OVERFETCHED = "claim.overfetched"
    CLAIM_SCRUBBED = "claim.scrubbed"
    HOLD_PLACED = "hold.placed"
    HOLD_RELEASED = "hold.released"
    RETENTION_KEY_UNUSED = "retention.key_unused"
    RETENTION_KEY_DESTROYED = "retention.key_destroyed"
    SUBJECT_LINKED = "subject.linked"
    SUBJECT_UNLINKED = "subject.unlinked"
    SUBJECT_EXPORTED = "subject.exported"
    SUBJECT_ACCOUNTED = "subject.accounted"
    SUBJECT_ERASED = "subject.erased"
    ACTIVATION_ISSUED = "activation.issued"
    ACTIVATION_REDEEMED = "activation.redeemed"
    ACTIVATION_REFUSED = "activation.refused"
    ACTIVATION_REVOKED = "activation.revoked"
    ROLE_CHANGED = "role.changed"
    ACCESS_GRANTED = "access.granted"
    ACCESS_DENIED = "access.denied"
    API_REFUSED = "api.refused"
    EMERGENCY_OPENED = "emergency.opened"
    EMERGENCY_CLOSED = "emergency.closed"
    EMERGENCY_EXPIRED = "emergency.expired"
    EMERGENCY_REVIEWED = "emergency.reviewed"
    EMERGENCY_REFUSED = "emergency.refused"
    AUDIT_VIEWED = "audit.viewed"
    AUDIT_EXPORTED = "audit.exported"
    AUDIT_VERIFIED = "audit.verified"
    AUDIT_ARCHIVED = "audit.archived"
    AUDIT_RESTORED = "audit.restored"
    AUDIT_SET_ASIDE = "audit.set_aside"
    ALERT_RAISED = "alert.raised"
    ALERT_ACKNOWLEDGED = "alert.acknowledged"
    ALERT_MUTED = "alert.muted"
    ALERT_UNMUTED = "alert.unmuted"
    DELIVERY_REQUESTED = "delivery.requested"
    CONFIGURATION_CHANGED = "configuration.changed"
    SCIM_USER_CREATED = "scim.user_created"
    SCIM_USER_CHANGED = "scim.user_changed"
    SCIM_USER_DISABLED = "scim.user_disabled"
    SCIM_USER_ENABLED = "scim.user_enabled"
    SCIM_USER_DELETED = "scim.user_deleted"
    SCIM_GROUP_CHANGED = "scim.group_changed"
    SCIM_CLIENT_CHANGED = "scim.client_changed"
    SCIM_REFUSED = "scim.refused"


DETAIL_KEYS: Mapping[str, frozenset[str]] = {
    Action.LOGIN_SUCCEEDED: frozenset({"acr", "amr", "claims", "vot"}),
    Action.LOGIN_REFUSED: frozenset(
        {"stage", "provider_error", "provider_status", "claims", "count", "match"}
    ),
    Action.LOGOUT_COMPLETED: frozenset(),
    Action.LOGOUT_RECEIVED: frozenset({"sessions"}),
    Action.LOGOUT_REFUSED: frozenset({"count", "rule"}),
    Action.SIGNAL_RECEIVED: frozenset({"event", "event_time"}),
    Action.SIGNAL_REFUSED: frozenset({"count", "rule"}),
    Action.SIGNAL_STREAM_CHANGED: frozenset({"operation"}),
    Action.SESSION_RENEWED: frozenset({"acr", "amr", "vot"}),
    Action.SESSION_ENDED: frozenset({"tokens"}),
    Action.SESSION_END_REQUESTED: frozenset({"job", "people", "scope", "sessions"}),
    Action.TOKEN_REVOKED: frozenset({"hint", "attempts", "status"}),
    Action.TOKEN_REVOCATION_FAILED: frozenset({"hint", "attempts", "status", "provider_error"}),
    Action.CLAIM_STORED: frozenset({"claims", "place"}),
    Action.CLAIM_REVEALED: frozenset({"claim", "consent", "notice"}),
    Action.CLAIM_OVERFETCHED: frozenset({"claims"}),
    Action.CLAIM_SCRUBBED: frozenset({"claims", "counts", "cause", "place"}),
    Action.SUBJECT_LINKED: frozenset({"created", "method"}),
    Action.SUBJECT_UNLINKED: frozenset(),
    Action.SUBJECT_EXPORTED: frozenset({"claims", "consent", "notice", "suspended_until"}),
    Action.SUBJECT_ACCOUNTED: frozenset(
        {"since", "count", "sha256", "withheld", "suspended_until"}
    ),
    Action.SUBJECT_ERASED: frozenset({"claims", "counts"}),
    Action.HOLD_PLACED: frozenset({"until", "suspended_until", "purposes", "statement"}),
    Action.HOLD_RELEASED: frozenset({"suspended_until"}),
    Action.RETENTION_KEY_UNUSED: frozenset({"bucket"}),
    Action.RETENTION_KEY_DESTROYED: frozenset({"bucket"}),
    Action.ACTIVATION_ISSUED: frozenset({"until"}),
    Action.ACTIVATION_REDEEMED: frozenset(),
    Action.ACTIVATION_REFUSED: frozenset({"count"}),
    Action.ACTIVATION_REVOKED: frozenset(),
    Action.ROLE_CHANGED: frozenset(
        {"added", "removed", "granted", "withdrawn", "permissions_added", "permissions_removed"}
    ),
    Action.ACCESS_GRANTED: frozenset(
        {"client_id", "consent", "emergency", "local", "notice", "page"}
    ),
    Action.ACCESS_DENIED: frozenset({"claim", "client_id", "emergency", "local", "page"}),
    Action.API_REFUSED: frozenset({"client_id", "count"}),
    Action.EMERGENCY_OPENED: frozenset(
        {"emergency", "everything", "local", "permissions", "until"}
    ),
    Action.EMERGENCY_CLOSED: frozenset({"emergency"}),
    Action.EMERGENCY_EXPIRED: frozenset({"emergency"}),
    Action.EMERGENCY_REVIEWED: frozenset({"emergency", "verdict"}),
    Action.EMERGENCY_REFUSED: frozenset({"emergency"}),
    Action.AUDIT_VIEWED: frozenset({"page", "filters"}),
    Action.AUDIT_EXPORTED: frozenset({"format", "filters", "sha256"}),
    Action.AUDIT_VERIFIED: frozenset({"tree_size", "events", "findings", "first", "kinds"}),
    Action.AUDIT_ARCHIVED: frozenset(
        {"archived_size", "detached", "detached_leaves", "first", "tree_size", "sha256"}
    ),
    Action.AUDIT_RESTORED: frozenset({"epoch", "tree_size", "root_hash", "origin", "why"}),
    Action.AUDIT_SET_ASIDE: frozenset({"count", "event_ids", "operation"}),
    Action.ALERT_RAISED: frozenset(
        {
            "rule",
            "count",
            "claims",
            "emergency",
            "event_ids",
            "roles",
            "hint",
            "attempts",
            "status",
            "provider_error",
        }
    ),
    Action.ALERT_ACKNOWLEDGED: frozenset({"rule"}),
    Action.ALERT_MUTED: frozenset({"rule", "until"}),
    Action.ALERT_UNMUTED: frozenset({"rule"}),
    Action.DELIVERY_REQUESTED: frozenset(),
    Action.CONFIGURATION_CHANGED: frozenset(
        {"digest", "previous", "options", "warnings_added", "warnings_removed", "silenced"}
    ),
    Action.SCIM_USER_CREATED: frozenset({"active"}),
    Action.SCIM_USER_CHANGED: frozenset({"attributes"}),
    Action.SCIM_USER_DISABLED: frozenset(),
    Action.SCIM_USER_ENABLED: frozenset(),
    Action.SCIM_USER_DELETED: frozenset(),
    Action.SCIM_GROUP_CHANGED: frozenset({"change", "members_added", "members_removed"}),
    Action.SCIM_CLIENT_CHANGED: frozenset({"change"}),
    Action.SCIM_REFUSED: frozenset({"count", "rule"}),
}
"""The allowed keys of `detail` for each action. `sanitized` and `signed_late` are only set by this
package.
"""


class DetailType(StrEnum):
    """The type of a value of `detail`."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXTS = "texts"
    INTEGERS = "integers"


DETAIL_TYPES: Mapping[str, DetailType] = {
    "acr": DetailType.TEXT,
    "active": DetailType.BOOLEAN,
    "added": DetailType.TEXTS,
    "amr": DetailType.TEXTS,
    "archived_size": DetailType.INTEGER,
    "attempts": DetailType.INTEGER,
    "attributes": DetailType.TEXTS,
    "bucket": DetailType.TEXT,
    "cause": DetailType.TEXT,
    "change": DetailType.TEXT,
    "claim": DetailType.TEXT,
    "claims": DetailType.TEXTS,
    "client_id": DetailType.TEXT,
    "consent": DetailType.TEXT,
    "count": DetailType.INTEGER,
    "counts": DetailType.INTEGERS,
    "created": DetailType.BOOLEAN,
    "detached": DetailType.TEXTS,
    "detached_leaves": DetailType.TEXTS,
    "digest": DetailType.TEXT,
    "emergency": DetailType.TEXT,
    "epoch": DetailType.INTEGER,
    "event": DetailType.TEXT,
    "event_ids": DetailType.TEXTS,
    "event_time": DetailType.TEXT,
    "events": DetailType.INTEGER,
    "everything": DetailType.BOOLEAN,
    "filters": DetailType.TEXTS,
    "findings": DetailType.INTEGER,
    "first": DetailType.INTEGER,
    "format": DetailType.TEXT,
    "granted": DetailType.TEXTS,
    "hint": DetailType.TEXT,
    "job": DetailType.TEXT,
    "kinds": DetailType.TEXTS,
    "local": DetailType.BOOLEAN,
    "match": DetailType.TEXT,
    "members_added": DetailType.INTEGER,
    "members_removed": DetailType.INTEGER,
    "method": DetailType.TEXT,
    "notice": DetailType.TEXT,
    "operation": DetailType.TEXT,
    "options": DetailType.TEXTS,
    "origin": DetailType.TEXT,
    "page": DetailType.TEXT,
    "people": DetailType.INTEGER,
    "permissions": DetailType.TEXTS,
    "permissions_added": DetailType.TEXTS,
    "permissions_removed": DetailType.TEXTS,
    "place": DetailType.TEXT,
    "previous": DetailType.TEXT,
    "provider_error": DetailType.TEXT,
    "provider_status": DetailType.INTEGER,
    "purposes": DetailType.TEXTS,
    "removed": DetailType.TEXTS,
    "roles": DetailType.TEXTS,
    "root_hash": DetailType.TEXT,
    "rule": DetailType.TEXT,
    "scope": DetailType.TEXT,
    "sessions": DetailType.INTEGER,
    "sha256": DetailType.TEXT,
    "silenced": DetailType.TEXTS,
    "since": DetailType.TEXT,
    "stage": DetailType.TEXT,
    "statement": DetailType.TEXT,
    "status": DetailType.TEXT,
    "suspended_until": DetailType.TEXT,
    "tokens": DetailType.INTEGER,
    "tree_size": DetailType.INTEGER,
    "until": DetailType.TEXT,
    "verdict": DetailType.TEXT,
    "vot": DetailType.TEXT,
    "warnings_added": DetailType.TEXTS,
    "warnings_removed": DetailType.TEXTS,
    "why": DetailType.TEXT,
    "withdrawn": DetailType.TEXTS,
    "withheld": DetailType.INTEGER,
}
"""The type of each key of DETAIL_KEYS. A key has it in every event, also of a host project or of a
newer version: readers of the log look for some keys in any event.
"""
WITHDRAWAL_ACTIONS = frozenset(
    {
        *(
            Action.LOGOUT_COMPLETED,
            Action.LOGOUT_RECEIVED,
            Action.SESSION_ENDED,
            Action.SESSION_END_REQUESTED,
        ),
        *(Action.TOKEN_REVOKED, Action.TOKEN_REVOCATION_FAILED),
        *(Action.CLAIM_SCRUBBED, Action.SUBJECT_UNLINKED, Action.ACTIVATION_REVOKED),
        *(Action.SCIM_USER_DISABLED, Action.SCIM_USER_DELETED),
        *(Action.EMERGENCY_CLOSED, Action.EMERGENCY_EXPIRED, Action.ALERT_RAISED),
    }
)
"""Actions that only end or withdraw something, and alerts. Their events may wait in the outbox
without a MAC, so that nothing of this depends on the keys of the audit log.
"""
ROLE_WITHDRAWAL_KEYS = frozenset({"removed", "withdrawn", "permissions_removed"})
"""An event `role.changed` with no other keys in its detail withdraws something, too."""
DECLARATION_ACTIONS = frozenset({Action.AUDIT_ARCHIVED, Action.AUDIT_RESTORED})
"""Statements about the log itself. Only a process that has the signing key makes one, and it puts
the event into the tree at once. Such an event in the queue of the sealer is refused.
"""
DISCLOSURE_ACTIONS = frozenset(
    {Action.CLAIM_REVEALED, Action.ACCESS_GRANTED, Action.SUBJECT_EXPORTED}
)
"""Actions that disclose a person's data; a host project registers its own by `register_actions`."""
SHOWN_REFUSAL_ACTIONS = frozenset(
    {
        Action.LOGIN_REFUSED,
        Action.ACTIVATION_REFUSED,
        Action.ACCESS_DENIED,
        Action.EMERGENCY_REFUSED,
    }
)
"""Refusals that a user sees as a page: its reference is the id of the event."""
RESERVED_PREFIXES = frozenset(
    {
        *(action.partition(".")[0] for action in Action),
        *(
            "assurance",
            "checkpoint",
            "delivery",
            "django_phi_oidc",
            "emergency",
            "grant",
            "key",
            "oidc",
            "phi_oidc",
        ),
        *("policy", "provider", "refresh", "retention", "role", "sink", "witness"),
    }
)
"""Prefixes that host projects may not register, for present and future actions of this package."""
UNKEYED_RESOURCE_TYPES = frozenset(
    {
        *(
            "AlertMute",
            "AuditCheckpoint",
            "AuditEvent",
            "Configuration",
            "EventReader",
            "SCIMClient",
            "SCIMGroup",
            "SecurityAlert",
        ),
        *("Sink", "TrailJob", "Witness", "group"),
    }
)
"""Resource types of this package: their ids do not identify a person, so keyed ids leave them
readable.
"""
