"""E140 and E141: the keys of the witnesses, the quorum, and witnesses that refuse the log."""

from typing import Any

import pytest
from django.conf import settings
from django.core.checks import Tags, run_checks
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.log.models import LogWitness
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key
from django_phi_oidc.audit.merkle.cosignature import WitnessKey, encode_witness_key
from tests.support.audit_log import KEY, OTHER_KEY
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])

URL = "https://witness.example"
FIRST = {"key": encode_witness_key(WitnessKey("witness.example/1", KEY.public_key())), "url": URL}
SECOND = {"key": encode_witness_key(WitnessKey("witness.example/2", OTHER_KEY.public_key())), "url": URL}


def declared(*witnesses: dict[str, Any], **audit: Any) -> override_settings:
    named = {f"w{number}": raw for number, raw in enumerate(witnesses, start=1)}
    return override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"witnesses": named, **audit}))


def find_ids(**options: Any) -> set[str]:
    ids = {str(message.id).rpartition(".")[2] for message in run_checks(**options)}
    return ids & {"E140", "E141"}


@pytest.mark.parametrize(
    ("witnesses", "audit"),
    [
        ([FIRST, {"key": encode_verifier_key("witness.example/2", OTHER_KEY.public_key()), "url": URL}], {}),
        ([FIRST, {**SECOND, "key": SECOND["key"].replace("example/2", "example/3")}], {}),
        ([FIRST, {**FIRST, "key": encode_witness_key(WitnessKey("witness.example/2", KEY.public_key()))}], {}),
        ([FIRST, SECOND], {"quorum": 3}),
    ],
    ids=["key of a log", "another name", "the same key", "quorum"],
)
def test_witnesses_that_cannot_reach_the_quorum_are_reported(
    witnesses: list[dict[str, Any]], audit: dict[str, Any]
) -> None:
    """E140."""
    with declared(FIRST, SECOND, quorum=2):
        assert find_ids() == set()
    with declared(*witnesses, **audit):
        assert find_ids() == {"E140"}


@pytest.mark.parametrize(
    ("fault", "ids"),
    [
        ("", set()),
        ("transport_timeout", set()),
        ("witness_log_shorter", {"E141"}),
        ("witness_log_inconsistent", {"E141"}),
    ],
)
def test_refusal_of_a_witness_is_reported_on_deployment(fault: str, ids: set[str]) -> None:
    """E141."""
    LogWitness.objects.create(name="w1", due_at=clock.now(), last_fault=fault)
    options: dict[str, Any] = {"tags": [Tags.database], "databases": ["default"]}
    with declared(FIRST):
        assert find_ids(include_deployment_checks=True, **options) == ids
        assert find_ids(**options) == set()
    assert find_ids(include_deployment_checks=True, **options) == set(), "a witness that is not declared any more"
