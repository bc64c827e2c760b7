"""The kit finds what is broken: each check of the portal's, switched off in turn, makes an attack on it fail."""

from pathlib import Path

import pytest

from tests.security.attack.example_project import objects, project
from tests.security.attack.planted_faults import FAULTS
from tests.security.attack.test_attack_command import ALSO, SIGN_IN

pytestmark = pytest.mark.sqlite
NO_CHECK = {
    "transport_timeout": "to find it, a fault would have to wait for an answer that drips for minutes",
    "transport_unreachable": "a name for what can't be accepted",
    "break_glass_refused": "the example has no local account",
}


def test_every_code_has_a_planted_fault() -> None:
    planted = {code for _, codes in FAULTS.values() for code in codes}
    assert (SIGN_IN | ALSO) - planted == set(NO_CHECK)


def test_each_planted_fault_is_found(tmp_path: Path) -> None:
    ran = project(tmp_path).run("-m", "tests.security.attack.planted_faults")
    assert ran.returncode == 0, ran.stderr
    found = {told["fault"]: told["failed"] for told in objects(ran.stdout)}
    assert list(found) == list(FAULTS)
    missed = {
        fault: code
        for fault, failed in found.items()
        for code, told in failed.items()
        # A leak is found in the place where it is.
        if not any(line.startswith(fault if code == "canary" else code) for line in told)
    }
    assert missed == {}
