"""Emergency access in separate portal processes, over sockets, with the machine's clock."""

import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core import mail

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.outbox import flush as drain_outbox
from django_phi_oidc.contrib.emergency.errors import EmergencyRefused
from django_phi_oidc.contrib.emergency.lifecycle import close_emergencies, review_emergency
from django_phi_oidc.contrib.emergency.models import CloseReason, EmergencyAccess, ReviewVerdict
from django_phi_oidc.contrib.emergency.tasks import tend_emergencies
from tests.support.emergency_access import OFFICER, REASON, actor, allow, declared, list_events, opened
from tests.support.guarded_views import PERMISSION
from tests.support.http_browser import Browser
from tests.support.portal_process import portal_process
from tests.support.session_fixtures import (  # noqa: F401 -- fixtures
    BACKEND,
    SignedIn,
    declaration,
    serving,
    sign_in,
    unused_port,
)

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
TimedRequest = tuple[datetime, datetime, int]
"""When the request began, when its response arrived, and the status."""


@pytest.fixture
def portals(settings: Any) -> Iterator[list[str]]:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": declared()}
    settings.AUTHENTICATION_BACKENDS = [BACKEND]
    with ExitStack() as stack:
        environment = {"TEST_URLCONF": "tests.support.guarded_views", "TEST_BACKEND": BACKEND}
        yield [stack.enter_context(portal_process({"EMERGENCY": declared()}, **environment)) for _ in range(2)]


@pytest.fixture
def person(sign_in: Callable[[], SignedIn]) -> SignedIn:
    signed_in = sign_in()
    signed_in.user = allow(signed_in.user, "open_emergencyaccess")
    return signed_in


def send_request(portal: str, person: SignedIn, pk: int) -> TimedRequest:
    cookie = f"{django_settings.SESSION_COOKIE_NAME}={person.django_key}"
    request = urllib.request.Request(f"{portal}/chart/{pk}/?purpose=ETREAT", headers={"Cookie": cookie})
    began = datetime.now(UTC)
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            status = response.status
    except urllib.error.HTTPError as error:
        with error:
            status = error.code
    return began, datetime.now(UTC), status


def test_emergency_ends_for_the_next_request_of_every_process(portals: list[str], person: SignedIn) -> None:
    patient = get_user_model()._default_manager.create_user(username="patient").pk
    assert [send_request(portal, person, patient)[2] for portal in portals] == [403, 403]
    now = datetime.now(UTC)
    row = opened(person.user, f"Patient/{patient}", duration=timedelta(seconds=3), now=now)

    def send_requests(portal: str) -> list[TimedRequest]:
        requests = []
        while datetime.now(UTC) < row.expires_at + timedelta(seconds=2):
            requests.append(send_request(portal, person, patient))
            time.sleep(0.02)
        return requests

    with ThreadPoolExecutor(len(portals)) as pool:
        results = list(pool.map(send_requests, portals))
    for requests in results:
        assert {status for _, done, status in requests if done < row.expires_at} == {200}
        assert {status for began, _, status in requests if began >= row.expires_at} == {403}
        first_refused = min(done for _, done, status in requests if status == 403)
        assert first_refused < row.expires_at + timedelta(seconds=1)


def test_closed_emergency_is_over_for_the_next_request_of_every_process(portals: list[str], person: SignedIn) -> None:
    patient = get_user_model()._default_manager.create_user(username="patient").pk
    row = opened(person.user, f"Patient/{patient}")
    assert [send_request(portal, person, patient)[2] for portal in portals] == [200, 200]
    close_emergencies([row.pk], CloseReason.CLOSED, origin=actor(person.user).origin, now=datetime.now(UTC))
    assert [send_request(portal, person, patient)[2] for portal in portals] == [403, 403]


BREAK_GLASS = "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"
PASSWORD = "correct horse battery staple"


@pytest.fixture(params=["provider down", "provider up"])
def provider(request: pytest.FixtureRequest, unused_port: int) -> Iterator[dict[str, Any]]:
    """Yield the declaration of a provider."""
    with serving() as op:
        options = declaration(op)
        is_down = request.param == "provider down"
        yield {**options, "issuer": f"http://127.0.0.1:{unused_port}"} if is_down else options


@pytest.fixture
def local_portal(provider: dict[str, Any], settings: Any) -> Iterator[str]:
    options = {
        "PROVIDERS": {"default": provider},
        "BREAK_GLASS_ACCOUNTS": ["amina", "basil"],
        "EMERGENCY": declared(),
    }
    settings.PHI_OIDC = {**settings.PHI_OIDC, **options}
    backends = f"{BACKEND} {BREAK_GLASS}"
    with portal_process(options, TEST_URLCONF="tests.support.guarded_views", TEST_BACKEND=backends) as portal:
        yield portal


def browse(portal: str) -> Browser:
    return Browser(portal, headers={"Accept": "text/html"})


def sign_in_locally(portal: str, username: str, *, password: str = PASSWORD) -> Browser:
    browser = browse(portal)
    browser.get("/oidc/local-login/")
    browser.post("/oidc/local-login/", username=username, password=password)
    return browser


def list_grants() -> list[tuple[str, str, str, str]]:
    events = AuditEvent.objects.filter(action="access.granted").order_by("id")
    return [(event.actor, event.session, event.resource, event.detail) for event in events]


def test_g3_local_account_sees_a_record_in_an_emergency(local_portal: str, request: pytest.FixtureRequest) -> None:
    users = get_user_model()._default_manager
    amina, basil = (
        allow(users.create_user(username=name, password=PASSWORD), "open_emergencyaccess", "review_emergencyaccess")
        for name in ("amina", "basil")
    )
    users.filter(pk=amina.pk).update(is_superuser=True)
    patient = users.create_user(username="patient").pk
    chart, resource = f"/chart/{patient}/?purpose=ETREAT", f"Patient/{patient}"
    is_down = "provider down" in request.node.callspec.id
    assert browse(local_portal).get("/oidc/authenticate/").status == (503 if is_down else 302)
    unknown = sign_in_locally(local_portal, "amina", password="wrong")
    assert unknown.get(chart).location.startswith("/oidc/authenticate/")
    browser = sign_in_locally(local_portal, "amina")
    refused = browser.get(chart)
    assert (refused.status, refused.location) == (403, "")
    assert "/oidc/emergency/?resource=Patient%2F" in refused.body
    form = {"resource": resource, "permissions": PERMISSION, "purpose": "ETREAT", "reason": REASON}
    assert browser.get("/oidc/emergency/").status == 200
    assert browser.post("/oidc/emergency/", **form, minutes="31").status == 400
    assert browser.post("/oidc/emergency/", **form, minutes="30", next=chart).location == chart
    row = EmergencyAccess.objects.get()
    assert (row.is_local, row.expires_at - row.opened_at) == (True, timedelta(minutes=30))
    assert browser.get(chart).body == "the chart"
    assert list_grants() == [(str(amina.pk), "", resource, f'{{"emergency":"{row.pk}","local":true}}')]
    assert sign_in_locally(local_portal, "basil").get(chart).status == 403, "another account"
    drain_outbox()
    assert [detail["local"] for _, _, detail in list_events("emergency.opened")] == [True]
    tend_emergencies()
    assert [(message.to, "local account" in message.body) for message in mail.outbox] == [([OFFICER], True)]
    EmergencyAccess.objects.update(opened_at=row.opened_at - timedelta(minutes=30), expires_at=row.opened_at)
    assert browser.get(chart).status == 403
    assert len(list_grants()) == 1
    review: dict[str, Any] = {"verdict": ReviewVerdict.JUSTIFIED, "note": "", "now": datetime.now(UTC)}
    with pytest.raises(EmergencyRefused, match="own_emergency"):
        review_emergency(row.pk, actor=actor(users.get(pk=amina.pk)), **review)
    assert review_emergency(row.pk, actor=actor(basil), **review).reviewed_by == str(basil.pk)
