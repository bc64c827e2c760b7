"""The attack kit detects each disabled check of the portal."""

from pathlib import Path

import pytest

from django_phi_oidc.testing.attack.availability_attacks import AVAILABILITY_ATTACKS
from django_phi_oidc.testing.attack.ciphertext_attacks import CIPHERTEXT_ATTACKS
from django_phi_oidc.testing.attack.initiated_login_attacks import INITIATED_LOGIN_ATTACKS
from django_phi_oidc.testing.attack.report import format_attack_name
from django_phi_oidc.testing.attack.scim_attacks import SCIM_ATTACKS
from django_phi_oidc.testing.attack.security_event_attacks import SECURITY_EVENT_ATTACKS
from django_phi_oidc.testing.attack.shared_computer_attacks import SHARED_COMPUTER_ATTACKS
from django_phi_oidc.testing.attack.token_theft_attacks import TOKEN_THEFT_ATTACKS
from tests.security.attack.example_project import SCIM, create_project, parse_json_lines
from tests.security.attack.planted_faults import AVAILABILITY_AND_BROWSER_FAULTS, FAULTS
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


def test_every_attack_without_a_code_of_its_own_has_a_planted_fault() -> None:
    attacks = [
        *(*AVAILABILITY_ATTACKS, *CIPHERTEXT_ATTACKS, *SHARED_COMPUTER_ATTACKS, *TOKEN_THEFT_ATTACKS),
        *(*SCIM_ATTACKS, *INITIATED_LOGIN_ATTACKS),
        *(name for name in SECURITY_EVENT_ATTACKS if name[0] not in OTHER_CODES),
    ]
    planted = {name for _, names in AVAILABILITY_AND_BROWSER_FAULTS.values() for name in names}
    assert {format_attack_name(code, attack_id) for code, attack_id in attacks} <= planted


def test_each_planted_fault_is_detected(tmp_path: Path) -> None:
    process = create_project(tmp_path).run("-m", "tests.security.attack.planted_faults", **SCIM)
    assert process.returncode == 0, process.stderr
    lines = parse_json_lines(process.stdout)
    details_by_fault = {line["fault"]: line["details"] for line in lines if "details" in line}
    failed_names = {fault: set(details) for fault, details in details_by_fault.items()}
    assert failed_names == {fault: names for fault, (_, names) in AVAILABILITY_AND_BROWSER_FAULTS.items()}
    controls = {fault: details for fault, details in details_by_fault.items() if "control" in str(details)}
    assert controls == {}, "the attack detects the fault, not the control"
    failed_by_fault = {line["fault"]: line["failed"] for line in lines if "failed" in line}
    assert list(failed_by_fault) == list(FAULTS)
    missed = {
        fault: code
        for fault, failed in failed_by_fault.items()
        for code, outcomes in failed.items()
        # A leak is detected in its place.
        if not any(outcome.startswith(fault if code == "canary" else code) for outcome in outcomes)
    }
    assert missed == {}
