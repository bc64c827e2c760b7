"""Role x assurance x purpose x object permission x emergency: the decision, with exactly one event each.

The expected result is computed from these rules, independently of the package:

1. The actor has a session of a provider; otherwise everything is refused.
2. The role grants access to the chart: a nurse's to patients of the ward, a visitor's to none.
3. Or an open emergency grants it: the actor's own, for this patient or for everything, with this permission.
4. The stated purpose is declared for the view, or is the purpose of the emergency that grants access.
5. The sign-in is as strong as the view requires.
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
from django_phi_oidc.access.policy import AccessPolicy
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import ASSURANCE_KEY, SESSION_KEY
from django_phi_oidc.contrib.emergency.lifecycle import close_emergencies
from django_phi_oidc.contrib.emergency.models import CloseReason, EmergencyAccess
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
    "expired",
)
GRANTING = {"for the patient", "for everything"}


@wards.guard(acr=["strong"], purposes=["TREAT"])
def chart(request: Any, pk: int) -> HttpResponse:
    return HttpResponse("the chart")


urlpatterns = [path("chart/<int:pk>/", chart)]


def expected(role: str, acr: str, stated: str, emergency: str) -> str:
    """Return the reason of the refusal; empty: granted."""
    if role == "nurse without a provider's session":
        return "session_missing"
    by_role, by_emergency = role == "nurse of the ward", emergency in GRANTING
    if not (by_role or by_emergency):
        return "permission_missing"
    if stated == "nonsense":
        return "purpose_unknown"
    # An actor with the permission by role needs no emergency, and cannot use its purposes.
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
        allow(account, "open_emergencyaccess", "open_emergencyaccess_everywhere") for account in (user, colleague)
    )
    return SimpleNamespace(user=user, colleague=colleague, patient=patient.pk, other=other.pk)


def open_emergency_for(scene: SimpleNamespace, emergency: str) -> str:
    """Open the emergency, and return its id if it grants access."""
    EmergencyAccess.objects.all().delete()
    if emergency == "none":
        return ""
    owner = scene.colleague if emergency == "of a colleague" else scene.user
    resources = {"for everything": "*", "for another patient": f"Patient/{scene.other}"}
    permission = "portal.view_letter" if emergency == "of another permission" else PERMISSION
    opened_at = clock.now() - timedelta(hours=2) if emergency == "expired" else clock.now()
    row = opened(owner, resources.get(emergency, f"Patient/{scene.patient}"), permissions=[permission], now=opened_at)
    if emergency == "closed":
        close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(owner).origin, now=clock.now())
    return str(row.pk) if emergency in GRANTING else ""


@pytest.mark.parametrize(("role", "emergency"), list(product(ROLES, EMERGENCIES)))
def test_authorize_follows_the_rules_for_each_combination(
    role: str, emergency: str, scene: SimpleNamespace, rf: Any
) -> None:
    emergency_id = open_emergency_for(scene, emergency)
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
        expected_event = ("access.denied", "failure") if reason else ("access.granted", "success")
        assert (event.action, event.outcome, event.reason) == (*expected_event, reason), (acr, stated)
        is_by_emergency = bool(emergency_id) and role in {"nurse of another ward", "visitor"}
        assert emergency_id in event.detail if is_by_emergency else event.detail == "{}", (acr, stated, event.detail)


@pytest.mark.parametrize("emergency", EMERGENCIES)
@pytest.mark.parametrize("purpose", STATED)
def test_empty_policy_refuses_every_actor(emergency: str, purpose: str, scene: SimpleNamespace) -> None:
    open_emergency_for(scene, emergency)
    arguments: dict[str, Any] = {"resource": f"Patient/{scene.patient}", "find_object": None, "now": clock.now()}
    assert authorize(actor(scene.user), AccessPolicy(), purpose=purpose, **arguments) == "permission_missing"
    without_purposes = AccessPolicy(permission=PERMISSION)
    assert authorize(actor(scene.user), without_purposes, purpose=purpose, **arguments) is not None
    HELD.add((scene.user.pk, None))
    assert authorize(actor(scene.user), without_purposes, purpose=purpose, **arguments) is not None
    complete = AccessPolicy(permission=PERMISSION, purposes=frozenset({"TREAT"}))
    assert authorize(actor(scene.user), complete, purpose="TREAT", **arguments) is None
