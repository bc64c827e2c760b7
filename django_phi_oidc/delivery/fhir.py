"""FHIR R4 AuditEvent, after the patterns of IHE BALP. No Django.

Access to claims is written as BALP writes access to a resource: agents client, server and user, and the entities
patient, data and transaction. `meta.profile` names a profile of BALP only where all that it demands is there. Every
other action follows DICOM's types. Each has the action itself as a further subtype.
Spec: hl7.org/fhir/R4/auditevent.html; profiles.ihe.net/ITI/BALP (1.1.3).
"""

import ipaddress
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

from ..audit.events import Action, Event
from .items import SealedCheckpoint, SealedEvent

PRODUCT = "django_phi_oidc"
ACTIONS = "urn:django-phi-oidc:audit-action"
"""The system of our own subtype."""
PATIENT_READ = "https://profiles.ihe.net/ITI/BALP/StructureDefinition/IHE.BasicAudit.PatientRead"
DCM = "http://dicom.nema.org/resources/ontology/DCM"
_HL7 = "http://terminology.hl7.org/CodeSystem/"
_INTERACTION = "http://hl7.org/fhir/restful-interaction"
_BALP_ENTITY = "https://profiles.ihe.net/ITI/BALP/CodeSystem/BasicAuditEntityType"
_OUTCOMES = {"success": "0", "failure": "4", "error": "8"}


class Kind(NamedTuple):
    """How an action is told: type, subtypes beside our own, and C, R, U, D or E."""

    type: dict[str, str]
    subtype: tuple[dict[str, str], ...]
    action: str


def _coding(system: str, code: str, display: str) -> dict[str, str]:
    return {"system": system, "code": code, "display": display}


_REST = _coding(f"{_HL7}audit-event-type", "rest", "RESTful Operation")
_AUTHENTICATION = _coding(DCM, "110114", "User Authentication")
_LOG_USED = _coding(DCM, "110101", "Audit Log Used")
_SECURITY_ALERT = _coding(DCM, "110113", "Security Alert")
_LOGIN, _LOGOUT = _coding(DCM, "110122", "Login"), _coding(DCM, "110123", "Logout")
_ATTRIBUTES_CHANGED = _coding(DCM, "110137", "User Security Attributes Changed")
_SECURITY_CONFIGURATION = _coding(DCM, "110129", "Security Configuration")
_OVERRIDE_STARTED = _coding(DCM, "110127", "Emergency Override Started")
_OVERRIDE_STOPPED = _coding(DCM, "110138", "Emergency Override Stopped")
_EXPORT, _PATIENT_RECORD = _coding(DCM, "110106", "Export"), _coding(DCM, "110110", "Patient Record")
_SOURCE, _DESTINATION = _coding(DCM, "110153", "Source Role ID"), _coding(DCM, "110152", "Destination Role ID")


def _rest(interaction: str, action: str) -> Kind:
    return Kind(_REST, (_coding(_INTERACTION, interaction, interaction),), action)


MAPPING: Mapping[str, Kind] = {
    Action.LOGIN_SUCCEEDED: Kind(_AUTHENTICATION, (_LOGIN,), "E"),
    Action.LOGIN_REFUSED: Kind(_AUTHENTICATION, (_LOGIN,), "E"),
    Action.LOGOUT_COMPLETED: Kind(_AUTHENTICATION, (_LOGOUT,), "E"),
    Action.LOGOUT_REFUSED: Kind(_AUTHENTICATION, (_LOGOUT,), "E"),
    Action.SESSION_RENEWED: Kind(_AUTHENTICATION, (_LOGIN,), "E"),
    Action.SESSION_ENDED: Kind(_AUTHENTICATION, (_LOGOUT,), "E"),
    Action.TOKEN_REVOKED: Kind(_AUTHENTICATION, (), "D"),
    Action.TOKEN_REVOCATION_FAILED: Kind(_AUTHENTICATION, (), "D"),
    Action.CLAIM_STORED: _rest("create", "C"),
    Action.CLAIM_REVEALED: _rest("read", "R"),
    Action.CLAIM_OVERFETCHED: Kind(_SECURITY_ALERT, (), "E"),
    Action.CLAIM_SCRUBBED: _rest("delete", "D"),
    Action.HOLD_PLACED: Kind(_PATIENT_RECORD, (), "U"),
    Action.HOLD_RELEASED: Kind(_PATIENT_RECORD, (), "U"),
    Action.RETENTION_KEY_DESTROYED: Kind(_SECURITY_ALERT, (_SECURITY_CONFIGURATION,), "D"),
    Action.SUBJECT_LINKED: Kind(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "C"),
    Action.SUBJECT_UNLINKED: Kind(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "D"),
    Action.SUBJECT_EXPORTED: Kind(_EXPORT, (), "R"),
    Action.SUBJECT_ACCOUNTED: Kind(_LOG_USED, (), "R"),
    Action.SUBJECT_ERASED: Kind(_PATIENT_RECORD, (), "D"),
    Action.ACTIVATION_ISSUED: Kind(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "C"),
    Action.ACTIVATION_REDEEMED: Kind(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    Action.ACTIVATION_REFUSED: Kind(_AUTHENTICATION, (), "E"),
    Action.ACTIVATION_REVOKED: Kind(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "D"),
    Action.ROLE_CHANGED: Kind(_SECURITY_ALERT, (_ATTRIBUTES_CHANGED,), "U"),
    Action.ACCESS_GRANTED: _rest("read", "R"),
    Action.ACCESS_DENIED: _rest("read", "R"),
    Action.API_REFUSED: Kind(_AUTHENTICATION, (), "E"),
    Action.EMERGENCY_OPENED: Kind(_SECURITY_ALERT, (_OVERRIDE_STARTED,), "C"),
    Action.EMERGENCY_CLOSED: Kind(_SECURITY_ALERT, (_OVERRIDE_STOPPED,), "U"),
    Action.EMERGENCY_EXPIRED: Kind(_SECURITY_ALERT, (_OVERRIDE_STOPPED,), "U"),
    Action.EMERGENCY_REVIEWED: Kind(_SECURITY_ALERT, (), "U"),
    Action.EMERGENCY_REFUSED: Kind(_SECURITY_ALERT, (), "E"),
    Action.AUDIT_VIEWED: Kind(_LOG_USED, (), "R"),
    Action.AUDIT_EXPORTED: Kind(_LOG_USED, (), "R"),
    Action.AUDIT_VERIFIED: Kind(_LOG_USED, (), "R"),
    Action.AUDIT_ARCHIVED: Kind(_LOG_USED, (), "U"),
    Action.AUDIT_RESTORED: Kind(_LOG_USED, (), "U"),
    Action.ALERT_RAISED: Kind(_SECURITY_ALERT, (), "E"),
    Action.ALERT_ACKNOWLEDGED: Kind(_SECURITY_ALERT, (), "U"),
    Action.ALERT_MUTED: Kind(_SECURITY_ALERT, (), "C"),
    Action.ALERT_UNMUTED: Kind(_SECURITY_ALERT, (), "U"),
}
_UNKNOWN = Kind(_coding(DCM, "110100", "Application Activity"), (), "E")
"""An action of a host project."""


def event_to_fhir(item: SealedEvent, *, site: str) -> dict[str, Any]:
    """Return the event as an AuditEvent. site: the name of the machine that tells of it."""
    event = item.finished.event
    kind = MAPPING.get(event.action, _UNKNOWN)
    purpose = [{"coding": [{"system": f"{_HL7}v3-ActReason", "code": event.purpose}]}] if event.purpose.strip() else []
    built: dict[str, Any] = {
        "resourceType": "AuditEvent",
        "id": str(event.id),
        "type": kind.type,
        "subtype": [*kind.subtype, {"system": ACTIONS, "code": event.action}],
        "action": kind.action,
        "recorded": _instant(event.occurred_at),
        "outcome": _OUTCOMES[event.outcome],
        "agent": _agents(event, kind, purpose, site=site),
        "source": _source(site),
        "entity": _entities(item),
    }
    if event.reason.strip():
        built["outcomeDesc"] = event.reason
    if purpose:
        built["purposeOfEvent"] = purpose
    if _is_patient_read(event):
        built["meta"] = {"profile": [PATIENT_READ]}
    return built


def checkpoint_to_fhir(item: SealedCheckpoint, *, site: str) -> dict[str, Any]:
    """Return the checkpoint as an AuditEvent about the log; the note stands in the entity's detail."""
    details = {
        "checkpoint": item.note,
        "tree_size": str(item.tree_size),
        "root_hash": item.root_hash.hex(),
        "epoch": str(item.epoch),
    }
    return {
        "resourceType": "AuditEvent",
        "id": f"checkpoint-{item.epoch}-{item.tree_size}",
        "type": _LOG_USED,
        "subtype": [{"system": ACTIONS, "code": "checkpoint"}],
        "action": "C",
        "recorded": _instant(item.sealed_at),
        "outcome": "0",
        "agent": [_server(site, _SOURCE)],
        "source": _source(site),
        "entity": [_data(item.origin, details)],
    }


def _agents(event: Event, kind: Kind, purpose: list[dict[str, Any]], *, site: str) -> list[dict[str, Any]]:
    """The data goes from the source to the destination: to the client when it is read, from it when it is made."""
    is_inward = kind.action in ("C", "U")
    agents = [_server(site, _DESTINATION if is_inward else _SOURCE)]
    if _is_address(event.client_ip):
        agents.append(
            {
                "type": {"coding": [_SOURCE if is_inward else _DESTINATION]},
                "who": {"display": event.client_ip},
                "requestor": False,
                "network": {"address": event.client_ip, "type": "2"},
            }
        )
    if event.actor.strip():
        user: dict[str, Any] = {
            "type": {"coding": [_coding(f"{_HL7}v3-ParticipationType", "IRCP", "information recipient")]},
            "who": {"identifier": {"value": event.actor}},
            "requestor": True,
        }
        if purpose:
            user["purposeOfUse"] = purpose
        agents.append(user)
    return agents


def _server(site: str, role: dict[str, str]) -> dict[str, Any]:
    return {
        "type": {"coding": [role]},
        "who": {"display": PRODUCT, "identifier": {"value": site}},
        "requestor": False,
        "network": {"address": site, "type": "1"},
    }


def _source(site: str) -> dict[str, Any]:
    return {
        "site": site,
        "observer": {"display": PRODUCT, "identifier": {"value": site}},
        "type": [_coding(f"{_HL7}security-source-type", "4", "Application Server")],
    }


def _entities(item: SealedEvent) -> list[dict[str, Any]]:
    event = item.finished.event
    entities: list[dict[str, Any]] = []
    if event.subject.strip():
        entities.append(
            {
                "what": {"type": "Patient", "identifier": {"value": event.subject}},
                "type": _coding(f"{_HL7}audit-entity-type", "1", "Person"),
                "role": _coding(f"{_HL7}object-role", "1", "Patient"),
            }
        )
    details = {
        "leaf_index": str(item.leaf_index) if item.leaf_index >= 0 else "",
        "event_id": str(event.id),
        "mac": item.finished.mac.hex(),
        **{name: str(getattr(event, name)) for name in ("v", "mac_key", "provider", "session")},
        **{key: _told(value) for key, value in json.loads(event.detail).items()},
    }
    entities.append(_data(event.resource.strip() or event.session.strip() or f"urn:uuid:{event.id}", details))
    if event.request_id.strip():
        entities.append(
            {
                "what": {"identifier": {"value": event.request_id}},
                "type": _coding(_BALP_ENTITY, "XrequestId", "X-Request-Id"),
            }
        )
    return entities


def _data(identifier: str, details: Mapping[str, str]) -> dict[str, Any]:
    """BALP allows one entity of this type, so everything about the data is in it."""
    return {
        "what": {"identifier": {"value": identifier}},
        "type": _coding(f"{_HL7}audit-entity-type", "2", "System Object"),
        "role": _coding(f"{_HL7}object-role", "4", "Domain Resource"),
        "detail": [{"type": key, "valueString": text} for key, text in details.items() if text.strip()],
    }


def _is_patient_read(event: Event) -> bool:
    """BALP's reads are of success, by a client with an address, of data about a patient."""
    is_read = event.action == Action.CLAIM_REVEALED and event.outcome == "success"
    return is_read and bool(event.subject.strip()) and _is_address(event.client_ip)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _told(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def _instant(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
