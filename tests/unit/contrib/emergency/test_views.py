"""The pages of emergency access: open and close, the banner, and the review in the admin."""

import re
from collections.abc import Callable
from datetime import timedelta
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import AnonymousUser, Permission
from django.template import engines
from django.test import Client
from django.urls import include, path

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.request_context import ASSURANCE_KEY
from django_phi_oidc.contrib.emergency.emergency_assurance import OFFERED_ACR_KEY, select_offered_acr_values
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from tests.support import guarded_views as wards
from tests.support.audit_outage import audit_database_fails
from tests.support.emergency_access import REASON, allow, declare, forbid, list_events, opened
from tests.support.guarded_views import HELD, PERMISSION
from tests.support.session_fixtures import BACKEND, SecureClient, SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.contrib.emergency.test_views"),
]
urlpatterns = [*wards.urlpatterns, path("", include("tests.urls"))]
HTML = {"Accept": "text/html"}
OPEN, EVERYWHERE, REVIEW = "open_emergencyaccess", "open_emergencyaccess_everywhere", "review_emergencyaccess"
FORM_DATA = {
    "resource": "Patient/7",
    "permissions": [PERMISSION],
    "purpose": "ETREAT",
    "reason": REASON,
    "minutes": "30",
}
URL = "/oidc/emergency/"
HOW_TO = (Path(__file__).resolve().parents[4] / "docs" / "how-to" / "emergency-access.md").read_text()


@pytest.fixture(autouse=True)
def _wards(settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [BACKEND, "tests.support.guarded_views.Wards"]
    declare(settings)
    HELD.clear()


@pytest.fixture
def scene(sign_in: Callable[[], SignedIn]) -> SimpleNamespace:
    clinician = sign_in()
    return SimpleNamespace(user=allow(clinician.user, OPEN), client=clinician.client(), signed_in=clinician)


class Labels(HTMLParser):
    """Collects inputs, labels, ids, and references to ids, to find missing ones."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.inputs: set[str] = set()
        self.labelled: set[str] = set()
        self.ids: set[str] = set()
        self.referenced: set[str] = set()
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.ids.add(attributes.get("id", ""))
        for name in ("aria-describedby", "aria-labelledby"):
            self.referenced |= set(attributes.get(name, "").split())
        if tag == "label":
            self.labelled.add(attributes.get("for", ""))
        if (
            tag in {"input", "textarea", "select"}
            and attributes.get("type") not in {"hidden", "submit"}
            and "aria-label" not in attributes
        ):
            self.inputs.add(attributes["id"])


def assert_accessible(page: str) -> None:
    labels = Labels(page)
    assert labels.inputs <= labels.labelled
    assert labels.referenced <= labels.ids


def test_form_opens_access_and_redirects_back(scene: SimpleNamespace) -> None:
    page = scene.client.get(URL, {"resource": "Patient/7", "next": "/chart/7/"}, headers=HTML)
    assert (page.status_code, page["Cache-Control"]) == (200, "no-store")
    assert 'value="Patient/7"' in page.content.decode()
    assert_accessible(page.content.decode())
    response = scene.client.post(URL, {**FORM_DATA, "next": "/chart/7/"}, headers=HTML)
    assert (response.status_code, response["Location"]) == (302, "/chart/7/")
    row = EmergencyAccess.objects.get()
    assert (row.actor, row.resource, row.permissions) == (str(scene.user.pk), "Patient/7", [PERMISSION])
    assert row.expires_at - row.opened_at == timedelta(minutes=30)
    page = scene.client.get(URL, headers=HTML)
    assert "Patient/7" in page.content.decode()
    assert REASON not in page.content.decode()
    assert_accessible(page.content.decode())
    assert scene.client.post(f"{URL}{row.pk}/close/")["Location"] == URL
    row.refresh_from_db()
    assert row.close_reason == "closed"
    assert scene.client.post(f"{URL}{row.pk}/close/")["Location"] == URL


@pytest.mark.parametrize("next_url", ["https://elsewhere.example/", "//elsewhere.example/", ""])
def test_form_never_redirects_to_another_host(next_url: str, scene: SimpleNamespace) -> None:
    assert scene.client.post(URL, {**FORM_DATA, "next": next_url})["Location"] == URL


@pytest.mark.parametrize(
    "changed",
    [
        {"resource": "Anna Svensson"},
        {"resource": ""},
        {"permissions": []},
        {"permissions": ["auth.delete_user"]},
        {"purpose": "TREAT"},
        {"reason": " "},
        {"reason": "x" * 2001},
        {"minutes": "0"},
        {"minutes": "61"},
        {"minutes": ""},
    ],
    ids=str,
)
def test_invalid_form_shows_an_error_and_opens_nothing(changed: dict[str, Any], scene: SimpleNamespace) -> None:
    response = scene.client.post(URL, {**FORM_DATA, **changed}, headers=HTML)
    assert (response.status_code, EmergencyAccess.objects.count(), list_events()) == (400, 0, [])
    assert_accessible(response.content.decode())
    assert 'role="alert"' in response.content.decode()
    assert scene.client.post(URL, FORM_DATA).status_code == 302


def test_access_to_everything_needs_its_own_permission(scene: SimpleNamespace) -> None:
    response = scene.client.post(URL, {**FORM_DATA, "resource": "*"}, headers=HTML)
    assert (response.status_code, [event[1] for event in list_events()]) == (403, ["permission_missing"])
    assert "You do not have the permission to open emergency access to this record." in response.content.decode()
    allow(scene.user, EVERYWHERE)
    assert scene.client.post(URL, {**FORM_DATA, "resource": "*"}).status_code == 302


def test_page_without_the_permission_is_refused_with_one_event(sign_in: Callable[[], SignedIn]) -> None:
    client = sign_in().client()
    for number, (send, kind) in enumerate(((client.get, "html"), (client.post, "html"), (client.get, "json")), 1):
        response = send(URL, FORM_DATA, headers={"Accept": f"text/{kind}"})
        assert (response.status_code, response["Cache-Control"]) == (403, "no-store")
        assert [event[:2] for event in list_events()] == [("emergency.refused", "permission_missing")] * number


def test_removed_permission_still_allows_to_see_and_close_open_access(scene: SimpleNamespace) -> None:
    row = opened(scene.user, "Patient/7")
    forbid(scene.user)
    page = scene.client.get(URL, headers=HTML)
    assert (page.status_code, "Open emergency access" in page.content.decode()) == (200, False)
    assert scene.client.post(URL, FORM_DATA).status_code == 403
    assert scene.client.post(f"{URL}{row.pk}/close/").status_code == 302
    assert scene.client.get(URL, headers=HTML).status_code == 403
    assert [event[:2] for event in list_events()[1:]] == [
        ("emergency.refused", "permission_missing"),
        ("emergency.closed", "closed"),
        ("emergency.refused", "permission_missing"),
    ]


def test_anonymous_and_password_sessions_are_redirected_to_the_sign_in(scene: SimpleNamespace) -> None:
    password_client = SecureClient()
    password_client.force_login(scene.user, backend="tests.support.guarded_views.Wards")
    row = opened(scene.user, "Patient/7")
    for client in (Client(), password_client):
        assert client.get(URL, headers=HTML, secure=True)["Location"].startswith("/oidc/authenticate/")
        assert client.post(URL, FORM_DATA, secure=True).status_code == 401
    assert Client().post(f"{URL}{row.pk}/close/", secure=True).status_code == 401
    assert EmergencyAccess.objects.get().closed_at is None


def test_other_persons_cannot_close_it(scene: SimpleNamespace, sign_in: Callable[[], SignedIn]) -> None:
    row = opened(scene.user, "Patient/7")
    assert sign_in().client().post(f"{URL}{row.pk}/close/").status_code == 302
    assert EmergencyAccess.objects.get().closed_at is None
    assert scene.client.get(f"{URL}{row.pk}/close/").status_code == 405


def test_pages_are_missing_if_emergency_is_not_declared(scene: SimpleNamespace, settings: Any) -> None:
    settings.PHI_OIDC = {name: value for name, value in settings.PHI_OIDC.items() if name != "EMERGENCY"}
    assert scene.client.get(URL).status_code == 404
    assert scene.client.post(URL, FORM_DATA).status_code == 404


def test_cross_site_form_opens_and_closes_nothing(scene: SimpleNamespace) -> None:
    row = opened(scene.user, "Patient/7")
    client = SecureClient(enforce_csrf_checks=True)
    client.cookies = scene.client.cookies
    assert client.post(URL, FORM_DATA).status_code == 403
    assert client.post(f"{URL}{row.pk}/close/").status_code == 403
    assert EmergencyAccess.objects.get().closed_at is None


def test_page_without_the_audit_log_opens_and_refuses(scene: SimpleNamespace) -> None:
    with audit_database_fails():
        assert scene.client.post(URL, {**FORM_DATA, "resource": "*"}, headers=HTML).status_code == 503
        assert scene.client.post(URL, FORM_DATA, headers=HTML).status_code == 302
    assert EmergencyAccess.objects.count() == 1


BANNER = "{% load phi_oidc_emergency %}{% phi_oidc_emergency %}"


def test_banner_is_shown_while_the_emergency_is_open(scene: SimpleNamespace, rf: Any) -> None:
    request = rf.get("/")

    def banner(user: Any) -> str:
        request.user = user
        return str(engines["django"].from_string(BANNER).render({}, request)).strip()

    assert banner(scene.user) == ""
    row = opened(scene.user, "Patient/7", duration=timedelta(minutes=5))
    shown = banner(scene.user)
    assert 'role="status"' in shown
    assert "Patient/7" in shown
    assert f'href="{URL}"' in shown
    assert REASON not in shown
    assert banner(AnonymousUser()) == ""
    assert banner(get_user_model()._default_manager.create_user("another")) == ""
    with clock.override_clock(lambda: row.expires_at):
        assert banner(scene.user) == ""


def get_code_block(name: str) -> str:
    match = re.search(rf"<!-- tested: {name} -->\n```\w+\n(.*?)```", HOW_TO, re.DOTALL)
    assert match
    return match[1]


def test_code_of_the_how_to_page_works(scene: SimpleNamespace, settings: Any, rf: Any) -> None:
    namespace: dict[str, Any] = {"PHI_OIDC": dict(settings.PHI_OIDC)}
    exec(get_code_block("settings"), namespace)
    settings.PHI_OIDC = namespace["PHI_OIDC"]
    opened(scene.user, "Patient/4711")
    request = rf.get("/")
    request.user = scene.user
    render = engines["django"].from_string
    assert "Patient/4711" in render(get_code_block("banner")).render({}, request)
    link = re.search('href="([^"]*)"', render(get_code_block("link")).render({}, request))
    assert link
    page = scene.client.get(unescape(link[1]), headers=HTML).content.decode()
    assert 'value="Patient/4711"' in page
    assert 'name="next" value="/chart/4711/"' in page
    assert set(re.findall(r"`phi_oidc_emergency\.(\w+_emergencyaccess\w*)`", HOW_TO)) == set(
        Permission.objects.filter(content_type__model="emergencyaccess").values_list("codename", flat=True)
    )


PHISHING_RESISTANT = ["phr", "phrh"]


def sign_in_with(scene: SimpleNamespace, **entries: Any) -> None:
    session = scene.client.session
    session.update(entries)
    session.save()


@pytest.mark.parametrize(
    ("declared", "offered", "acr", "is_asked"),
    [
        (None, PHISHING_RESISTANT, "", True),
        (None, PHISHING_RESISTANT, "phrh", False),
        (None, [], "", False),
        (["gold"], [], "silver", True),
        (["gold"], PHISHING_RESISTANT, "gold", False),
        ([], PHISHING_RESISTANT, "", False),
    ],
)
def test_f8_form_asks_for_a_strong_sign_in(
    declared: Any, offered: list[str], acr: str, is_asked: bool, scene: SimpleNamespace, settings: Any
) -> None:
    declare(settings, acr=declared)
    sign_in_with(scene, **{OFFERED_ACR_KEY: offered, ASSURANCE_KEY: [acr, None]})
    page = scene.client.get(URL, headers=HTML)
    assert page.status_code == (302 if is_asked else 200)
    assert ("/oidc/step-up/" in page.headers.get("Location", "")) is is_asked
    response = scene.client.post(URL, FORM_DATA, headers=HTML)
    assert response.status_code == (403 if is_asked else 302)
    assert EmergencyAccess.objects.count() == (0 if is_asked else 1)
    denied = AuditEvent.objects.filter(action="access.denied").values_list("reason", flat=True)
    assert list(denied) == (["acr_insufficient"] * 2 if is_asked else [])


def test_f8_multi_factor_values_are_selected_only_if_none_is_declared(settings: Any) -> None:
    supported = ["urn:x", "phrh", "https://refeds.org/profile/mfa"]
    assert select_offered_acr_values(supported) == ["https://refeds.org/profile/mfa", "phrh"]
    assert select_offered_acr_values(["urn:x"]) == []
    declare(settings, acr=[])
    assert select_offered_acr_values(supported) == []
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": None}
    assert select_offered_acr_values(supported) == []
