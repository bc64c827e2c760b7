"""Role x assurance x purpose x object permission x emergency: who is let in, with exactly one event each.

What is expected is computed from the rules as they stand here, in words that know nothing of our code:

1. Somebody acts in a session of a provider, else nothing is open to them.
2. They may see a patient's chart where their role lets them: a nurse that of a patient of the ward, a visitor none.
3. Or by an emergency that is open, is their own, is for this patient or for everything, and took this permission.
4. They say what for: what the view is declared for; or the purpose of the emergency that lets them in.
5. They signed in as surely as the view asks.
"""

from collections.abc import Iterator
from datetime import timedelta
from itertools import product
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.http import HttpResponse
from django.urls import path

from django_phi_oidc._internal import clock
from django_phi_oidc.access.decisions import authorize
from django_phi_oidc.access.emergency.lifecycle import close_emergencies
from django_phi_oidc.access.emergency.models import CloseReason, EmergencyAccess
from django_phi_oidc.access.policy import AccessPolicy
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import ASSURANCE_KEY, SESSION_KEY
from tests.support import guarded_views as wards
from tests.support.emergency_access import actor, allow, declare, opened
from tests.support.guarded_views import HELD, PERMISSION
from tests.support.session_fixtures import BACKEND

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

ROLES = ("nurse of the ward", "nurse of another ward", "visitor", "nurse without a provider's session")
ACRS = ("strong", "weak")
STATED = ("TREAT", "ETREAT", "BTG", "HMARKT", "nonsense")
EMERGENCIES = (
    "none",
    "for the patient",
    "for everything",
    "for another patient",
    "of another permission",
    "of a colleague",
    "closed",
    "over",
)
LETS_IN = {"for the patient", "for everything"}


@wards.guard(acr=["strong"], purposes=["TREAT"])
def chart(request: Any, pk: int) -> HttpResponse:
    return HttpResponse("the chart")


urlpatterns = [path("chart/<int:pk>/", chart)]


def expected(role: str, acr: str, stated: str, emergency: str) -> str:
    """Return the reason of the refusal; empty: let in."""
    if role == "nurse without a provider's session":
        return "session_missing"
    by_role, by_emergency = role == "nurse of the ward", emergency in LETS_IN
    if not (by_role or by_emergency):
        return "permission_missing"
    if stated == "nonsense":
        return "purpose_unknown"
    # Whoever has the permission by their role needs no emergency, and so has none of its purposes.
    if stated != "TREAT" and not (stated == "ETREAT" and by_emergency and not by_role):
        return "purpose_not_declared"
    return "" if acr == "strong" else "acr_insufficient"


@pytest.fixture(autouse=True)
def _wards(settings: Any) -> Iterator[None]:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    declare(settings)
    HELD.clear()
    yield
    HELD.clear()


@pytest.fixture
def scene() -> SimpleNamespace:
    users = get_user_model()._default_manager
    user, colleague, patient, other = (users.create_user(username=name) for name in ("a", "b", "c", "d"))
    user, colleague = (
        allow(each, "open_emergencyaccess", "open_emergencyaccess_everywhere") for each in (user, colleague)
    )
    return SimpleNamespace(user=user, colleague=colleague, patient=patient.pk, other=other.pk)


def arrange(scene: SimpleNamespace, emergency: str) -> str:
    """Make the emergency, and return its id where it lets in."""
    EmergencyAccess.objects.all().delete()
    if emergency == "none":
        return ""
    whose = scene.colleague if emergency == "of a colleague" else scene.user
    what = {"for everything": "*", "for another patient": f"Patient/{scene.other}"}
    taken = "portal.view_letter" if emergency == "of another permission" else PERMISSION
    long_ago = clock.now() - timedelta(hours=2) if emergency == "over" else clock.now()
    row = opened(whose, what.get(emergency, f"Patient/{scene.patient}"), permissions=[taken], now=long_ago)
    if emergency == "closed":
        close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(whose).origin, now=clock.now())
    return str(row.pk) if emergency in LETS_IN else ""


@pytest.mark.parametrize(("role", "emergency"), list(product(ROLES, EMERGENCIES)))
def test_matrix(role: str, emergency: str, scene: SimpleNamespace, rf: Any) -> None:
    mark = arrange(scene, emergency)
    HELD.clear()
    HELD.update(
        {"nurse of the ward": {(scene.user.pk, scene.patient)}, "visitor": set()}.get(
            role, {(scene.user.pk, scene.other)}
        )
    )
    if role == "nurse without a provider's session":
        HELD.add((scene.user.pk, scene.patient))
    for acr, stated in product(ACRS, STATED):
        before = set(AuditEvent.objects.values_list("pk", flat=True))
        request = rf.get("/", {"purpose": stated})
        request.user, request.session = scene.user, {ASSURANCE_KEY: [acr, None]}
        if role != "nurse without a provider's session":
            request.session[SESSION_KEY] = "1c9c1a0e-6b1c-4d3e-9a57-0a5f0c5d0e11"
        response = chart(request, pk=scene.patient)
        reason = expected(role, acr, stated, emergency)
        assert (response.content == b"the chart") == (reason == ""), (acr, stated)
        (event,) = AuditEvent.objects.exclude(pk__in=before)
        wanted = ("access.denied", "failure") if reason else ("access.granted", "success")
        assert (event.action, event.outcome, event.reason) == (*wanted, reason), (acr, stated)
        is_by_emergency = bool(mark) and role in {"nurse of another ward", "visitor"}
        assert mark in event.detail if is_by_emergency else event.detail == "{}", (acr, stated, event.detail)


@pytest.mark.parametrize("emergency", EMERGENCIES)
@pytest.mark.parametrize("purpose", STATED)
def test_empty_policy_refuses_everybody(emergency: str, purpose: str, scene: SimpleNamespace) -> None:
    arrange(scene, emergency)
    given: dict[str, Any] = {"resource": f"Patient/{scene.patient}", "find_object": None, "now": clock.now()}
    assert authorize(actor(scene.user), AccessPolicy(), purpose=purpose, **given) == "permission_missing"
    only = AccessPolicy(permission=PERMISSION)
    assert authorize(actor(scene.user), only, purpose=purpose, **given) is not None
    HELD.add((scene.user.pk, None))
    assert authorize(actor(scene.user), only, purpose=purpose, **given) is not None
    whole = AccessPolicy(permission=PERMISSION, purposes=frozenset({"TREAT"}))
    assert authorize(actor(scene.user), whole, purpose="TREAT", **given) is None
