"""Controls, checks and verification as OSCAL documents. No Django."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import NAMESPACE_URL, uuid5

OSCAL_VERSION = "1.2.1"
_IMPLEMENTATION_STATUS = {
    "met": "implemented",
    "partly": "partial",
    "planned": "planned",
    "not applicable": "not-applicable",
}
"""Controls with another state are those of the organization, so they are not in the definition of
the component.
"""

CreateId = Callable[[str], str]


def build_oscal(evidence: Mapping[str, Any]) -> dict[str, Any]:
    """Return a component definition and assessment results, each under the name of its root member.

    evidence: the other members of the pack. Spec: OSCAL 1.2.1.
    """

    def create_id(path: str) -> str:
        return str(uuid5(NAMESPACE_URL, f"{evidence['log']} {evidence['created_at']} {path}"))

    return {
        "component-definition": _build_component_definition(evidence, create_id),
        "assessment-results": _build_assessment_results(evidence, create_id),
    }


def _build_metadata(evidence: Mapping[str, Any], title: str) -> dict[str, Any]:
    return {
        "title": title,
        "last-modified": evidence["created_at"],
        "version": evidence["versions"]["django_phi_oidc"],
        "oscal-version": OSCAL_VERSION,
    }


def _build_component_definition(evidence: Mapping[str, Any], create_id: CreateId) -> dict[str, Any]:
    implementations = []
    for control_set in evidence["controls"]:
        implementation = _build_implementation(control_set, create_id)
        if implementation["implemented-requirements"]:
            implementations.append(implementation)
    component = {
        "uuid": create_id("component"),
        "type": "software",
        "title": "django_phi_oidc",
        "description": "OpenID Connect sign-in for healthcare "
        "portals, with an append-only audit log.",
        "props": [{"name": "version", "value": evidence["versions"]["django_phi_oidc"]}],
        "control-implementations": implementations,
    }
    return {
        "uuid": create_id("component-definition"),
        "metadata": _build_metadata(evidence, "Controls of django_phi_oidc"),
        "components": [component],
    }


def _build_implementation(control_set: Mapping[str, Any], create_id: CreateId) -> dict[str, Any]:
    path = f"{control_set['page']} {control_set['title']}"
    requirements = []
    for control in control_set["controls"]:
        if control["state"] not in _IMPLEMENTATION_STATUS:
            continue
        status = {
            "name": "implementation-status",
            "value": _IMPLEMENTATION_STATUS[control["state"]],
        }
        requirements.append(
            {
                "uuid": create_id(f"{path} {control['control_id']}"),
                "control-id": control["control_id"],
                "description": f"{control['requirement']}: {control['implementation']}",
                "props": [status],
                "remarks": f"{control['id']}. Tests: {', '.join(control['tests']) or 'none'}.",
            }
        )
    return {
        "uuid": create_id(path),
        "source": control_set["source"],
        "description": control_set["title"],
        "implemented-requirements": requirements,
    }


def _build_assessment_results(evidence: Mapping[str, Any], create_id: CreateId) -> dict[str, Any]:
    time = evidence["created_at"]
    plan = create_id("plan")
    result: dict[str, Any] = {
        "uuid": create_id("result"),
        "title": f"Checks and audit log of {evidence['log']}",
        "description": "The system checks at that time, and the "
        "last verification of the audit log.",
        "start": time,
        "reviewed-controls": {"control-selections": [{"include-all": {}}]},
    }
    observations = []
    for number, (title, description, collected) in enumerate(_list_observations(evidence)):
        observations.append(
            {
                "uuid": create_id(f"observation {number}"),
                "title": title,
                "description": description,
                "methods": ["TEST"],
                "collected": collected,
            }
        )
    if observations:
        result["observations"] = observations
    resource = {
        "uuid": plan,
        "title": "No assessment plan",
        "description": "The portal collected these results.",
    }
    return {
        "uuid": create_id("assessment-results"),
        "metadata": _build_metadata(evidence, result["title"]),
        "import-ap": {"href": f"#{plan}"},
        "results": [result],
        "back-matter": {"resources": [resource]},
    }


def _list_observations(evidence: Mapping[str, Any]) -> Sequence[tuple[str, str, str]]:
    """Return title, description and time of each."""
    time = evidence["created_at"]
    observations = []
    for check in evidence["configuration"]["checks"]:
        title = check["id"]
        if check["silenced"]:
            title += " (silenced)"
        observations.append((title, check["text"], time))
    if evidence["checkpoint"]:
        observations.append(("Newest checkpoint of the audit log", evidence["checkpoint"], time))
    if verified := evidence["last_verification"]:
        text = (
            f"{verified['events']} events, {verified['findings']} findings, event "
            f"{verified['event_id']}."
        )
        observations.append(("Verification of the audit log", text, verified["occurred_at"]))
    return observations
