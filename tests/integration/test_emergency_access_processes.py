"""An emergency ends in every process: separate portal processes, over sockets, with the machine's clock."""

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

from django_phi_oidc.access.emergency.lifecycle import close_emergencies
from django_phi_oidc.access.emergency.models import CloseReason
from tests.support.emergency_access import actor, allow, declared, opened
from tests.support.portal_process import portal_process
from tests.support.session_fixtures import BACKEND, SignedIn, sign_in  # noqa: F401 -- a fixture

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
