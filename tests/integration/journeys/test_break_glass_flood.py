"""A flood of guesses at the break-glass page, over sockets: the persons who need the page get in."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from django.contrib.auth import get_user_model

from django_phi_oidc._internal import clock
from django_phi_oidc.contrib.local_accounts.known_senders import remember_network
from django_phi_oidc.contrib.local_accounts.models import KnownNetwork
from tests.settings import PHI_OIDC
from tests.support.http_browser import Browser, PortalResponse
from tests.support.officers import create_account
from tests.support.portal_fixtures import EVERYTHING
from tests.support.portal_process import portal_process

pytestmark = pytest.mark.django_db(**EVERYTHING)

URL, PASSWORD = "/oidc/local-login/", "correct horse battery staple"
BACKENDS = (
    "django_phi_oidc.backends.OIDCAuthenticationBackend",
    "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend",
)
OPTIONS = {
    "PROVIDERS": PHI_OIDC["PROVIDERS"],
    "BREAK_GLASS_ACCOUNTS": ["night-desk"],
    "TRUSTED_PROXIES": ["127.0.0.0/8"],
}
NETWORKS = 10_000
FLOODERS = 8
MAX_SECONDS = 3.0
CSRF_TOKEN = "f" * 32
HOME, ELSEWHERE = "198.51.100.1", "203.0.113.2"
SIGN_INS_AFTER = (5, 50, 1000, 5000, NETWORKS)
"""Guesses of the flood. The first ones are checked, which takes the most time."""


def get_address(number: int) -> str:
    """Return an address of a network of its own, IPv4 and IPv6 in turn."""
    if number % 2:
        return f"2001:db8:{number:x}::1"
    return f"10.0.{number // 256}.{number % 256}"


def enter(portal: str, address: str, *, password: str, cookies: dict[str, str] | None = None) -> PortalResponse:
    """Send the form through a proxy on loopback. The cookies of the response are added to cookies."""
    browser = Browser(portal, headers={"X-Forwarded-For": address})
    if cookies is not None:
        browser.cookies = cookies
    browser.cookies["csrftoken"] = CSRF_TOKEN
    return browser.post(URL, username="night-desk", password=password)


class Flood:
    """Threads that send a wrong password from one network after the other."""

    def __init__(self, portal: str) -> None:
        self.portal = portal
        self.statuses: Counter[int] = Counter()
        self.numbers = itertools.count()
        self.ended = threading.Event()
        self.lock = threading.Lock()

    def run(self) -> None:
        while not self.ended.is_set():
            with self.lock:
                number = next(self.numbers)
            response = enter(self.portal, get_address(number % NETWORKS), password="wrong")
            with self.lock:
                self.statuses[response.status] += 1


@contextmanager
def running_flood(portal: str) -> Iterator[Flood]:
    flood = Flood(portal)
    threads = [threading.Thread(target=flood.run) for _ in range(FLOODERS)]
    for thread in threads:
        thread.start()
    try:
        yield flood
    finally:
        flood.ended.set()
        for thread in threads:
            thread.join()


def wait_for_guesses(flood: Flood, count: int) -> None:
    deadline = time.monotonic() + 300
    while flood.statuses.total() < count:
        assert time.monotonic() < deadline, flood.statuses
        time.sleep(0.05)


def test_s2_known_senders_get_in_within_three_seconds_during_a_flood_from_10000_networks() -> None:
    account = create_account("night-desk", password=PASSWORD)
    with portal_process(OPTIONS, TEST_BACKEND=" ".join(BACKENDS), TEST_THREADS="8") as portal:
        known: dict[str, str] = {}
        assert enter(portal, "2001:db8:ffff::1", password=PASSWORD, cookies=known).status == 302
        del known["sessionid"]
        remember_network(get_user_model()._default_manager.get(pk=account.pk), client_ip=HOME, now=clock.now())
        durations = []
        with running_flood(portal) as flood:
            for guesses in SIGN_INS_AFTER:
                wait_for_guesses(flood, guesses)
                for address, cookies in ((ELSEWHERE, dict(known)), (HOME, None)):
                    started_at = time.monotonic()
                    assert enter(portal, address, password=PASSWORD, cookies=cookies).status == 302
                    durations.append(time.monotonic() - started_at)
                    # Else the next sign-in would be of a network that the cookie made known.
                    KnownNetwork.objects.exclude(network=HOME).delete()
    assert max(durations) < MAX_SECONDS, durations
    assert set(flood.statuses) == {403}
    assert flood.statuses.total() >= NETWORKS
