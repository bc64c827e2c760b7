"""Officers in the groups of the `groups` command, each in a session of a provider, and a patient."""

import io
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import Group
from django.core.management import call_command

from django_phi_oidc._internal import clock
from django_phi_oidc._internal.randomness import uuid7
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.claims_fixtures import DECLARED, NOW, Person
from tests.support.session_fixtures import SignedIn, op, sign_in  # noqa: F401 -- fixtures

CANARY = "person-canary-Bern-7c1f"
SignIn = Callable[..., SignedIn]


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Iterator[None]:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "CLAIMS": DECLARED}
    with clock.override_clock(lambda: NOW):
        yield


def make_groups(*words: str) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "groups", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


@pytest.fixture
def officer(sign_in: SignIn) -> Callable[[str], Any]:
    """Return a function that signs in a staff member who is only in that group; "" for no group."""

    def make(group: str) -> Any:
        make_groups()
        signed_in = sign_in()
        signed_in.user.is_staff = True  # type: ignore[attr-defined]
        signed_in.user.save()
        if group:
            signed_in.user.groups.add(Group.objects.get(name=group))  # type: ignore[attr-defined]
        client: Any = signed_in.client()
        client.user = signed_in.user
        return client

    return make


@pytest.fixture
def patient(sign_in: SignIn, op: Any, settings: Any) -> Any:
    """Return a signed-in user with a claim that outlives sessions, and a provider with invitations."""
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "invitation"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": default}}
    signed_in = sign_in()
    person = Person.__new__(Person)
    person.user, person.subject, person.session_id = signed_in.user, signed_in.subject, signed_in.session.pk
    person.store({"address": {"locality": CANARY}})
    return signed_in


def held(patient: Any) -> Any:
    return place_hold(patient.subject.uuid, reason="Docket 26-117", until=None, origin=Origin(), now=NOW)


def in_an_emergency(patient: Any) -> EmergencyAccess:
    return EmergencyAccess.objects.create(
        id=uuid7(NOW),
        user=patient.user,
        actor=str(patient.user.pk),
        resource="Patient/7",
        permissions=["portal.view_chart"],
        purpose="ETREAT",
        reason="Nobody knows.",
        opened_at=NOW,
        expires_at=NOW + timedelta(hours=1),
    )
