"""Outcomes of attacks as text, JSON and JUnit XML."""

from xml.etree import ElementTree

from django_phi_oidc.testing.attack.report import (
    AttackOutcome,
    parse_json,
    render_json,
    render_junit,
    render_line,
    render_total,
)

HELD = AttackOutcome(code="iss_invalid", id="", result="held", seconds=0.25)
FAILED = AttackOutcome(
    code="aud_invalid", id="additional audience", result="failed", detail="a user is signed in", seconds=1
)
CHOSEN = AttackOutcome(code="exp_invalid", id="", result="accepted by choice", detail="leeway")
NOTHING = AttackOutcome(code="claim_missing", id="", result="not applicable", detail="the project requests no claims")
ALL = [HELD, FAILED, CHOSEN, NOTHING]


def test_line_contains_result_name_and_detail() -> None:
    assert [render_line(outcome) for outcome in ALL] == [
        "  held                iss_invalid",
        "  failed              aud_invalid (additional audience): a user is signed in",
        "  accepted by choice  exp_invalid: leeway",
        "  not applicable      claim_missing: the project requests no claims",
    ]
    assert render_total(ALL) == "1 held, 1 failed, 1 accepted by choice, 1 not applicable."


def test_json_is_one_line_and_can_be_parsed_back() -> None:
    assert all("\n" not in render_json(outcome) for outcome in ALL)
    assert [parse_json(render_json(outcome)) for outcome in ALL] == ALL


def test_junit_reports_failures_and_skips_accepted_and_not_applicable() -> None:
    suite = ElementTree.fromstring(render_junit(ALL))
    assert suite.attrib == {
        "name": "phi_oidc attack",
        "tests": "4",
        "failures": "1",
        "skipped": "2",
        "time": "1.250",
    }
    cases = {case.get("name"): [(child.tag, child.get("message")) for child in case] for case in suite}
    assert cases == {
        "iss_invalid": [],
        "aud_invalid (additional audience)": [("failure", "a user is signed in")],
        "exp_invalid": [("skipped", "accepted by choice: leeway")],
        "claim_missing": [("skipped", "not applicable: the project requests no claims")],
    }
