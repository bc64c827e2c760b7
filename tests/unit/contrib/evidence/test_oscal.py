"""The OSCAL documents state what the pack states. tests/integration/test_evidence_formats.py validates them."""

from typing import Any

import pytest

from django_phi_oidc.contrib.evidence.oscal import build_oscal

TIME = "2026-11-24T16:05:09+00:00"


def build(state: str = "met", **members: Any) -> dict[str, Any]:
    control = {"id": "(a)", "control_id": "c-a", "requirement": "r", "state": state, "implementation": "i"}
    evidence = {
        "log": "portal.example",
        "created_at": TIME,
        "versions": {"django_phi_oidc": "0.1.0"},
        "configuration": {"checks": [{"id": "security.W004", "text": "a text", "silenced": True}]},
        "controls": [
            {
                "title": "A rule",
                "page": "p",
                "source": "https://rule.example",
                "controls": [{**control, "tests": ["t"]}],
            }
        ],
        "checkpoint": "a note",
        "last_verification": {"event_id": "e", "occurred_at": TIME, "events": 3, "findings": 0},
    }
    return build_oscal(evidence | members)


@pytest.mark.parametrize(
    ("state", "status"),
    [("met", "implemented"), ("partly", "partial"), ("planned", "planned"), ("not applicable", "not-applicable")],
)
def test_control_has_its_status_and_its_tests(state: str, status: str) -> None:
    (component,) = build(state)["component-definition"]["components"]
    (implementation,) = component["control-implementations"]
    (requirement,) = implementation["implemented-requirements"]
    assert (implementation["source"], requirement["control-id"]) == ("https://rule.example", "c-a")
    assert requirement["props"] == [{"name": "implementation-status", "value": status}]
    assert (requirement["description"], requirement["remarks"]) == ("r: i", "(a). Tests: t.")


@pytest.mark.parametrize("state", ["yours", "not supported"])
def test_control_of_the_organization_is_not_in_the_definition_of_the_component(state: str) -> None:
    assert build(state)["component-definition"]["components"][0]["control-implementations"] == []


def test_checks_checkpoint_and_verification_are_observations() -> None:
    (result,) = build()["assessment-results"]["results"]
    assert [(found["title"], found["description"]) for found in result["observations"]] == [
        ("security.W004 (silenced)", "a text"),
        ("Newest checkpoint of the audit log", "a note"),
        ("Verification of the audit log", "3 events, 0 findings, event e."),
    ]
    nothing = build(configuration={"checks": []}, checkpoint=None, last_verification=None)
    assert "observations" not in nothing["assessment-results"]["results"][0]
