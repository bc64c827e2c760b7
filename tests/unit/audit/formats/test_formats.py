"""Each action in each format, validated against the published schema or model, with texts that need escaping."""

import ipaddress
import json
import re
from dataclasses import replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pycef
import pytest
from cefevent.extensions import extension_dictionary
from fhir.resources.R4B.auditevent import AuditEvent
from jsonschema import Draft202012Validator
from ocsf_json_schema import OcsfJsonSchemaEmbedded, get_ocsf_schema

from django_phi_oidc.audit.actions import DETAIL_KEYS, DETAIL_TYPES, DetailType
from django_phi_oidc.audit.events import Action, Origin, parse_event, register_actions, serialize_event
from django_phi_oidc.audit.formats import checkpoint_to_json, event_to_json, fhir, item_to_line, ocsf
from django_phi_oidc.audit.formats.cef import checkpoint_to_cef, event_to_cef
from django_phi_oidc.audit.formats.fhir import PATIENT_READ_PROFILE, checkpoint_to_fhir, event_to_fhir
from django_phi_oidc.audit.formats.items import SealedCheckpoint, SealedEvent
from django_phi_oidc.audit.formats.ocsf import checkpoint_to_ocsf, event_to_ocsf
from django_phi_oidc.audit.formats.rfc5424 import build_message
from tests.support.sealed_events import NOW, digest, finished

SCHEMA = Path(__file__).parents[4] / "docs" / "reference" / "event.schema.json"
ODD = r'a|b\c=d "e" 𝒳 ü ]x[ <f>&{g}'
ODD_VALUES: dict[DetailType, Any] = {
    DetailType.TEXT: ODD,
    DetailType.INTEGER: 3,
    DetailType.BOOLEAN: True,
    DetailType.TEXTS: [ODD, "birthdate"],
    DetailType.INTEGERS: [3, 2**53 - 1],
}
NOTE = "portal.example/audit\n7\ncm9vdA==\n\n— portal.example/audit c2ln\n"
CHECKPOINT = SealedCheckpoint(tree_size=7, root_hash=digest("root"), epoch=2, sealed_at=NOW, note=NOTE)
# The dictionary of the `cefevent` package lacks one key of version 25.
PUBLISHED = {**extension_dictionary, "outcome": {"data_type": ["String"], "length": 63}}
FORMATS = ("json", "ocsf", "cef", "fhir")


def sealed(action: str = Action.CLAIM_REVEALED, **fields: Any) -> SealedEvent:
    return SealedEvent(leaf_index=41, leaf_hash=digest("leaf"), authenticated_event=finished(action, **fields))


def full(action: str) -> SealedEvent:
    """Return an event of the action with odd text in every field and detail."""
    detail = {key: ODD_VALUES[DETAIL_TYPES[key]] for key in DETAIL_KEYS[action]}
    return sealed(
        action,
        origin=Origin(actor=ODD, session=ODD, client_ip="2001:db8::7", request_id=ODD, on_behalf_of=ODD),
        outcome="failure",
        subject=ODD,
        provider=ODD,
        purpose="TREAT",
        resource=ODD,
        reason=ODD,
        detail=detail,
    )


def bare(action: str) -> SealedEvent:
    """Return an event of the action without any other data."""
    return sealed(action, origin=Origin())


def blank(action: str) -> SealedEvent:
    return sealed(
        action,
        origin=Origin(actor=" ", session=" ", client_ip="unknown", request_id=" ", on_behalf_of=" "),
        subject=" ",
        purpose=" ",
        resource=" ",
        reason=" ",
        outcome="error",
    )


@cache
def ocsf_validator(class_uid: int) -> Draft202012Validator:
    schemas = OcsfJsonSchemaEmbedded(get_ocsf_schema(version=ocsf.VERSION))
    return Draft202012Validator(schemas.get_class_schema(schemas.lookup_class_name_from_uid(class_uid)))


@cache
def json_validator() -> Draft202012Validator:
    schema = json.loads(SCHEMA.read_text())
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


every_action = pytest.mark.parametrize("action", [action.value for action in Action])
every_kind = pytest.mark.parametrize("build", [full, bare, blank])


@every_action
@every_kind
def test_event_to_json_matches_the_documented_schema(action: str, build: Any) -> None:
    assert list(json_validator().iter_errors(event_to_json(build(action)))) == []


def test_checkpoint_to_json_matches_the_documented_schema() -> None:
    assert list(json_validator().iter_errors(checkpoint_to_json(CHECKPOINT))) == []


@pytest.mark.parametrize(
    "damage", [{"leaf_index": "41"}, {"mac": None}, {"id": "7"}, {"surprise": 1}, {"occurred_at": "today"}]
)
def test_damaged_event_does_not_match_the_documented_schema(damage: dict[str, Any]) -> None:
    assert not json_validator().is_valid({**event_to_json(sealed()), **damage})


def test_json_line_without_leaf_index_is_the_serialized_event() -> None:
    """The MAC and the leaf hash can be recomputed from the line."""
    item = full(Action.CLAIM_REVEALED)
    line = item_to_line(item, "json", hostname="s")
    event_text = line.replace('"leaf_index":41,', "")
    assert event_text == serialize_event(item.authenticated_event)
    assert parse_event(event_text) == item.authenticated_event


@every_action
@every_kind
def test_event_to_ocsf_matches_the_published_schema(action: str, build: Any) -> None:
    event = event_to_ocsf(build(action))
    ocsf_validator(event["class_uid"]).validate(event)
    assert event["type_uid"] == event["class_uid"] * 100 + event["activity_id"]
    assert (event["metadata"]["uid"], event["metadata"]["sequence"]) == (event["metadata"]["uid"], 41)


def test_checkpoint_to_ocsf_matches_the_published_schema() -> None:
    event = checkpoint_to_ocsf(CHECKPOINT)
    ocsf_validator(event["class_uid"]).validate(event)
    assert event["unmapped"]["checkpoint"] == NOTE


def test_published_schema_refuses_unknown_and_missing_members() -> None:
    """Show that the schema does refuse events, so that passing it means something."""
    event = event_to_ocsf(sealed())
    assert not ocsf_validator(3004).is_valid({**event, "surprise": 1})
    assert not ocsf_validator(3004).is_valid({key: value for key, value in event.items() if key != "entity"})


@pytest.mark.parametrize("mapping", [ocsf.ACTION_MAPPING, fhir.ACTION_MAPPING], ids=["ocsf", "fhir"])
def test_every_action_is_mapped(mapping: dict[str, Any]) -> None:
    """A new action needs a mapping, and does not get that of host project actions by default."""
    assert {str(action) for action in mapping} == {action.value for action in Action}


def test_event_to_ocsf_of_a_sign_in_has_user_and_service() -> None:
    event = event_to_ocsf(sealed(Action.LOGIN_SUCCEEDED, provider="citizens"))
    members = (event["class_uid"], event["activity_name"], event["status"], event["user"], event["service"]["name"])
    assert members == (3002, "Logon", "Success", {"uid": "7"}, "citizens")
    assert event["time"] == int(NOW.timestamp() * 1000)


def cef_parts(line: str) -> tuple[list[str], dict[str, str]]:
    """Parse a line according to the specification, and return its header and extension, unescaped."""
    *header, extension = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
    pairs = re.findall(r"(\w+)=((?:[^=\\]|\\.)*?)(?= \w+=|$)", extension)
    return [re.sub(r"\\(.)", r"\1", part) for part in header], {
        key: re.sub(r"\\(.)", lambda match: {"n": "\n", "r": "\r"}.get(match[1], match[1]), value)
        for key, value in pairs
    }


@every_action
@every_kind
def test_event_to_cef_reads_back_and_uses_published_keys(action: str, build: Any) -> None:
    item = build(action)
    line = event_to_cef(item)
    assert "\n" not in line
    header, extension = cef_parts(line)
    assert header[:1] + header[4:5] == ["CEF:0", action]
    assert 0 <= int(header[6]) <= 10
    for key, value in extension.items():
        known = PUBLISHED[key]
        assert known["length"] == 0 or len(value) <= known["length"] or key == "cs6", key
        if "Integer" in known["data_type"] or "Long" in known["data_type"]:
            int(value)
        if known["data_type"] == ["IPv4 Address"]:
            ipaddress.IPv4Address(value)
        if known["data_type"] == ["IPv6 Address"]:
            ipaddress.IPv6Address(value)
    event = item.authenticated_event.event
    assert extension["externalId"] == str(event.id)
    assert extension.get("suid", "") == event.actor
    assert extension.get("reason", "") == event.reason
    assert extension.get("cs6", "{}") == event.detail
    assert extension["cn1"] == "41"


def test_event_to_cef_reads_back_by_an_independent_parser() -> None:
    parsed = pycef.parse(event_to_cef(sealed(subject="p-1", purpose="TREAT", resource="Patient/1")))
    members = {key: parsed[key] for key in ("DeviceVendor", "DeviceEventClassID", "Severity", "src", "suid")}
    assert members == {
        "DeviceVendor": "django_phi_oidc",
        "DeviceEventClassID": "claim.revealed",
        "Severity": "3",
        "src": "203.0.113.9",
        "suid": "7",
    }
    assert (parsed["duid"], parsed["purpose"], parsed["leafIndex"]) == ("p-1", "TREAT", "41")


def test_event_to_cef_escapes_the_header() -> None:
    item = sealed()
    odd = item.authenticated_event.event._replace(action="a|b\\c=d\ne")
    line = event_to_cef(replace(item, authenticated_event=replace(item.authenticated_event, event=odd)))
    assert cef_parts(line)[0][4] == "a|b\\c=d e"


def test_checkpoint_to_cef_is_one_line_with_the_note() -> None:
    line = checkpoint_to_cef(CHECKPOINT)
    assert "\n" not in line
    assert cef_parts(line)[1]["cs1"] == NOTE


@every_action
@every_kind
def test_event_to_fhir_matches_the_model(action: str, build: Any) -> None:
    resource = event_to_fhir(build(action), hostname="portal-1")
    read = AuditEvent.model_validate(resource)
    assert json.loads(read.model_dump_json())["id"] == resource["id"]
    assert {coding["code"] for coding in resource["subtype"]} >= {action}
    assert sum(agent["requestor"] for agent in resource["agent"]) <= 1


def test_checkpoint_to_fhir_matches_the_model() -> None:
    resource = checkpoint_to_fhir(CHECKPOINT, hostname="portal-1")
    AuditEvent.model_validate(resource)
    assert {"type": "checkpoint", "valueString": NOTE} in resource["entity"][0]["detail"]


def test_fhir_model_refuses_damaged_events() -> None:
    resource = event_to_fhir(sealed(), hostname="portal-1")
    for damage in ({"agent": None}, {"outcome": ""}, {"surprise": "x"}, {"recorded": "today"}):
        with pytest.raises(ValueError, match=r".+"):
            AuditEvent.model_validate({**resource, **damage})


def test_event_to_fhir_of_a_reveal_meets_the_balp_patient_read_profile() -> None:
    """Spec: IHE BALP 1.1.3, IHE.BasicAudit.Read and IHE.BasicAudit.PatientRead: fixed values, slices, cardinalities."""
    resource = event_to_fhir(sealed(subject="p-1", purpose="TREAT", resource="Claim/birthdate"), hostname="portal-1")
    assert resource["meta"]["profile"] == [PATIENT_READ_PROFILE]
    assert (resource["type"]["code"], resource["action"], resource["outcome"]) == ("rest", "R", "0")
    assert [c["code"] for c in resource["subtype"] if c["system"].endswith("restful-interaction")] == ["read"]
    agents = {agent["type"]["coding"][0]["code"]: agent for agent in resource["agent"]}
    assert set(agents) == {"110152", "110153", "IRCP"}
    for code in ("110152", "110153"):
        assert agents[code]["who"]
        assert agents[code]["network"]["address"]
    assert (agents["IRCP"]["requestor"], "network" in agents["IRCP"]) == (True, False)
    assert agents["IRCP"]["purposeOfUse"][0]["coding"][0]["code"] == "TREAT"
    kinds = [(entity["type"]["code"], entity.get("role", {}).get("code")) for entity in resource["entity"]]
    assert kinds == [("1", "1"), ("2", "4"), ("XrequestId", None)]
    assert resource["entity"][0]["what"] == {"type": "Patient", "identifier": {"value": "p-1"}}


@pytest.mark.parametrize(
    ("fields", "patient"),
    [
        ({"resource": "Patient/42"}, "Patient/42"),
        ({"resource": "Patient/0f1e2d3c4b5a69788796a5b4c3d2e1f0", "subject": "p-1"}, "p-1"),
        ({"resource": "Chart/42"}, None),
        ({"resource": "Patient/"}, None),
        ({"resource": "user/42"}, None),
        ({"resource": "user/42", "action": Action.SUBJECT_EXPORTED}, "user/42"),
        ({"resource": "user/42", "action": Action.ROLE_CHANGED}, None),
    ],
)
def test_g9_event_to_fhir_names_the_patient_if_the_event_knows_it(fields: dict[str, Any], patient: str | None) -> None:
    event = {"action": Action.ACCESS_GRANTED, "purpose": "TREAT", **fields}
    resource = event_to_fhir(sealed(**event), hostname="portal-1")
    AuditEvent.model_validate(resource)
    patients = [entity for entity in resource["entity"] if entity.get("role", {}).get("code") == "1"]
    assert [entity["what"]["identifier"]["value"] for entity in patients] == ([] if patient is None else [patient])
    assert [(entity["type"]["code"], entity["what"]["type"]) for entity in patients] == [("1", "Patient")] * len(
        patients
    )
    is_read = event["action"] == Action.ACCESS_GRANTED and patient is not None
    assert resource.get("meta", {}).get("profile", []) == ([PATIENT_READ_PROFILE] if is_read else [])


@pytest.mark.parametrize(
    "missing",
    [{"subject": ""}, {"origin": Origin(actor="7")}, {"outcome": "failure"}, {"action": Action.ACCESS_DENIED}],
    ids=["no patient", "no client", "not a success", "not a read"],
)
def test_event_to_fhir_with_missing_data_names_no_profile(missing: dict[str, Any]) -> None:
    assert "meta" not in event_to_fhir(sealed(**{"subject": "p-1", **missing}), hostname="portal-1")


@pytest.mark.parametrize("log_format", FORMATS)
def test_item_to_line_is_one_line(log_format: Any) -> None:
    for item in (full(Action.LOGIN_REFUSED), CHECKPOINT):
        assert len(item_to_line(item, log_format, hostname="s").splitlines()) == 1


@pytest.mark.parametrize("microseconds", [0, 1, 999_999])
def test_times_keep_their_precision(microseconds: int) -> None:
    after = timedelta(microseconds=microseconds)
    item = sealed(now=NOW + after)
    assert event_to_fhir(item, hostname="s")["recorded"] == event_to_json(item)["occurred_at"]
    assert event_to_ocsf(item)["time"] == int(NOW.timestamp() * 1000) + after // timedelta(milliseconds=1)


@pytest.mark.parametrize("log_format", FORMATS)
def test_item_to_line_of_a_host_project_action_matches_the_schema(log_format: Any) -> None:
    register_actions({"delivery_test.opened": {"ward"}})
    item = sealed("delivery_test.opened", subject="p-1", detail={"ward": ODD})
    line = item_to_line(item, log_format, hostname="s")
    assert "delivery_test.opened" in line
    if log_format == "json":
        json_validator().validate(json.loads(line))
    elif log_format == "ocsf":
        ocsf_validator(3004).validate(json.loads(line))
    elif log_format == "fhir":
        AuditEvent.model_validate_json(line)


def test_g6_operator_of_a_command_is_the_same_actor_in_each_format() -> None:
    operator = "os:root@portal-1;sudo=amina;as=7"
    item = sealed(Action.SUBJECT_EXPORTED, origin=Origin(actor=operator))
    assert event_to_json(item)["actor"] == operator
    assert event_to_ocsf(item)["actor"] == {"user": {"uid": operator}}
    assert r" suid=os:root@portal-1;sudo\=amina;as\=7 " in event_to_cef(item)
    agents = event_to_fhir(item, hostname="portal-1")["agent"]
    assert [agent["who"]["identifier"]["value"] for agent in agents if agent["requestor"]] == [operator]


def test_account_that_the_actor_acts_for_is_in_each_format() -> None:
    item = sealed(origin=Origin(actor="7", on_behalf_of="12"))
    assert event_to_json(item)["on_behalf_of"] == "12"
    assert event_to_ocsf(item)["unmapped"]["on_behalf_of"] == "12"
    assert " flexString1=12 flexString1Label=onBehalfOf " in event_to_cef(item)
    agents = event_to_fhir(item, hostname="portal-1")["agent"]
    delegators = [agent for agent in agents if agent["type"]["coding"][0]["code"] == "DELEGATOR"]
    assert [(agent["who"]["identifier"]["value"], agent["requestor"]) for agent in delegators] == [("12", False)]
    message = build_message(item, item_to_line(item, "json", hostname="portal-1"), hostname="portal-1")
    assert b'"on_behalf_of":"12"' in message


def test_event_without_a_represented_account_names_none() -> None:
    item = sealed(origin=Origin(actor="7"))
    assert event_to_json(item)["on_behalf_of"] == ""
    assert "on_behalf_of" not in event_to_ocsf(item)["unmapped"]
    assert "flexString1" not in event_to_cef(item)
    agents = event_to_fhir(item, hostname="portal-1")["agent"]
    assert "DELEGATOR" not in [agent["type"]["coding"][0]["code"] for agent in agents]
