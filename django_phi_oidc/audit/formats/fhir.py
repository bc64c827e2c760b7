"""FHIR R4 AuditEvent, after the patterns of IHE BALP. No Django.

Access to claims follows BALP's access to a resource: agents client, server and user, and entities
patient, data and transaction. An event of a user who acts for another account has that account as
an agent of type `DELEGATOR`. `meta.profile` names a BALP profile only if the event meets all its
requirements. Every other action uses DICOM types. Each event has the action itself as an additional
subtype.
Spec: hl7.org/fhir/R4/auditevent.html; profiles.ihe.net/ITI/BALP (1.1.3).
"""

import ipaddress
import json
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from ..events import Action, Event
from .items import SealedCheckpoint, SealedEvent, format_instant

PRODUCT = "django_phi_oidc"
ACTION_SYSTEM = "urn:django-phi-oidc:audit-action"
"""The code system of the additional subtype."""
PATIENT_READ_PROFILE = (
    "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PatientRead"
)
DCM = "http://dicom.nema.org/resources/ontology/DCM"
_HL7 = "http://terminology.hl7.org/CodeSystem/"
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
_BALP_ENTITY = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_OUTCOME_CODES = {"success": "0", "failure": "4", "error": "8"}
_PATIENT_RESOURCE = re.compile(r"Patient/\S+")
_ACCOUNT_DATA_ACTIONS = frozenset(
    {Action.SUBJECT_EXPORTED, Action.SUBJECT_ACCOUNTED, Action.SUBJECT_ERASED}
)
"""They have no subject if the account has no link."""


class AuditEventType(NamedTuple):
    """FHIR coding of an action: type, subtypes other than the action itself, and C, R, U, D or
    E.
    """

    type: dict[str, str]
    subtype: tuple[dict[str, str], ...]
    action: str


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}


_REST = _coding(f"{_HL7}audit-event-type", "rest", "RESTful Operation")
_AUTHENTICATION = _coding(DCM, "110114", "User Authentication")
_LOG_USED = _coding(DCM, "110101", "Audit Log Used")
_SECURITY_ALERT = _coding(DCM, "110113", "Security Alert")
_LOGIN = _coding(DCM, "110122", "Login")
_LOGOUT = _coding(DCM, "110123", "Logout")
_ATTRIBUTES_CHANGED = _coding(DCM, "110137", "User Security Attributes Changed")
_SECURITY_CONFIGURATION = _coding(DCM, "110129", "Security Configuration")
_OVERRIDE_STARTED = _coding(DCM, "110127", "Emergency Override Started")
_OVERRIDE_STOPPED = _coding(DCM, "110138", "Emergency Override Stopped")
_EXPORT = _coding(DCM, "110106", "Export")
_PATIENT_RECORD = _coding(DCM, "110110", "Patient Record")
_SOURCE = _coding(DCM, "110153", "Source Role ID")
_DESTINATION = _coding(DCM, "110152", "Destination Role ID")
_DELEGATOR = _coding(f"{_HL7}v3-RoleCode", "DELEGATOR", "delegator")
"""The agent on whose behalf the user acts."""


def _rest_event_type(interaction: str, action: str) -> AuditEventType:
    return AuditEventType(_REST, (_coding(_INTERACTION, interaction, interaction),), action)


ACTION_MAPPING: Mapping[str, AuditEventType] = {
    Action.LOGIN_SUCCEEDED: AuditEventType(_AUTHENTICATION, (_LOGIN,), "E"),
    Action.LOGIN_REFUSED: AuditEventType(_AUTHENTICATION, (_LOGIN,), "E"),
    Action.LOGOUT_COMPLETED: AuditEventType(_AUTHENTICATION, (_LOGOUT,), "E"),
    Action.LOGOUT_RECEIVED: AuditEventType(_AUTHENTICATION, (_LOGOUT,), "E"),
    Action.LOGOUT_REFUSED: AuditEventType(_AUTHENTICATION, (_LOGOUT,), "E"),
    Action.SIGNAL_RECEIVED: AuditEventType(_SECURITY_ALERT, (), "E"),
    Action.SIGNAL_REFUSED: AuditEventType(_SECURITY_ALERT, (), "E"),
    Action.SIGNAL_STREAM_CHANGED: AuditEventType(_SECURITY_ALERT, (_SECURITY_CONFIGURATION,), "U"),
    Action.SESSION_RENEWED: AuditEventType(_AUTHENTICATION, (_LOGIN,), "E"),
    Action.SESSION_ENDED: AuditEventType(_AUTHENTICATION, (_LOGOUT,), "E"),
    Action.SESSION_END_REQUESTED: AuditEventType(_AUTHENTICATION, (_LOGOUT,), "E"),
    Action.TOKEN_REVOKED: AuditEventType(_AUTHENTICATION, (), "D"),
    Action.TOKEN_REVOCATION_FAILED: AuditEventType(_AUTHENTICATION, (), "D"),
    Action.CLAIM_STORED: _rest_event_type("create", "C"),
    Action.CLAIM_REVEALED: _rest_event_type("read", "R"),
    Action.CLAIM_OVERFETCHED: AuditEventType(_SECURITY_ALERT, (), "E"),
    Action.CLAIM_SCRUBBED: _rest_event_type("delete", "D"),
    Action.HOLD_PLACED: AuditEventType(_PATIENT_RECORD, (), "U"),
    Action.HOLD_RELEASED: AuditEventType(_PATIENT_RECORD, (), "U"),
    Action.RETENTION_KEY_UNUSED: AuditEventType(_SECURITY_ALERT, (_SECURITY_CONFIGURATION,), "U"),
    Action.RETENTION_KEY_DESTROYED: AuditEventType(
        _SECURITY_ALERT, (_SECURITY_CONFIGURATION,), "D"
    ),
    Action.SUBJECT_LINKED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "C"),
    Action.SUBJECT_UNLINKED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "D"),
    Action.SUBJECT_EXPORTED: AuditEventType(_EXPORT, (), "R"),
    Action.SUBJECT_ACCOUNTED: AuditEventType(_LOG_USED, (), "R"),
    Action.SUBJECT_ERASED: AuditEventType(_PATIENT_RECORD, (), "D"),
    Action.ACTIVATION_ISSUED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "C"),
    Action.ACTIVATION_REDEEMED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    Action.ACTIVATION_REFUSED: AuditEventType(_AUTHENTICATION, (), "E"),
    Action.ACTIVATION_REVOKED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "D"),
    Action.ROLE_CHANGED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    Action.ACCESS_GRANTED: _rest_event_type("read", "R"),
    Action.ACCESS_DENIED: _rest_event_type("read", "R"),
    Action.API_REFUSED: AuditEventType(_AUTHENTICATION, (), "E"),
    Action.EMERGENCY_OPENED: AuditEventType(_SECURITY_ALERT, (_OVERRIDE_STARTED,), "C"),
    Action.EMERGENCY_CLOSED: AuditEventType(_SECURITY_ALERT, (_OVERRIDE_STOPPED,), "U"),
    Action.EMERGENCY_EXPIRED: AuditEventType(_SECURITY_ALERT, (_OVERRIDE_STOPPED,), "U"),
    Action.EMERGENCY_REVIEWED: AuditEventType(_SECURITY_ALERT, (), "U"),
    Action.EMERGENCY_REFUSED: AuditEventType(_SECURITY_ALERT, (), "E"),
    Action.AUDIT_VIEWED: AuditEventType(_LOG_USED, (), "R"),
    Action.AUDIT_EXPORTED: AuditEventType(_LOG_USED, (), "R"),
    Action.AUDIT_VERIFIED: AuditEventType(_LOG_USED, (), "R"),
    Action.AUDIT_ARCHIVED: AuditEventType(_LOG_USED, (), "U"),
    Action.AUDIT_RESTORED: AuditEventType(_LOG_USED, (), "U"),
    Action.AUDIT_SET_ASIDE: AuditEventType(_LOG_USED, (), "U"),
    Action.ALERT_RAISED: AuditEventType(_SECURITY_ALERT, (), "E"),
    Action.ALERT_ACKNOWLEDGED: AuditEventType(_SECURITY_ALERT, (), "U"),
    Action.ALERT_MUTED: AuditEventType(_SECURITY_ALERT, (), "C"),
    Action.ALERT_UNMUTED: AuditEventType(_SECURITY_ALERT, (), "U"),
    Action.DELIVERY_REQUESTED: AuditEventType(_LOG_USED, (), "U"),
    Action.CONFIGURATION_CHANGED: AuditEventType(_SECURITY_ALERT, (_SECURITY_CONFIGURATION,), "U"),
    Action.SCIM_USER_CREATED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "C"),
    Action.SCIM_USER_CHANGED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    Action.SCIM_USER_DISABLED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    Action.SCIM_USER_ENABLED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    Action.SCIM_USER_DELETED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "D"),
    Action.SCIM_GROUP_CHANGED: AuditEventType(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    Action.SCIM_CLIENT_CHANGED: AuditEventType(_SECURITY_ALERT, (_SECURITY_CONFIGURATION,), "U"),
    Action.SCIM_REFUSED: AuditEventType(_AUTHENTICATION, (), "E"),
}
_UNKNOWN_ACTION = AuditEventType(_coding(DCM, "110100", "Application Activity"), (), "E")
"""For actions of host projects."""


def event_to_fhir(item: SealedEvent, *, hostname: str) -> dict[str, Any]:
    """Return the event as an AuditEvent. hostname: that of the reporting machine."""
    event = item.authenticated_event.event
    kind = ACTION_MAPPING.get(event.action, _UNKNOWN_ACTION)

    if event.purpose.strip():
        purpose = [{"coding": [{"system": f"{_HL7}v3-ActReason", "code": event.purpose}]}]
    else:
        purpose = []

    resource: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": str(event.id),
        "type": kind.type,
        "subtype": [*kind.subtype, {"system": ACTION_SYSTEM, "code": event.action}],
        "action": kind.action,
        "recorded": format_instant(event.occurred_at),
        "outcome": _OUTCOME_CODES[event.outcome],
        "agent": _agents(event, kind, purpose, hostname=hostname),
        "source": _event_source(hostname),
        "entity": _entities(item),
    }
    if event.reason.strip():
        resource["outcomeDesc"] = event.reason
    if purpose:
        resource["purposeOfEvent"] = purpose
    is_read = (
        event.action in (Action.CLAIM_REVEALED, Action.ACCESS_GRANTED)
        and event.outcome == "success"
    )
    # BALP's PatientRead also needs a patient and a client address.
    if is_read and _find_patient(event) and _is_ip_address(event.client_ip):
        resource["meta"] = {"profile": [PATIENT_READ_PROFILE]}
    return resource


def checkpoint_to_fhir(item: SealedCheckpoint, *, hostname: str) -> dict[str, Any]:
    """Return the checkpoint as an AuditEvent about the log; the note is in the entity's detail."""
    details = {"checkpoint": item.note, "tree_size": str(item.tree_size)}
    details |= {"root_hash": item.root_hash.hex(), "epoch": str(item.epoch)}
    return {
        "resourceType": "AuditEvent",
        "id": f"checkpoint-{item.epoch}-{item.tree_size}",
        "type": _LOG_USED,
        "subtype": [{"system": ACTION_SYSTEM, "code": "checkpoint"}],
        "action": "C",
        "recorded": format_instant(item.sealed_at),
        "outcome": "0",
        "agent": [_server_agent(hostname, _SOURCE)],
        "source": _event_source(hostname),
        "entity": [_data_entity(item.origin, details)],
    }


def _agents(
    event: Event, event_type: AuditEventType, purpose: list[dict[str, Any]], *, hostname: str
) -> list[dict[str, Any]]:
    """Data flows from source to destination: to the client on reads, from the client on creation
    and update.
    """
    is_inward = event_type.action in ("C", "U")
    if is_inward:
        server_role = _DESTINATION
        client_role = _SOURCE
    else:
        server_role = _SOURCE
        client_role = _DESTINATION

    agents = [_server_agent(hostname, server_role)]
    if _is_ip_address(event.client_ip):
        agents.append(
            _network_agent(
                client_role, {"display": event.client_ip}, address=event.client_ip, type="2"
            )
        )
    if event.actor.strip():
        user: dict[str, Any] = {
            "type": {
                "coding": [_coding(f"{_HL7}v3-ParticipationType", "IRCP", "information recipient")]
            },
            "who": {"identifier": {"value": event.actor}},
            "requestor": True,
        }
        if purpose:
            user["purposeOfUse"] = purpose
        agents.append(user)
    if event.on_behalf_of.strip():
        agents.append(
            {
                "type": {"coding": [_DELEGATOR]},
                "who": {"identifier": {"value": event.on_behalf_of}},
                "requestor": False,
            }
        )
    return agents


def _server_agent(hostname: str, role: dict[str, str]) -> dict[str, Any]:
    who = {"display": PRODUCT, "identifier": {"value": hostname}}
    return _network_agent(role, who, address=hostname, type="1")


def _network_agent(role: dict[str, str], who: dict[str, Any], **network: str) -> dict[str, Any]:
    return {"type": {"coding": [role]}, "who": who, "requestor": False, "network": network}


def _event_source(hostname: str) -> dict[str, Any]:
    return {
        "site": hostname,
        "observer": {"display": PRODUCT, "identifier": {"value": hostname}},
        "type": [_coding(f"{_HL7}security-source-type", "4", "Application Server")],
    }


def _entities(item: SealedEvent) -> list[dict[str, Any]]:
    event = item.authenticated_event.event
    entities: list[dict[str, Any]] = []
    if patient := _find_patient(event):
        what = {"type": "Patient", "identifier": {"value": patient}}
        kind = _coding(f"{_HL7}audit-entity-type", "1", "Person")
        role = _coding(f"{_HL7}object-role", "1", "Patient")
        entities.append({"what": what, "type": kind, "role": role})

    if item.leaf_index >= 0:
        leaf_index = str(item.leaf_index)
    else:
        leaf_index = ""

    details = {
        "leaf_index": leaf_index,
        "event_id": str(event.id),
        "mac": item.authenticated_event.mac.hex(),
        "v": str(event.v),
        "mac_key": event.mac_key,
        "provider": event.provider,
        "session": event.session,
    }
    for key, value in json.loads(event.detail).items():
        details[key] = _detail_text(value)
    entities.append(
        _data_entity(
            event.resource.strip() or event.session.strip() or f"urn:uuid:{event.id}", details
        )
    )
    if event.request_id.strip():
        request_type = _coding(_BALP_ENTITY, "XrequestId", "X-Request-Id")
        entities.append({"what": {"identifier": {"value": event.request_id}}, "type": request_type})
    return entities


def _find_patient(event: Event) -> str:
    """Return the identifier of the person whose data was used, if the event has one; otherwise an
    empty text.

    That is the subject, or a resource that is itself the patient, or the account in an event about
    its data.
    """
    if event.subject.strip():
        return event.subject
    is_account = event.resource.startswith("user/") and event.action in _ACCOUNT_DATA_ACTIONS
    if is_account or _PATIENT_RESOURCE.fullmatch(event.resource):
        return event.resource
    return ""


def _data_entity(identifier: str, details: Mapping[str, str]) -> dict[str, Any]:
    """Return the one entity of this type that BALP allows, with everything about the data."""
    detail = []
    for key, text in details.items():
        if text.strip():
            detail.append({"type": key, "valueString": text})
    return {
        "what": {"identifier": {"value": identifier}},
        "type": _coding(f"{_HL7}audit-entity-type", "2", "System Object"),
        "role": _coding(f"{_HL7}object-role", "4", "Domain Resource"),
        "detail": detail,
    }


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _detail_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
