"""The Open Cybersecurity Schema Framework, version 1.5.0. No Django.

Sign-in and sign-out are Authentication (3002), alerts are Detection Finding (2004), everything else
is Entity Management (3004). Fields without an attribute in the schema are under `unmapped`.
Spec: schema.ocsf.io/1.5.0.
"""

import ipaddress
import json
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any

from ..events import Action, Event
from .items import SealedCheckpoint, SealedEvent, epoch_milliseconds

VERSION = "1.5.0"
PRODUCT = {"name": "django_phi_oidc", "vendor_name": "django_phi_oidc"}
LOG_NAME = "phi_oidc.audit"

AUTHENTICATION = 3002
ENTITY_MANAGEMENT = 3004
DETECTION_FINDING = 2004
_CLASSES = {
    AUTHENTICATION: ("Authentication", 3, "Identity & Access Management"),
    ENTITY_MANAGEMENT: ("Entity Management", 3, "Identity & Access Management"),
    DETECTION_FINDING: ("Detection Finding", 2, "Findings"),
}
_LOGON = (1, "Logon")
_LOGOFF = (2, "Logoff")
_CREATE = (1, "Create")
_READ = (2, "Read")
_UPDATE = (3, "Update")
_DELETE = (4, "Delete")
_OTHER = (99, "Other")
ACTION_MAPPING: Mapping[str, tuple[int, tuple[int, str], str]] = {
    Action.LOGIN_SUCCEEDED: (AUTHENTICATION, _LOGON, ""),
    Action.LOGIN_REFUSED: (AUTHENTICATION, _LOGON, ""),
    Action.LOGOUT_COMPLETED: (AUTHENTICATION, _LOGOFF, ""),
    Action.LOGOUT_RECEIVED: (AUTHENTICATION, _LOGOFF, ""),
    Action.LOGOUT_REFUSED: (AUTHENTICATION, _LOGOFF, ""),
    Action.SIGNAL_RECEIVED: (ENTITY_MANAGEMENT, _UPDATE, "SecurityEvent"),
    Action.SIGNAL_REFUSED: (ENTITY_MANAGEMENT, _UPDATE, "SecurityEvent"),
    Action.SIGNAL_STREAM_CHANGED: (ENTITY_MANAGEMENT, _UPDATE, "EventStream"),
    Action.SESSION_RENEWED: (AUTHENTICATION, _LOGON, ""),
    Action.SESSION_ENDED: (AUTHENTICATION, _LOGOFF, ""),
    Action.SESSION_END_REQUESTED: (ENTITY_MANAGEMENT, _UPDATE, "SessionEndJob"),
    Action.TOKEN_REVOKED: (ENTITY_MANAGEMENT, _DELETE, "Token"),
    Action.TOKEN_REVOCATION_FAILED: (ENTITY_MANAGEMENT, _DELETE, "Token"),
    Action.CLAIM_STORED: (ENTITY_MANAGEMENT, _CREATE, "Claim"),
    Action.CLAIM_REVEALED: (ENTITY_MANAGEMENT, _READ, "Claim"),
    Action.CLAIM_OVERFETCHED: (ENTITY_MANAGEMENT, _OTHER, "Claim"),
    Action.CLAIM_SCRUBBED: (ENTITY_MANAGEMENT, _DELETE, "Claim"),
    Action.HOLD_PLACED: (ENTITY_MANAGEMENT, _CREATE, "LegalHold"),
    Action.HOLD_RELEASED: (ENTITY_MANAGEMENT, _UPDATE, "LegalHold"),
    Action.RETENTION_KEY_UNUSED: (ENTITY_MANAGEMENT, _UPDATE, "RetentionKey"),
    Action.RETENTION_KEY_DESTROYED: (ENTITY_MANAGEMENT, _DELETE, "RetentionKey"),
    Action.SUBJECT_LINKED: (ENTITY_MANAGEMENT, _CREATE, "Subject"),
    Action.SUBJECT_UNLINKED: (ENTITY_MANAGEMENT, _DELETE, "Subject"),
    Action.SUBJECT_EXPORTED: (ENTITY_MANAGEMENT, _READ, "Subject"),
    Action.SUBJECT_ACCOUNTED: (ENTITY_MANAGEMENT, _READ, "Subject"),
    Action.SUBJECT_ERASED: (ENTITY_MANAGEMENT, _DELETE, "Subject"),
    Action.ACTIVATION_ISSUED: (ENTITY_MANAGEMENT, _CREATE, "ActivationCode"),
    Action.ACTIVATION_REDEEMED: (ENTITY_MANAGEMENT, _UPDATE, "ActivationCode"),
    Action.ACTIVATION_REFUSED: (ENTITY_MANAGEMENT, _OTHER, "ActivationCode"),
    Action.ACTIVATION_REVOKED: (ENTITY_MANAGEMENT, _DELETE, "ActivationCode"),
    Action.ROLE_CHANGED: (ENTITY_MANAGEMENT, _UPDATE, "Role"),
    Action.ACCESS_GRANTED: (ENTITY_MANAGEMENT, _READ, "Resource"),
    Action.ACCESS_DENIED: (ENTITY_MANAGEMENT, _READ, "Resource"),
    Action.API_REFUSED: (AUTHENTICATION, _OTHER, ""),
    Action.EMERGENCY_OPENED: (ENTITY_MANAGEMENT, _CREATE, "EmergencyAccess"),
    Action.EMERGENCY_CLOSED: (ENTITY_MANAGEMENT, _UPDATE, "EmergencyAccess"),
    Action.EMERGENCY_EXPIRED: (ENTITY_MANAGEMENT, _UPDATE, "EmergencyAccess"),
    Action.EMERGENCY_REVIEWED: (ENTITY_MANAGEMENT, _UPDATE, "EmergencyAccess"),
    Action.EMERGENCY_REFUSED: (ENTITY_MANAGEMENT, _OTHER, "EmergencyAccess"),
    Action.AUDIT_VIEWED: (ENTITY_MANAGEMENT, _READ, "AuditTrail"),
    Action.AUDIT_EXPORTED: (ENTITY_MANAGEMENT, _READ, "AuditTrail"),
    Action.AUDIT_VERIFIED: (ENTITY_MANAGEMENT, _READ, "AuditTrail"),
    Action.AUDIT_ARCHIVED: (ENTITY_MANAGEMENT, (5, "Move"), "AuditTrail"),
    Action.AUDIT_RESTORED: (ENTITY_MANAGEMENT, _OTHER, "AuditTrail"),
    Action.AUDIT_SET_ASIDE: (ENTITY_MANAGEMENT, _UPDATE, "AuditTrail"),
    Action.ALERT_RAISED: (DETECTION_FINDING, _CREATE, ""),
    Action.ALERT_ACKNOWLEDGED: (ENTITY_MANAGEMENT, _UPDATE, "SecurityAlert"),
    Action.ALERT_MUTED: (ENTITY_MANAGEMENT, _CREATE, "AlertMute"),
    Action.ALERT_UNMUTED: (ENTITY_MANAGEMENT, _UPDATE, "AlertMute"),
    Action.DELIVERY_REQUESTED: (ENTITY_MANAGEMENT, _UPDATE, "Sink"),
    Action.CONFIGURATION_CHANGED: (ENTITY_MANAGEMENT, _UPDATE, "Configuration"),
    Action.SCIM_USER_CREATED: (ENTITY_MANAGEMENT, _CREATE, "User"),
    Action.SCIM_USER_CHANGED: (ENTITY_MANAGEMENT, _UPDATE, "User"),
    Action.SCIM_USER_DISABLED: (ENTITY_MANAGEMENT, _UPDATE, "User"),
    Action.SCIM_USER_ENABLED: (ENTITY_MANAGEMENT, _UPDATE, "User"),
    Action.SCIM_USER_DELETED: (ENTITY_MANAGEMENT, _DELETE, "User"),
    Action.SCIM_GROUP_CHANGED: (ENTITY_MANAGEMENT, _UPDATE, "Group"),
    Action.SCIM_CLIENT_CHANGED: (ENTITY_MANAGEMENT, _UPDATE, "SCIMClient"),
    Action.SCIM_REFUSED: (AUTHENTICATION, _OTHER, ""),
}
"""For each action: the class, the activity, and the type of the entity."""
_UNKNOWN_ACTION = (ENTITY_MANAGEMENT, _OTHER, "Resource")
"""For actions of host projects."""
_SEVERITIES = {"success": (1, "Informational"), "failure": (3, "Medium"), "error": (4, "High")}
_STATUSES = {"success": (1, "Success"), "failure": (2, "Failure"), "error": (2, "Failure")}


def event_to_ocsf(item: SealedEvent) -> dict[str, Any]:
    """Return the event as an object of its OCSF class."""
    event = item.authenticated_event.event
    class_uid, activity, kind = ACTION_MAPPING.get(event.action, _UNKNOWN_ACTION)
    detail = json.loads(event.detail)
    members = _base_event(class_uid, activity, event.occurred_at)
    members["metadata"] |= {
        "uid": str(event.id),
        "event_code": event.action,
        "sequence": item.leaf_index,
    }
    if event.request_id:
        members["metadata"]["correlation_uid"] = event.request_id
    members["message"] = event.action
    members["unmapped"] = {"detail": detail, "mac": item.authenticated_event.mac.hex()}
    for name in _UNMAPPED_FIELDS:
        value = getattr(event, name)
        if value:
            members["unmapped"][name] = str(value)
    if event.reason:
        members["status_code"] = event.reason
    if class_uid == DETECTION_FINDING:
        return members | _detection_finding_members(event, detail)
    members["severity_id"], members["severity"] = _SEVERITIES[event.outcome]
    members["status_id"], members["status"] = _STATUSES[event.outcome]
    with suppress(ValueError):
        members["src_endpoint"] = {"ip": str(ipaddress.ip_address(event.client_ip))}
    if class_uid == AUTHENTICATION:
        return members | _authentication_members(event)
    return members | _entity_management_members(event, kind, detail)


def checkpoint_to_ocsf(item: SealedCheckpoint) -> dict[str, Any]:
    """Return the checkpoint as Entity Management of the log; the note is in `unmapped`."""
    members = _base_event(ENTITY_MANAGEMENT, _OTHER, item.sealed_at)
    members["metadata"] |= {
        "uid": f"checkpoint-{item.epoch}-{item.tree_size}",
        "event_code": "checkpoint",
    }
    members["severity_id"], members["severity"] = _SEVERITIES["success"]
    members["status_id"], members["status"] = _STATUSES["success"]
    unmapped = {
        "checkpoint": item.note,
        "tree_size": item.tree_size,
        "root_hash": item.root_hash.hex(),
    }
    entity = {"type": "AuditTrail", "name": item.origin, "version": str(item.tree_size)}
    return members | {
        "message": "checkpoint",
        "entity": entity,
        "unmapped": {**unmapped, "epoch": item.epoch},
    }


_UNMAPPED_FIELDS = (
    "v",
    "mac_key",
    "occurred_at",
    "outcome",
    "on_behalf_of",
    "subject",
    "provider",
    "client_ip",
    "purpose",
    "resource",
)


def _base_event(class_uid: int, activity: tuple[int, str], moment: datetime) -> dict[str, Any]:
    class_name, category_uid, category_name = _CLASSES[class_uid]
    activity_id, activity_name = activity
    return {
        "class_uid": class_uid,
        "class_name": class_name,
        "category_uid": category_uid,
        "category_name": category_name,
        "activity_id": activity_id,
        "activity_name": activity_name,
        "type_uid": class_uid * 100 + activity_id,
        "type_name": f"{class_name}: {activity_name}",
        "time": epoch_milliseconds(moment),
        "metadata": {
            "version": VERSION,
            "product": dict(PRODUCT),
            "log_name": LOG_NAME,
            "log_version": "1",
        },
    }


def _authentication_members(event: Event) -> dict[str, Any]:
    """Return the members of the class. A refused sign-in has no user yet."""
    user = event.actor or event.subject
    members: dict[str, Any] = {
        "user": {"uid": user} if user else {"name": "Unknown"},
        "service": {"name": event.provider or PRODUCT["name"]},
        "auth_protocol_id": 4,
        "auth_protocol": "OpenID",
    }
    if event.session:
        members["session"] = {"uid": event.session}
    return members


def _entity_management_members(
    event: Event, entity_type: str, detail: Mapping[str, Any]
) -> dict[str, Any]:
    uid = event.resource or event.subject or event.session or str(event.id)
    entity: dict[str, Any] = {"type": entity_type, "uid": uid}
    if claims := detail.get("claims", detail.get("claim")):
        if isinstance(claims, list):
            entity["name"] = ", ".join(claims)
        else:
            entity["name"] = str(claims)
    actor = {}
    if event.actor:
        actor["user"] = {"uid": event.actor}
    if event.session:
        actor["session"] = {"uid": event.session}
    if actor:
        return {"entity": entity, "actor": actor}
    return {"entity": entity}


def _detection_finding_members(event: Event, detail: Mapping[str, Any]) -> dict[str, Any]:
    title = str(detail.get("rule", event.action))
    created_time = epoch_milliseconds(event.occurred_at)
    info = {"uid": str(event.id), "title": title, "created_time": created_time}
    members: dict[str, Any] = {
        "severity_id": 4,
        "severity": "High",
        "status_id": 1,
        "status": "New",
    }
    members["finding_info"] = info
    if event.resource:
        members["resources"] = [{"uid": event.resource}]
    return members
