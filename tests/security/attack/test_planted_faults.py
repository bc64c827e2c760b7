"""The attack kit detects each disabled check of the portal."""

from pathlib import Path

import pytest

from tests.security.attack.example_project import create_project, parse_json_lines
from tests.security.attack.planted_faults import FAULTS
from tests.security.attack.test_attack_command import OTHER_CODES, SIGN_IN_CODES

pytestmark = pytest.mark.sqlite
WITHOUT_FAULT = {
    "transport_timeout": "without the check, the test would wait minutes for a slow response",
    "transport_unreachable": "there is no response that could be accepted",
    "break_glass_refused": "the example has no break-glass account",
}


def test_every_code_has_a_planted_fault() -> None:
    planted = {code for _, codes in FAULTS.values() for code in codes}
    assert (SIGN_IN_CODES | OTHER_CODES) - planted == set(WITHOUT_FAULT)


def test_each_planted_fault_is_detected(tmp_path: Path) -> None:
    process = create_project(tmp_path).run("-m", "tests.security.attack.planted_faults")
    assert process.returncode == 0, process.stderr
    failed_by_fault = {line["fault"]: line["failed"] for line in parse_json_lines(process.stdout)}
    assert list(failed_by_fault) == list(FAULTS)
    missed = {
        fault: code
        for fault, failed in failed_by_fault.items()
        for code, outcomes in failed.items()
        # A leak is detected in its place.
        if not any(outcome.startswith(fault if code == "canary" else code) for outcome in outcomes)
    }
    assert missed == {}
