"""Several providers: the chooser, and isolation of outages, issuers that differ in a slash, and accounts."""

import threading
import time
from collections import Counter
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.urls import resolve, reverse

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.crypto import keyring
from django_phi_oidc.login.code_exchange import PROVIDER_TIMEOUT_SECONDS
from django_phi_oidc.subjects.linking import link_existing_user
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.testing.mock_provider import Client, DemoProvider, MutableExchange
from tests.integration.journeys.two_providers import (
    SECRETS,
    Declare,
    assert_refused,
    assert_signed_in,
    callback_of,
    sign_in_at,
    start_sign_in_at,
)
from tests.support.http_browser import Browser, PortalResponse
from tests.support.portal_fixtures import EVERYTHING

# The database does not matter here; tests/unit/subjects runs on both kinds.
pytestmark = [pytest.mark.django_db(**EVERYTHING), pytest.mark.sqlite, pytest.mark.usefixtures("declare")]


# The chooser


def test_chooser_shows_only_a_link_for_each_provider(
    browser: Browser, clinic: DemoProvider, region: DemoProvider
) -> None:
    page = browser.start_sign_in(next_url="/portal/a/?b=c&d=e")
    assert (page.status, page.join_header_values("Cache-Control")) == (200, "no-store")
    links = [
        piece.partition('"')[0].replace("&amp;", "&") for piece in page.body.partition("</head>")[2].split('href="')[1:]
    ]
    assert links == [
        f"/oidc/{name}/authenticate/?next=%2Fportal%2Fa%2F%3Fb%3Dc%26d%3De" for name in ("clinic", "region")
    ]
    assert page.body.index("The clinic’s sign-in") < page.body.index("The region’s sign-in")
    assert browser.cookies == {}
    for text in (clinic.issuer, region.issuer, "client_id", "portal<", *SECRETS.values()):
        assert text not in page.body
    assert clinic.requests == region.requests == []
    redirect = browser.get(links[1])
    assert redirect.location.startswith(f"{region.issuer}/authorize")
    assert browser.get(region.authorize(redirect.location, "amina")).location == "/portal/a/?b=c&d=e"


@pytest.mark.parametrize("url", ["https://evil.example/", "//evil.example/", "javascript:alert(1)", ""])
def test_chooser_drops_a_next_url_of_another_host(url: str, browser: Browser) -> None:
    page = browser.start_sign_in(next_url=url)
    assert 'href="/oidc/region/authenticate/"' in page.body
    assert "evil" not in page.body


def test_chooser_escapes_labels_and_falls_back_to_names(browser: Browser, declare: Declare) -> None:
    declare(clinic={"label": ""}, region={"label": "<b>R&D</b>"})
    body = browser.start_sign_in().body
    assert ">clinic</a>" in body
    assert ">&lt;b&gt;R&amp;D&lt;/b&gt;</a>" in body


def test_single_provider_needs_no_chooser(browser: Browser, settings: Any, clinic: DemoProvider) -> None:
    single = {"clinic": settings.PHI_OIDC["PROVIDERS"]["clinic"]}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": single}
    assert browser.start_sign_in().location.startswith(f"{clinic.issuer}/authorize")


@pytest.mark.parametrize("name", ["authenticate", "callback", "logout", "logged-out", "jwks.json"])
def test_provider_names_do_not_shadow_other_urls(name: str) -> None:
    for route in ("oidc_authentication_init", "oidc_authentication_callback", "oidc_logout"):
        match = resolve(reverse(route, kwargs={"provider": name}))
        assert (match.url_name, match.kwargs) == (route, {"provider": name})
        assert resolve(reverse(route)).kwargs == {}


# Outages


def test_stopped_provider_does_not_affect_another(clinic: DemoProvider, region: DemoProvider, browser: Browser) -> None:
    region.stop()
    try:
        page = start_sign_in_at(browser, "region")
        assert_refused(page, browser, "transport_unreachable", status=503)
        for again in ("/oidc/region/authenticate/", "/oidc/authenticate/"):
            assert f'href="{again}?next=%2Fportal%2Fhome%2F"' in page.body
        assert "The region’s sign-in" in browser.start_sign_in().body
        assert_signed_in(sign_in_at(browser, "clinic", clinic), browser, clinic)
    finally:
        region.start()
    again = Browser(browser.base_url)
    assert_signed_in(sign_in_at(again, "region", region), again, region)


@pytest.mark.parametrize("endpoint", ["discovery", "token"])
def test_hanging_provider_does_not_delay_another(
    endpoint: str, clinic: DemoProvider, region: DemoProvider, portal: str
) -> None:
    reached, released = threading.Semaphore(0), threading.Event()
    waiting = [Browser(portal) for _ in range(4)]
    urls = {
        "discovery": lambda browser: f"{portal}/oidc/region/authenticate/",
        "token": lambda browser: callback_of(browser, "region", region),
    }
    ready = [(browser, urls[endpoint](browser)) for browser in waiting]
    held = 1 if endpoint == "discovery" else conf.providers()["region"].max_concurrent_calls

    def hold(at: str, exchange: MutableExchange) -> None:
        if at == endpoint:
            reached.release()
            released.wait(PROVIDER_TIMEOUT_SECONDS)

    region.intercept = hold
    pages: list[PortalResponse] = []
    threads = [
        threading.Thread(target=lambda browser, url: pages.append(browser.get(url)), args=pair) for pair in ready
    ]
    for thread in threads:
        thread.start()
    try:
        # One thread fetches the metadata while the others wait. As many codes are redeemed as may be at once.
        assert all(reached.acquire(timeout=PROVIDER_TIMEOUT_SECONDS) for _ in range(held))
        browser, started = Browser(portal), time.monotonic()
        assert_signed_in(sign_in_at(browser, "clinic", clinic), browser, clinic)
        assert time.monotonic() - started < PROVIDER_TIMEOUT_SECONDS / 2
        assert not any(page.status == 302 for page in pages)
    finally:
        released.set()
        for thread in threads:
            thread.join()
    statuses = Counter(page.status for page in pages)
    assert statuses[302] >= held
    assert statuses[302] + statuses[503] == 4, "a call that waits for the others is refused after a second"


# Issuers that differ in a slash


class TwoIssuers:
    """One socket with two issuers: tokens for the client `slashed` have the issuer with the trailing slash."""

    def __init__(self, op: DemoProvider) -> None:
        self.plain, self.slashed = op.issuer, f"{op.issuer}/"
        self.metadata_of = self.plain
        self.swapped = False
        op.mutate = self.set_issuer

    def set_issuer(self, at: str, exchange: MutableExchange) -> None:
        if at == "discovery":
            exchange.reply.json["issuer"] = self.metadata_of
        elif at == "id_token":
            exchange.claims["iss"] = self.issuer_of(exchange.claims["aud"], swapped=self.swapped)
        elif at == "authorize" and exchange.reply.redirect_to:
            exchange.reply.query["iss"] = self.issuer_of(exchange.parameters["client_id"], swapped=False)

    def issuer_of(self, client_id: str, *, swapped: bool) -> str:
        return self.slashed if (client_id == "slashed") != swapped else self.plain


@pytest.fixture
def slashed(clinic: DemoProvider, settings: Any, portal: str) -> TwoIssuers:
    two = TwoIssuers(clinic)
    providers = {}
    for name, issuer in (("plain", two.plain), ("slashed", two.slashed)):
        clinic.register_client(Client(name, SECRETS["clinic"], [f"{portal}/oidc/{name}/callback/"]))
        providers[name] = {
            "issuer": issuer,
            "client_id": name,
            "client_secret": SECRETS["clinic"],
            "allow_loopback_http": True,
        }
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}
    return two


def test_same_sub_at_issuers_that_differ_in_a_slash_is_two_accounts(
    slashed: TwoIssuers, clinic: DemoProvider, portal: str
) -> None:
    assert clinic.get_subject("amina", "plain") == clinic.get_subject("amina", "slashed")
    users = []
    for name in ("plain", "slashed", "plain"):
        slashed.metadata_of = getattr(slashed, name)
        browser = Browser(portal)
        assert_signed_in(sign_in_at(browser, name, clinic), browser, clinic)
        users.append(browser.user())
    assert users[0] == users[2] != users[1]
    assert sorted(PairwiseSubject.objects.values_list("issuer", flat=True)) == [slashed.plain, slashed.slashed]


@pytest.mark.parametrize(("name", "other"), [("plain", "slashed"), ("slashed", "plain")])
def test_issuer_that_differs_in_a_slash_is_refused(
    name: str, other: str, slashed: TwoIssuers, clinic: DemoProvider, browser: Browser
) -> None:
    slashed.metadata_of = getattr(slashed, other)
    assert_refused(start_sign_in_at(browser, name), browser, "issuer_mismatch", status=503)
    slashed.metadata_of = getattr(slashed, name)
    slashed.swapped = True
    assert_refused(sign_in_at(browser, name, clinic), browser, "iss_invalid")
    assert clinic.active_tokens == []
    slashed.swapped = False
    assert_signed_in(sign_in_at(browser, name, clinic), browser, clinic)


# One person with two providers


def test_person_with_two_providers_has_two_accounts(clinic: DemoProvider, region: DemoProvider, portal: str) -> None:
    users = []
    for name, op in (("clinic", clinic), ("region", region), ("clinic", clinic)):
        browser = Browser(portal)
        sign_in_at(browser, name, op)
        users.append(browser.user())
    assert users[0] == users[2] != users[1]
    assert get_user_model().objects.count() == 2


def test_person_linked_to_both_providers_has_one_account(
    clinic: DemoProvider, region: DemoProvider, portal: str
) -> None:
    first, second = Browser(portal), Browser(portal)
    sign_in_at(first, "clinic", clinic)
    link_existing_user(
        get_user_model().objects.get(),
        sub=region.get_subject("amina", "portal"),
        provider=conf.providers()["region"],
        keys=keyring.get_keys("subject"),
        origin=Origin(),
        now=clock.now(),
    )
    assert_signed_in(sign_in_at(second, "region", region), second, region)
    assert first.user() == second.user() != ""
    assert PairwiseSubject.objects.count() == 2


def test_sign_in_at_another_provider_ends_the_first_session(
    clinic: DemoProvider, region: DemoProvider, browser: Browser
) -> None:
    assert_signed_in(sign_in_at(browser, "clinic", clinic), browser, clinic)
    first = browser.user()
    assert_signed_in(sign_in_at(browser, "region", region), browser, region)
    assert browser.user() not in ("", first)
    assert clinic.active_tokens == []
    assert browser.post("/oidc/logout/").location.startswith(f"{region.issuer}/end-session")
    assert region.active_tokens == []


@pytest.mark.parametrize("name", ["clinic", "region"])
def test_person_without_an_account_is_offered_the_chooser(
    name: str, clinic: DemoProvider, region: DemoProvider, settings: Any, browser: Browser
) -> None:
    """Retrying the same provider would lead to the same page."""
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Refusing"]
    page = sign_in_at(browser, name, {"clinic": clinic, "region": region}[name])
    assert_refused(page, browser, "not_provisioned")
    (link,) = page.body.partition("</head>")[2].split('href="')[1:]
    assert link.startswith("/oidc/authenticate/?next=")
    assert "Sign in another way" in link
