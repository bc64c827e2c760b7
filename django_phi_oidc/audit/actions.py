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


class DetailType(StrEnum):
    """The type of a value of `detail`."""

    TEXT = "text"
    INTEGER = "integer"
    BOOLEAN = "boolean"
    TEXTS = "texts"
    INTEGERS = "integers"


DETAIL_TYPES: Mapping[str, Mapping[str, DetailType]] = {
    Action.LOGIN_SUCCEEDED: {
        "acr": DetailType.TEXT,
        "amr": DetailType.TEXTS,
        "claims": DetailType.TEXTS,
        "vot": DetailType.TEXT,
    },
    Action.LOGIN_REFUSED: {
        "claims": DetailType.TEXTS,
        "count": DetailType.INTEGER,
        "match": DetailType.TEXT,
        "provider_error": DetailType.TEXT,
        "provider_status": DetailType.INTEGER,
        "stage": DetailType.TEXT,
    },
    Action.LOGOUT_COMPLETED: {},
    Action.LOGOUT_RECEIVED: {
        "sessions": DetailType.INTEGER,
    },
    Action.LOGOUT_REFUSED: {
        "count": DetailType.INTEGER,
        "rule": DetailType.TEXT,
    },
    Action.SIGNAL_RECEIVED: {
        "event": DetailType.TEXT,
        "event_time": DetailType.TEXT,
    },
    Action.SIGNAL_REFUSED: {
        "count": DetailType.INTEGER,
        "rule": DetailType.TEXT,
    },
    Action.SIGNAL_STREAM_CHANGED: {
        "operation": DetailType.TEXT,
    },
    Action.SESSION_RENEWED: {
        "acr": DetailType.TEXT,
        "amr": DetailType.TEXTS,
        "vot": DetailType.TEXT,
    },
    Action.SESSION_ENDED: {
        "tokens": DetailType.INTEGER,
    },
    Action.SESSION_END_REQUESTED: {
        "job": DetailType.TEXT,
        "scope": DetailType.TEXT,
        "sessions": DetailType.INTEGER,
    },
    Action.TOKEN_REVOKED: {
        "attempts": DetailType.INTEGER,
        "hint": DetailType.TEXT,
        "status": DetailType.TEXT,
    },
    Action.TOKEN_REVOCATION_FAILED: {
        "attempts": DetailType.INTEGER,
        "hint": DetailType.TEXT,
        "provider_error": DetailType.TEXT,
        "status": DetailType.TEXT,
    },
    Action.CLAIM_STORED: {
        "claims": DetailType.TEXTS,
        "place": DetailType.TEXT,
    },
    Action.CLAIM_REVEALED: {
        "claim": DetailType.TEXT,
        "consent": DetailType.TEXT,
        "notice": DetailType.TEXT,
    },
    Action.CLAIM_OVERFETCHED: {
        "claims": DetailType.TEXTS,
    },
    Action.CLAIM_SCRUBBED: {
        "cause": DetailType.TEXT,
        "claims": DetailType.TEXTS,
        "counts": DetailType.INTEGERS,
        "place": DetailType.TEXT,
    },
    Action.SUBJECT_LINKED: {
        "created": DetailType.BOOLEAN,
        "method": DetailType.TEXT,
    },
    Action.SUBJECT_UNLINKED: {},
    Action.SUBJECT_EXPORTED: {
        "claims": DetailType.TEXTS,
        "consent": DetailType.TEXT,
        "notice": DetailType.TEXT,
        "suspended_until": DetailType.TEXT,
    },
    Action.SUBJECT_ACCOUNTED: {
        "count": DetailType.INTEGER,
        "sha256": DetailType.TEXT,
        "since": DetailType.TEXT,
        "suspended_until": DetailType.TEXT,
        "withheld": DetailType.INTEGER,
    },
    Action.SUBJECT_ERASED: {
        "claims": DetailType.TEXTS,
        "counts": DetailType.INTEGERS,
    },
    Action.HOLD_PLACED: {
        "purposes": DetailType.TEXTS,
        "statement": DetailType.TEXT,
        "suspended_until": DetailType.TEXT,
        "until": DetailType.TEXT,
    },
    Action.HOLD_RELEASED: {
        "suspended_until": DetailType.TEXT,
    },
    Action.RETENTION_KEY_UNUSED: {
        "bucket": DetailType.TEXT,
    },
    Action.RETENTION_KEY_DESTROYED: {
        "bucket": DetailType.TEXT,
    },
    Action.ACTIVATION_ISSUED: {
        "until": DetailType.TEXT,
    },
    Action.ACTIVATION_REDEEMED: {},
    Action.ACTIVATION_REFUSED: {
        "count": DetailType.INTEGER,
    },
    Action.ACTIVATION_REVOKED: {},
    Action.ROLE_CHANGED: {
        "added": DetailType.TEXTS,
        "granted": DetailType.TEXTS,
        "permissions_added": DetailType.TEXTS,
        "permissions_removed": DetailType.TEXTS,
        "removed": DetailType.TEXTS,
        "withdrawn": DetailType.TEXTS,
    },
    Action.ACCESS_GRANTED: {
        "client_id": DetailType.TEXT,
        "consent": DetailType.TEXT,
        "emergency": DetailType.TEXT,
        "local": DetailType.BOOLEAN,
        "notice": DetailType.TEXT,
        "page": DetailType.TEXT,
    },
    Action.ACCESS_DENIED: {
        "claim": DetailType.TEXT,
        "client_id": DetailType.TEXT,
        "emergency": DetailType.TEXT,
        "local": DetailType.BOOLEAN,
        "page": DetailType.TEXT,
    },
    Action.API_REFUSED: {
        "client_id": DetailType.TEXT,
        "count": DetailType.INTEGER,
    },
    Action.EMERGENCY_OPENED: {
        "emergency": DetailType.TEXT,
        "everything": DetailType.BOOLEAN,
        "local": DetailType.BOOLEAN,
        "permissions": DetailType.TEXTS,
        "until": DetailType.TEXT,
    },
    Action.EMERGENCY_CLOSED: {
        "emergency": DetailType.TEXT,
    },
    Action.EMERGENCY_EXPIRED: {
        "emergency": DetailType.TEXT,
    },
    Action.EMERGENCY_REVIEWED: {
        "emergency": DetailType.TEXT,
        "verdict": DetailType.TEXT,
    },
    Action.EMERGENCY_REFUSED: {
        "emergency": DetailType.TEXT,
    },
    Action.AUDIT_VIEWED: {
        "filters": DetailType.TEXTS,
        "page": DetailType.TEXT,
    },
    Action.AUDIT_EXPORTED: {
        "filters": DetailType.TEXTS,
        "format": DetailType.TEXT,
        "sha256": DetailType.TEXT,
    },
    Action.AUDIT_VERIFIED: {
        "events": DetailType.INTEGER,
        "findings": DetailType.INTEGER,
        "first": DetailType.INTEGER,
        "kinds": DetailType.TEXTS,
        "tree_size": DetailType.INTEGER,
    },
    Action.AUDIT_ARCHIVED: {
        "archived_size": DetailType.INTEGER,
        "detached": DetailType.TEXTS,
        "detached_leaves": DetailType.TEXTS,
        "first": DetailType.INTEGER,
        "sha256": DetailType.TEXT,
        "tree_size": DetailType.INTEGER,
    },
    Action.AUDIT_RESTORED: {
        "epoch": DetailType.INTEGER,
        "origin": DetailType.TEXT,
        "root_hash": DetailType.TEXT,
        "tree_size": DetailType.INTEGER,
        "why": DetailType.TEXT,
    },
    Action.ALERT_RAISED: {
        "attempts": DetailType.INTEGER,
        "claims": DetailType.TEXTS,
        "count": DetailType.INTEGER,
        "emergency": DetailType.TEXT,
        "hint": DetailType.TEXT,
        "provider_error": DetailType.TEXT,
        "roles": DetailType.TEXTS,
        "rule": DetailType.TEXT,
        "status": DetailType.TEXT,
    },
    Action.ALERT_ACKNOWLEDGED: {
        "rule": DetailType.TEXT,
    },
    Action.ALERT_MUTED: {
        "rule": DetailType.TEXT,
        "until": DetailType.TEXT,
    },
    Action.ALERT_UNMUTED: {
        "rule": DetailType.TEXT,
    },
    Action.DELIVERY_REQUESTED: {},
    Action.CONFIGURATION_CHANGED: {
        "digest": DetailType.TEXT,
        "options": DetailType.TEXTS,
        "previous": DetailType.TEXT,
        "silenced": DetailType.TEXTS,
        "warnings_added": DetailType.TEXTS,
        "warnings_removed": DetailType.TEXTS,
    },
    Action.SCIM_USER_CREATED: {
        "active": DetailType.BOOLEAN,
    },
    Action.SCIM_USER_CHANGED: {
        "attributes": DetailType.TEXTS,
    },
    Action.SCIM_USER_DISABLED: {},
    Action.SCIM_USER_ENABLED: {},
    Action.SCIM_USER_DELETED: {},
    Action.SCIM_GROUP_CHANGED: {
        "change": DetailType.TEXT,
        "members_added": DetailType.INTEGER,
        "members_removed": DetailType.INTEGER,
    },
    Action.SCIM_CLIENT_CHANGED: {
        "change": DetailType.TEXT,
    },
    Action.SCIM_REFUSED: {
        "count": DetailType.INTEGER,
        "rule": DetailType.TEXT,
    },
}
"""The keys that `detail` may have, by action, and the types of their values. Recorder, sealer,
formats and pages rely on it. `sanitized` and `signed_late` are only set by this package.
"""
TYPES_BY_KEY: Mapping[str, DetailType] = {
    key: detail_type for types in DETAIL_TYPES.values() for key, detail_type in types.items()
}
"""A key has one type in all actions, also in those of host projects and of newer versions: readers
of the log look for some keys in any event.
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
