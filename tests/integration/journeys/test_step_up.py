"""Pages that require a stronger or newer sign-in, over real sockets: step-up for the same person only."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.db import connection

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.sessions.tasks import revoke_after_commit
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Token
from tests.integration.journeys import guarded_urls
from tests.integration.journeys.attack_cases import OMITTED
from tests.integration.journeys.guarded_urls import RAN, STRONG
from tests.integration.journeys.rule_codes import shows
from tests.integration.journeys.test_transactions import audit_database_away
from tests.integration.journeys.two_providers import Declare, _region_op, clinic, declare, region, sign_in_at  # noqa: F401 -- fixtures
from tests.support.http_browser import Browser, PortalResponse, state_cookies
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
WEAK = "urn:example:loa:2"


@pytest.fixture(autouse=True)
def _pages(portal: str, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.guarded_urls"
    RAN.clear()
    guarded_urls.BODIES.clear()


@pytest.fixture
def amina(op: DemoProvider, browser: Browser) -> Browser:
    """Return a browser of amina, signed in with the weak default acr, that accepts HTML."""
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    return browser


def to_provider(browser: Browser, page: str) -> PortalResponse:
    """Open a guarded page, follow the redirect to the step-up view, and return the redirect to the OP."""
    refused = browser.get(page)
    assert (refused.status, urlsplit(refused.location).path) == (302, "/oidc/step-up/"), refused
    assert refused.join_header_values("Cache-Control") == "no-store"
    leaving = browser.get(refused.location)
    assert leaving.status == 302, leaving.body
    return leaving


def step_up(browser: Browser, op: DemoProvider, page: str, username: str = "amina") -> PortalResponse:
    """Step up for the page and return the response of the callback."""
    return browser.get(op.authorize(to_provider(browser, page).location, username, cookies=browser.provider_cookies))


def query_of(leaving: PortalResponse) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(leaving.location).query).items()}


def with_reauthentication(phi_oidc: dict[str, Any], mode: str) -> dict[str, Any]:
    provider = {**phi_oidc["PROVIDERS"]["default"], "reauthentication": mode}
    return {**phi_oidc, "PROVIDERS": {"default": provider}}


def rows() -> list[tuple[Any, ...]]:
    """Return the raw rows of the session table without last_seen_at."""
    columns = [field.column for field in OIDCSession._meta.fields if field.column != "last_seen_at"]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(columns)} FROM {OIDCSession._meta.db_table} ORDER BY id")
        return list(cursor.fetchall())


@dataclass(frozen=True)
class Before:
    """The state that a refusal must not change."""

    rows: list[tuple[Any, ...]]
    cookie: str
    user: str
    tokens: list[Token]

    @classmethod
    def of(cls, browser: Browser, op: DemoProvider) -> "Before":
        return cls(rows(), browser.cookies["sessionid"], browser.user(), op.active_tokens)

    def is_now(self, browser: Browser, op: DemoProvider) -> bool:
        return self == Before.of(browser, op)


PAGES = {
    "/strong/": ({"acr_values": STRONG}, "strong"),
    "/fresh/": ({"max_age": "300"}, "fresh"),
    "/astrong/": ({"acr_values": STRONG, "max_age": "300"}, "astrong"),
    "/class/": ({"acr_values": STRONG}, "class"),
}


@pytest.mark.parametrize("page", PAGES)
def test_insufficient_sign_in_is_stepped_up_and_leads_back_to_the_page(
    page: str, op: DemoProvider, amina: Browser
) -> None:
    before = OIDCSession.objects.get()
    cookie, old = amina.cookies["sessionid"], list(op.active_tokens)
    later = clock.now() + timedelta(minutes=6)
    with clock.override_clock(lambda: later):
        leaving = to_provider(amina, f"{page}?x=1")
        wanted, name = PAGES[page]
        sent = query_of(leaving)
        assert {key: sent.get(key) for key in ("acr_values", "max_age")} == {
            "acr_values": None,
            "max_age": None,
            **wanted,
        }
        assert (sent["prompt"], sent["scope"]) == ("login", "openid")
        assert "x%3D1" not in leaving.location, "the provider does not learn which page is next"
        callback = amina.get(op.authorize(leaving.location, "amina", cookies=amina.provider_cookies))
        assert (callback.status, callback.location) == (302, f"{page}?x=1"), callback.body
        assert amina.get(callback.location).body == f"{name} ran"
    assert [name] == RAN

    row = OIDCSession.objects.get()
    assert (row.pk, row.ended_at, row.started_at) == (before.pk, None, before.started_at)
    assert row.auth_time is not None
    assert before.auth_time is not None
    assert row.auth_time > before.auth_time
    assert row.acr == (WEAK if page == "/fresh/" else STRONG)
    assert amina.cookies["sessionid"] != cookie, "the key is cycled"
    other = Browser(amina.base_url, cookies={"sessionid": cookie})
    assert other.user() == ""
    assert [token for token in op.active_tokens if token not in old] == op.tokens[2:], "the new tokens are active"
    assert PendingRevocation.objects.filter(session=row.pk, due_at=row.started_at + timedelta(hours=8)).count() == 2
    assert set(StoredClaim.objects.filter(session=row.pk).values_list("name", flat=True)) == {"birthdate"}
    (event,) = events(action="session.renewed")
    assert (event.outcome, event.session, event.actor) == ("success", str(row.pk), str(before.user_id))
    assert json.loads(event.detail) == {"acr": row.acr}
    assert len(events(action="login.succeeded")) == 1
    assert [event.reason for event in events(action="access.denied")] == [
        "auth_time_stale" if page == "/fresh/" else "acr_insufficient"
    ]


@pytest.mark.parametrize(("mode", "prompt"), [("verify", "login"), ("request", "login"), ("never", None)])
def test_step_up_requests_prompt_login_unless_the_provider_refuses_it(
    mode: str, prompt: str | None, op: DemoProvider, amina: Browser, settings: Any
) -> None:
    settings.PHI_OIDC = with_reauthentication(settings.PHI_OIDC, mode)
    leaving = to_provider(amina, "/strong/")
    assert (query_of(leaving).get("prompt"), query_of(leaving)["acr_values"]) == (prompt, STRONG)
    callback = amina.get(op.authorize(leaving.location, "amina", cookies=amina.provider_cookies))
    assert callback.location == "/strong/", callback.body
    assert amina.get("/strong/").body == "strong ran"


def test_step_up_without_prompt_login_is_verified_all_the_same(op: DemoProvider, amina: Browser, settings: Any) -> None:
    """The session at the provider does not suffice, neither for the level nor for the age of the authentication."""
    settings.PHI_OIDC = with_reauthentication(settings.PHI_OIDC, "never")
    later = clock.now() + timedelta(minutes=6)
    with clock.override_clock(lambda: later):
        for case in ("an old acr", "an old auth_time", "no auth_time"):
            page, change, code = INSUFFICIENT[case]
            op.mutate = lambda stage, exchange, change=change: change(exchange) if stage == "id_token" else None
            again = step_up(amina, op, page)
            assert "prompt" not in query_of(again)
            assert amina.get(op.authorize(again.location, "amina", cookies=amina.provider_cookies)).status == 403
            assert len(events(action="login.refused", reason=code)) == 2
        op.mutate = None
    assert (RAN, events(action="session.renewed")) == ([], [])


def test_sufficient_sign_in_needs_no_step_up_and_is_recorded(op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(op, "jonas").status == 302
    for page, (_, name) in PAGES.items():
        assert browser.get(page).body == f"{name} ran"
    granted = events(action__startswith="access.")
    assert [event.action for event in granted] == ["access.granted"] * len(PAGES)


def test_tokens_of_a_renewed_session_are_revoked_only_when_it_ends(op: DemoProvider, amina: Browser) -> None:
    """The previous tokens too: with the old refresh token some providers would also revoke the new one."""
    step_up(amina, op, "/strong/")
    assert amina.get("/birthdate/").body == "1984-03-09"
    assert len(op.active_tokens) == 4
    revoke_after_commit(PendingRevocation.objects.values_list("pk", flat=True))
    assert len(op.active_tokens) == 4, "not before the session ends"
    assert amina.post("/oidc/logout/").status == 302
    assert op.active_tokens == []
    assert [row.status for row in PendingRevocation.objects.all()] == ["done"] * 4
    assert (amina.user(), OIDCSession.objects.get().end_reason) == ("", "logout")


def test_renewal_does_not_prolong_the_session(op: DemoProvider, amina: Browser, settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"idle_timeout": timedelta(hours=9)})
    started = clock.now()
    with clock.override_clock(lambda: started + timedelta(hours=7, minutes=58)):
        assert step_up(amina, op, "/strong/").location == "/strong/"
    with clock.override_clock(lambda: started + timedelta(hours=7, minutes=59)):
        assert amina.user() != ""
    with clock.override_clock(lambda: started + timedelta(hours=8, minutes=1)):
        assert amina.user() == ""
    assert OIDCSession.objects.get().end_reason == "absolute_timeout"


Change = Callable[[MutableExchange], None]


def set_claim(name: str, value: Any) -> Change:
    def change(exchange: MutableExchange) -> None:
        exchange.claims[name] = value(exchange.claims) if callable(value) else value
        if value is OMITTED:
            del exchange.claims[name]

    return change


INSUFFICIENT: dict[str, tuple[str, Change, str]] = {
    "an old acr": ("/strong/", set_claim("acr", WEAK), "acr_insufficient"),
    "no acr": ("/strong/", set_claim("acr", OMITTED), "acr_insufficient"),
    "an old auth_time": ("/fresh/", set_claim("auth_time", lambda it: it["iat"] - 400), "auth_time_stale"),
    "an auth_time within the leeway": (
        "/fresh/",
        set_claim("auth_time", lambda it: it["iat"] - 315),
        "auth_time_stale",
    ),
    "no auth_time": ("/fresh/", set_claim("auth_time", OMITTED), "auth_time_missing"),
}


@pytest.mark.parametrize("case", INSUFFICIENT)
def test_insufficient_answer_is_retried_once_and_then_refused(case: str, op: DemoProvider, amina: Browser) -> None:
    page, change, code = INSUFFICIENT[case]
    before = Before.of(amina, op)
    op.mutate = lambda endpoint, exchange: change(exchange) if endpoint == "id_token" else None
    later = clock.now() + timedelta(minutes=6)
    with clock.override_clock(lambda: later):
        again = step_up(amina, op, page)
        assert (again.status, again.location.startswith(op.issuer)) == (302, True), again.body
        assert events(action="login.refused", reason=code) != []
        first = len(state_cookies(amina))
        refused = amina.get(op.authorize(again.location, "amina", cookies=amina.provider_cookies))
        assert (refused.status, code in refused.body) == (403, False)
        assert "need more proof" in refused.body
        assert f'href="{page}"' in refused.body, "the page links to a new attempt"
        assert (first, state_cookies(amina)) == (1, [])
        refusals = events(action="login.refused")
        assert [(event.reason, json.loads(event.detail)["stage"]) for event in refusals] == [(code, "step_up")] * 2
        assert any(str(event.id) in refused.body for event in refusals)
        assert before.is_now(amina, op)
        assert len(op.tokens) == 6, "new tokens were issued and revoked"
        assert (RAN, events(action="session.renewed")) == ([], [])

        op.mutate = None
        assert step_up(amina, op, page).location == page


@shows("subject_changed")
def test_step_up_by_another_person_is_refused(op: DemoProvider, amina: Browser) -> None:
    before = Before.of(amina, op)
    page = step_up(amina, op, "/strong/", "jonas")
    assert (page.status, "A different person has signed in" in page.body) == (403, True)
    (event,) = events(action="login.refused")
    session = OIDCSession.objects.get()
    assert (event.reason, event.session, event.actor) == ("subject_changed", str(session.pk), before.user)
    assert before.is_now(amina, op)
    assert {token.grant.account.username for token in op.tokens[2:]} == {"jonas"}, "tokens were issued"
    assert get_user_model().objects.count() == 1, "no account is created"
    assert step_up(amina, op, "/strong/").location == "/strong/"


@shows("subject_changed")
def test_step_up_by_another_known_person_is_refused(op: DemoProvider, amina: Browser, portal: str) -> None:
    jonas = Browser(portal)
    jonas.sign_in(op, "jonas")
    amina.provider_cookies.clear()
    assert step_up(amina, op, "/strong/", "jonas").status == 403
    assert [event.reason for event in events(action="login.refused")] == ["subject_changed"]
    assert (amina.user() != jonas.user(), OIDCSession.objects.filter(ended_at=None).count()) == (True, 2)


def test_session_that_ended_during_the_step_up_is_not_renewed(op: DemoProvider, amina: Browser) -> None:
    callback = op.authorize(to_provider(amina, "/strong/").location, "amina", cookies=amina.provider_cookies)
    pending = {name: amina.cookies[name] for name in state_cookies(amina)}
    amina.post("/oidc/logout/")
    amina.cookies |= pending
    page = amina.get(callback)
    assert (page.status, amina.user()) == (403, "")
    assert [event.reason for event in events(action="login.refused")] == ["subject_changed"]
    assert op.active_tokens == []


def test_step_up_callback_in_the_session_of_another_person_is_refused(op: DemoProvider, amina: Browser) -> None:
    callback = op.authorize(to_provider(amina, "/strong/").location, "amina", cookies=amina.provider_cookies)
    amina.provider_cookies.clear()
    assert amina.sign_in(op, "jonas").status == 302
    jonas = amina.user()
    assert amina.get(callback).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["subject_changed"]
    assert amina.user() == jonas


def test_deactivated_person_is_not_renewed(op: DemoProvider, amina: Browser) -> None:
    callback = op.authorize(to_provider(amina, "/strong/").location, "amina", cookies=amina.provider_cookies)
    get_user_model().objects.update(is_active=False)
    assert amina.get(callback).status == 403
    assert events(action="session.renewed") == []
    assert [token for token in op.active_tokens if token in op.tokens[2:]] == []


def test_session_is_not_renewed_without_the_audit_database(op: DemoProvider, amina: Browser) -> None:
    before = Before.of(amina, op)
    callback = op.authorize(to_provider(amina, "/strong/").location, "amina", cookies=amina.provider_cookies)
    with audit_database_away():
        page = amina.get(callback)
    assert page.status == 503
    assert before.is_now(amina, op)
    assert (len(op.tokens), RAN) == (4, [])


def test_page_does_not_run_without_the_audit_database(op: DemoProvider, amina: Browser) -> None:
    with audit_database_away():
        assert amina.get("/strong/").status == 503
    assert RAN == []
    assert amina.get("/strong/").status == 302


def test_submitted_form_is_not_resubmitted_and_the_page_says_so(op: DemoProvider, amina: Browser) -> None:
    amina.headers["Referer"] = f"{amina.base_url}/portal/form/"
    page = amina.post("/strong/", note="a note")
    assert (page.status, "was not saved" in page.body, RAN) == (403, True, [])
    link = page.body.partition('class="button" href="')[2].partition('"')[0]
    leaving = amina.get(link)
    callback = amina.get(op.authorize(leaving.location, "amina", cookies=amina.provider_cookies))
    assert (callback.location, RAN) == ("/portal/form/", [])
    assert amina.post("/strong/", note="a note").body == "strong ran"
    assert guarded_urls.BODIES == ["a note"]


def test_script_receives_the_challenge_and_the_step_up_url(op: DemoProvider, amina: Browser) -> None:
    amina.headers["Accept"] = "application/json"
    amina.headers["Referer"] = f"{amina.base_url}/portal/app/"
    page = amina.get("/astrong/")
    assert page.status == 401
    assert page.join_header_values("WWW-Authenticate") == (
        'Bearer error="insufficient_user_authentication", '
        'error_description="A stronger or newer authentication is needed", '
        f'acr_values="{STRONG}", max_age="300"'
    )
    body = json.loads(page.body)
    assert body["code"] == "insufficient_user_authentication"
    leaving = amina.get(body["step_up"])
    assert amina.get(op.authorize(leaving.location, "amina", cookies=amina.provider_cookies)).location == "/portal/app/"
    assert amina.get("/astrong/").body == "astrong ran"


@pytest.mark.parametrize("page", ["/strong/", "/chart/"])
def test_anonymous_user_is_redirected_to_the_sign_in(page: str, op: DemoProvider, browser: Browser) -> None:
    browser.headers["Accept"] = "text/html"
    assert browser.get(page).location.startswith("/oidc/authenticate/?next=")
    assert events(action__startswith="access.") == []


def test_phi_access_checks_permissions_before_assurance_and_writes_one_event_each(
    op: DemoProvider, amina: Browser
) -> None:
    assert amina.get("/chart/").status == 403
    user = get_user_model().objects.get()
    user.user_permissions.add(Permission.objects.get(codename="view_user"))
    assert step_up(amina, op, "/chart/").location == "/chart/"
    assert amina.get("/chart/").body == "chart ran"
    assert [(event.reason, event.resource) for event in events(action__startswith="access.")] == [
        ("permission_missing", "Patient/7"),
        ("acr_insufficient", "Patient/7"),
        ("", "Patient/7"),
    ]


def test_demand_that_is_foreign_forged_or_expired_starts_no_step_up(
    op: DemoProvider, amina: Browser, portal: str
) -> None:
    demand_url = amina.get("/strong/").location
    jonas = Browser(portal)
    jonas.sign_in(op, "jonas")
    started = len([request for request in op.requests if request.path == "/authorize"])
    assert [browser.get(url).status for browser, url in ((jonas, demand_url), (Browser(portal), demand_url))] == [
        403,
        403,
    ]
    assert [amina.get(url).status for url in ("/oidc/step-up/", "/oidc/step-up/?demand=x", demand_url[:-9])] == [
        403
    ] * 3
    # Request parameters do not change the authorization request.
    assert query_of(amina.get(f"{demand_url}&acr_values={WEAK}&prompt=none"))["acr_values"] == STRONG
    later = clock.now() + timedelta(minutes=11)
    with clock.override_clock(lambda: later):
        assert amina.get(demand_url).status == 403
    assert len([request for request in op.requests if request.path == "/authorize"]) == started


def test_step_ups_in_two_tabs_lead_to_their_own_pages(op: DemoProvider, amina: Browser) -> None:
    first, second = to_provider(amina, "/strong/"), to_provider(amina, "/class/?tab=2")
    for leaving, page in ((second, "/class/?tab=2"), (first, "/strong/")):
        callback = amina.get(op.authorize(leaving.location, "amina", cookies=amina.provider_cookies))
        assert callback.location == page, callback.body
    amina.post("/oidc/logout/")
    assert (len(op.tokens), op.active_tokens) == (6, [])


def test_step_up_with_an_unreachable_provider_changes_nothing(op: DemoProvider, amina: Browser) -> None:
    callback = op.authorize(to_provider(amina, "/strong/").location, "amina", cookies=amina.provider_cookies)
    before = Before.of(amina, op)
    op.stop()
    try:
        page = amina.get(callback)
    finally:
        op.start()
    assert (page.status, 'href="/strong/"' in page.body) == (503, True)
    assert before.is_now(amina, op)


def test_discarded_tokens_are_revoked_at_a_renewal_too(op: DemoProvider, browser: Browser, settings: Any) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "tokens": "discard"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    browser.sign_in(op)
    browser.headers["Accept"] = "text/html"
    assert step_up(browser, op, "/strong/").location == "/strong/"
    assert (len(op.tokens), op.active_tokens) == (4, [])
    row = OIDCSession.objects.get()
    assert (row.ended_at, row.access_token, row.refresh_token, row.acr) == (None, None, None, STRONG)
    assert PendingRevocation.objects.filter(status="done").count() == 4


def test_step_up_uses_the_provider_of_the_session(
    declare: Declare,
    region: DemoProvider,
    browser: Browser,
) -> None:
    sign_in_at(browser, "region", region)
    browser.headers["Accept"] = "text/html"
    leaving = to_provider(browser, "/strong/")
    assert leaving.location.startswith(region.issuer)
    callback = browser.get(region.authorize(leaving.location, "amina", cookies=browser.provider_cookies))
    assert (callback.status, callback.location) == (302, "/strong/"), callback.body
