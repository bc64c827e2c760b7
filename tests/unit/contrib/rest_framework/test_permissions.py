"""API permission classes: scopes, user permissions, purposes and assurance."""

from collections.abc import Callable
from datetime import timedelta
from itertools import product
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connections
from django.test import RequestFactory
from rest_framework.exceptions import PermissionDenied
from rest_framework.request import Request

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import Actor, build_assurance_entry
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.contrib.apis.access_token import AccessToken
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.errors import DeclarationInvalid, RevealRefused
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support import api_views as hospital
from tests.support.api_fixtures import CHALLENGES, EVERYTHING, App, decisions, refusals
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import allow, declared, opened
from tests.support.guarded_views import ASKED, HELD, RAN
from tests.support.session_fixtures import SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = pytest.mark.django_db(**EVERYTHING)
BY_APP = '{"client_id":"app"}'
PASSWORD = "correct horse battery staple"
SCOPE = 'Bearer error="insufficient_scope", error_description="The access token lacks the required scope", scope='


def by_app_on(view: str) -> str:
    return f'{{"client_id":"app","page":"tests.support.api_views.{view}"}}'


@pytest.fixture
def patient() -> Any:
    return get_user_model()._default_manager.create_user(username="patient")


def test_view_requires_all_its_scopes(app: App) -> None:
    assert app.get("/scoped/", app.token(scope="openid chart.read chart.write")).status_code == 200
    for scope in ("openid", "openid chart.write"):
        refused = app.get("/scoped/", app.token(scope=scope))
        assert (refused.status_code, refused["WWW-Authenticate"]) == (403, f'{SCOPE}"chart.read chart.write"')
    event = AuditEvent.objects.filter(action="api.refused").last()
    assert event is not None
    assert (event.reason, event.actor, event.detail) == ("scope_missing", str(app.user.pk), BY_APP)
    assert len(refusals()) == 2


def test_oidc_session_needs_no_scope(
    app: App,
    sign_in: Callable[[], SignedIn],
) -> None:
    assert sign_in().client().get("/scoped/").status_code == 200
    assert SecureClient().get("/scoped/")["WWW-Authenticate"] == CHALLENGES
    by_password = SecureClient()
    by_password.force_login(app.user, backend="tests.support.guarded_views.Wards")
    assert by_password.get("/whoami/").status_code == 200
    assert by_password.get("/scoped/").status_code == 403
    request = Request(RequestFactory().get("/"))
    request.user, request.auth = app.user, "a token of another kind"
    assert not hospital.HasScope().has_permission(request, hospital.Scoped())


def test_g11_request_that_has_the_scopes_is_one_event(app: App, sign_in: Callable[[], SignedIn]) -> None:
    token = app.token(scope="openid chart.read chart.write")
    assert app.get("/scoped/", token).status_code == 200
    assert decisions() == [("access.granted", "", "", by_app_on("Scoped"))]
    assert AuditEvent.objects.get(action="access.granted").actor == str(app.user.pk)
    assert app.get("/scoped/", app.token()).status_code == 403
    person = sign_in()
    assert person.client().get("/scoped/").status_code == 200
    assert decisions()[1:] == [("access.granted", "", "", '{"page":"tests.support.api_views.Scoped"}')]
    assert app.client.options("/scoped/", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    assert len(decisions()) == 3


def test_g11_view_with_scopes_does_not_run_without_its_event(app: App, sign_in: Callable[[], SignedIn]) -> None:
    token, client = app.token(scope="openid chart.read chart.write"), sign_in().client()
    for path in ("/scoped/", "/sure/", "/either/"):
        with audit_database_fails():
            assert app.get(path, token).status_code == 503
    with audit_database_fails():
        assert client.get("/scoped/").status_code == 503
    assert RAN == []
    assert app.get("/scoped/", token).status_code == client.get("/scoped/").status_code == 200


def test_g11_grant_is_recorded_once_by_the_guard_that_says_most(app: App, patient: Any) -> None:
    HELD.add((app.user.pk, patient.pk))
    token = app.token(scope="openid chart.read chart.write")
    of_patient = ("access.granted", "", f"Patient/{patient.pk}", BY_APP)
    for path, event in {
        f"/chart/{patient.pk}/": of_patient,
        f"/both/{patient.pk}/": of_patient,
        "/scopedandsure/": ("access.granted", "", "", by_app_on("ScopedAndSure")),
        "/either/": ("access.granted", "", "", by_app_on("Either")),
    }.items():
        before = len(decisions())
        assert app.get(path, token).status_code == 200
        assert decisions()[before:] == [event]


def test_g3_local_account_uses_an_api_of_records_in_an_emergency(settings: Any, app: App, patient: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [
        *settings.AUTHENTICATION_BACKENDS,
        "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend",
    ]
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["night-desk"], "EMERGENCY": declared()}
    user = allow(
        get_user_model()._default_manager.create_user(username="night-desk", password=PASSWORD), "open_emergencyaccess"
    )
    client = SecureClient()
    client.post("/oidc/local-login/", {"username": "night-desk", "password": PASSWORD})
    charts = [f"/{view}/{patient.pk}/?purpose=ETREAT" for view in ("chart", "both", "unscoped")]
    assert [client.get(chart).status_code for chart in charts] == [403] * 3
    assert {reason for _, reason, *_ in decisions()} == {"emergency_missing"}
    opened(user, f"Patient/{patient.pk}", duration=timedelta(minutes=30))
    EmergencyAccess.objects.update(is_local=True)
    assert [client.get(chart).status_code for chart in charts] == [200] * 3
    assert [client.get(f"/{view}/").status_code for view in ("scoped", "sure")] == [403, 401]


def test_refusal_is_not_overridden_by_another_permission(app: App) -> None:
    assert app.get("/either/", app.token(scope="openid chart.write")).status_code == 200
    assert app.get("/either/", app.token()).status_code == 403


def test_view_without_scopes_is_invalid(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    for scopes in ((), "chart.read", ("two words",), None, ("",)):
        monkeypatch.setattr(hospital.Open, "required_scopes", scopes)
        with pytest.raises(DeclarationInvalid):
            app.get("/open/", app.token())
    assert RAN == []


def test_access_requires_scope_and_permission(app: App, patient: Any) -> None:
    resource = f"Patient/{patient.pk}"
    granted = ("access.granted", "", resource, BY_APP)
    denied = ("access.denied", "permission_missing", resource, BY_APP)
    scopes = ("openid chart.read", "openid chart.write", "openid")
    for view, scope, held in product(("chart", "unscoped", "generic"), scopes, (True, False)):
        HELD.clear()
        HELD.update({(app.user.pk, patient.pk)} if held else ())
        RAN.clear()
        decided, refused = len(decisions()), len(refusals())
        response = app.get(f"/{view}/{patient.pk}/", app.token(scope=scope))
        is_in_scope = "chart.read" in scope
        is_open = held and is_in_scope
        assert (response.status_code, len(RAN)) == ((200, 1) if is_open else (403, 0))
        assert response.get("WWW-Authenticate", "") == ("" if is_in_scope else f'{SCOPE}"chart.read"')
        if is_in_scope or view == "unscoped":
            assert (decisions()[decided:], refusals()[refused:]) == ([granted if is_open else denied], [])
            assert response["Cache-Control"] == "no-store"
        else:
            assert decisions()[decided:] == []
            assert refusals()[refused:] == [("scope_missing", "default", "failure")]


def test_access_event_has_user_client_and_purpose(
    app: App,
    patient: Any,
    sign_in: Callable[[], SignedIn],
) -> None:
    HELD.add((app.user.pk, patient.pk))
    header = {"Authorization": f"Bearer {app.token()}"}
    assert sign_in().client().get(f"/chart/{patient.pk}/?purpose=ETREAT", headers=header).status_code == 200
    event = AuditEvent.objects.get(action="access.granted")
    assert (event.actor, event.session, event.purpose) == (str(app.user.pk), "", "ETREAT")
    assert (event.detail, event.client_ip) == (BY_APP, "127.0.0.1")


def test_purpose_is_validated(app: App, patient: Any) -> None:
    HELD.add((app.user.pk, patient.pk))
    token, reasons = app.token(), {"TREAT": "", "HMARKT": "purpose_not_declared", "treat": "purpose_unknown"}
    for purpose, reason in reasons.items():
        response = app.get(f"/chart/{patient.pk}/?purpose={purpose}", token)
        assert response.status_code == (403 if reason else 200)
        assert not response.has_header("WWW-Authenticate"), "not because of the scope"
    assert [reason for _, reason, *_ in decisions()] == list(reasons.values())
    for purpose, reason in {"TREAT": "", ("TREAT",): "purpose_unknown", None: "purpose_unknown"}.items():
        header = {"Authorization": f"Bearer {token}"}
        sent = app.client.post(f"/chart/{patient.pk}/", {"purpose": purpose}, "application/json", headers=header)
        assert sent.status_code == (403 if reason else 200)
        assert decisions()[-1][1] == reason


def test_missing_object_is_refused_like_a_denied_one(app: App) -> None:
    for view in ("gone", "notthere", "generic"):
        response = app.get(f"/{view}/999/", app.token())
        assert (response.status_code, RAN) == (403, [])
    assert decisions() == [("access.denied", "permission_missing", "Patient/999", BY_APP)] * 3


def test_permission_without_object_is_checked_for_none(app: App) -> None:
    assert app.get("/whole/7/", app.token()).status_code == 403
    HELD.add((app.user.pk, None))
    assert app.get("/whole/7/", app.token()).status_code == 200
    assert ASKED == [None, None]


def test_view_without_get_resource_is_invalid(app: App) -> None:
    with pytest.raises(DeclarationInvalid, match="get_resource"):
        app.get("/undeclared/7/", app.token())


def test_oidc_session_is_checked_by_the_same_permission(
    app: App,
    patient: Any,
    sign_in: Callable[[], SignedIn],
) -> None:
    clinician = sign_in()
    HELD.add((clinician.user.pk, patient.pk))
    assert clinician.client().get(f"/chart/{patient.pk}/").status_code == 200
    assert decisions() == [("access.granted", "", f"Patient/{patient.pk}", "{}")]
    assert AuditEvent.objects.get(action="access.granted").session == str(clinician.session.pk)
    response = SecureClient().get(f"/unscoped/{patient.pk}/")
    headers = response["WWW-Authenticate"], response["Cache-Control"]
    assert (response.status_code, *headers) == (401, CHALLENGES, "no-store")
    by_password = SecureClient()
    by_password.force_login(clinician.user, backend="tests.support.guarded_views.Wards")
    assert by_password.get(f"/unscoped/{patient.pk}/").status_code == 401
    assert [reason for _, reason, *_ in decisions()] == ["", "session_missing"]


def test_access_is_refused_during_an_audit_outage(app: App, patient: Any) -> None:
    HELD.add((app.user.pk, patient.pk))
    token = app.token()

    def fail(*args: Any) -> Any:
        raise OperationalError("the server is unreachable")

    with connections["phi_audit"].execute_wrapper(fail):
        response = app.get(f"/chart/{patient.pk}/", token)
    assert (response.status_code, response["Cache-Control"], RAN) == (503, "no-store", [])
    assert app.get(f"/chart/{patient.pk}/", token).status_code == 200


def test_repeated_permission_checks_are_decided_once(app: App, patient: Any) -> None:
    """OPTIONS checks each permission class again for PUT and for POST."""
    url, headers = f"/generic/{patient.pk}/", {"Authorization": f"Bearer {app.token()}"}
    HELD.add((app.user.pk, patient.pk))
    assert app.client.options(url, headers=headers).status_code == 200
    assert len(decisions()) == 1
    HELD.clear()
    assert app.client.options(url, headers=headers).status_code == 403
    assert len(decisions()) == 2


def test_decision_is_for_one_request_and_one_resource(app: App, patient: Any) -> None:
    HELD.add((app.user.pk, patient.pk))
    view, token = hospital.Unscoped(), app.token()

    def check(pk: int) -> Any:
        rf = RequestFactory(headers={"Authorization": f"Bearer {token}"})
        view.kwargs = {"pk": pk}
        view.request = view.initialize_request(rf.get("/"))
        view.check_permissions(view.request)
        return view.request

    request = check(patient.pk)
    view.check_permissions(request)
    assert len(decisions()) == 1
    view.kwargs = {"pk": app.user.pk}
    with pytest.raises(PermissionDenied):
        view.check_permissions(request)
    HELD.clear()
    with pytest.raises(PermissionDenied):
        check(patient.pk)
    assert [decision[:2] for decision in decisions()] == [
        ("access.granted", ""),
        *[("access.denied", "permission_missing")] * 2,
    ]


def test_token_limits_is_staff_and_is_superuser(app: App) -> None:
    get_user_model().objects.filter(pk=app.user.pk).update(is_staff=True, is_superuser=True)
    header = {"Authorization": f"Bearer {app.token()}"}
    assert app.client.get("/staff/", headers=header).status_code == 403
    app.client.force_login(app.user)
    assert app.client.get("/staff/").status_code == 200
    row = get_user_model().objects.get(pk=app.user.pk)
    assert (row.is_staff, row.is_superuser) == (True, True)


def test_claims_are_not_disclosed_to_a_token(app: App, patient: Any, monkeypatch: pytest.MonkeyPatch) -> None:

    def get(view: Any, request: Any, **kwargs: Any) -> Any:
        assert isinstance(request.auth, AccessToken)
        with pytest.raises(RevealRefused, match="session_missing"):
            reveal(Actor.from_request(request), request.user, "birthdate", purpose="TREAT")
        return hospital.Response({})

    monkeypatch.setattr(hospital.Whoami, "get", get)
    assert app.get("/whoami/", app.token()).status_code == 200


def challenge(acr: str) -> str:
    description = "A stronger or newer authentication is needed"
    error = f'Bearer error="insufficient_user_authentication", error_description="{description}"'
    return f'{error}, acr_values="{acr}", max_age="300"'


def test_insufficient_authentication_gets_a_step_up_challenge(op: DemoProvider, app: App) -> None:
    token = app.token()
    assert app.get("/sure/", token).status_code == 200
    weak = app.get("/surer/", token)
    assert (weak.status_code, weak["WWW-Authenticate"]) == (401, challenge("urn:example:loa:3"))
    with clock.override_clock(lambda: clock._get_system_time() + timedelta(seconds=301)):
        old = app.get("/sure/", token)
    assert (old.status_code, old["WWW-Authenticate"]) == (401, challenge("urn:example:loa:3 urn:example:loa:2"))
    assert SecureClient().get("/sure/")["WWW-Authenticate"] == CHALLENGES
    assert decisions() == [
        ("access.granted", "", "", by_app_on("Sure")),
        ("access.denied", "acr_insufficient", "", by_app_on("Surer")),
        ("access.denied", "auth_time_stale", "", by_app_on("Sure")),
    ]


def test_assurance_is_part_of_the_access_decision(op: DemoProvider, app: App, patient: Any) -> None:
    HELD.add((app.user.pk, patient.pk))
    path = f"/surechart/{patient.pk}/"
    weak = app.get(path, app.token())
    assert (weak.status_code, weak["WWW-Authenticate"]) == (401, challenge("urn:example:loa:3"))

    def stronger(stage: str, exchange: Any) -> None:
        if stage == "access_token":
            exchange.claims["acr"] = "urn:example:loa:3"

    op.mutate = stronger
    assert app.get(path, app.token()).status_code == 200
    outcomes = [decision[:2] for decision in decisions()]
    assert outcomes == [("access.denied", "acr_insufficient"), ("access.granted", "")]


def test_session_assurance_is_that_of_its_id_token(
    app: App,
    sign_in: Callable[[], SignedIn],
) -> None:
    client = sign_in().client()
    assert client.get("/sure/").status_code == 401
    session = client.session
    session["phi_oidc_assurance"] = build_assurance_entry(acr="urn:example:loa:2", auth_time=clock.now())
    session.save()
    assert client.get("/sure/").status_code == 200
    assert client.get("/surer/")["WWW-Authenticate"] == challenge("urn:example:loa:3")
