"""What came of the attacks, as it is told."""

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
FAILED = AttackOutcome(code="aud_invalid", id="one more", result="failed", detail="somebody is signed in", seconds=1)
CHOSEN = AttackOutcome(code="exp_invalid", id="", result="accepted by choice", detail="leeway")
NOTHING = AttackOutcome(code="claim_missing", id="", result="not applicable", detail="the project asks for no claim")
ALL = [HELD, FAILED, CHOSEN, NOTHING]


def test_line_tells_the_result_the_rule_and_what_was_seen() -> None:
    assert [render_line(outcome) for outcome in ALL] == [
        "  held                iss_invalid",
        "  failed              aud_invalid (one more): somebody is signed in",
        "  accepted by choice  exp_invalid: leeway",
        "  not applicable      claim_missing: the project asks for no claim",
    ]
    assert render_total(ALL) == "1 held, 1 failed, 1 accepted by choice, 1 not applicable."


def test_json_is_one_line_and_comes_back_as_it_was() -> None:
    assert all("\n" not in render_json(outcome) for outcome in ALL)
    assert [parse_json(render_json(outcome)) for outcome in ALL] == ALL


def test_junit_has_a_failure_for_what_failed_and_skips_what_is_a_choice() -> None:
    suite = ElementTree.fromstring(render_junit(ALL))
    assert suite.attrib == {
        "name": "phi_oidc attack",
        "tests": "4",
        "failures": "1",
        "skipped": "2",
        "time": "1.250",
    }
    told = {case.get("name"): [(child.tag, child.get("message")) for child in case] for case in suite}
    assert told == {
        "iss_invalid": [],
        "aud_invalid (one more)": [("failure", "somebody is signed in")],
        "exp_invalid": [("skipped", "accepted by choice: leeway")],
        "claim_missing": [("skipped", "not applicable: the project asks for no claim")],
    }
