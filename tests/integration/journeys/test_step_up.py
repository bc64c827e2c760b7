"""A page that wants a stronger or newer sign-in, over real sockets: there and back, for the same person alone."""

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
from tests.support.http_browser import Browser, PortalResponse
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
    """Return her browser, signed in as weakly as she does when nobody asks for more; it wants pages."""
    assert browser.sign_in(op).status == 302
    browser.headers["Accept"] = "text/html"
    return browser


def to_provider(browser: Browser, page: str) -> PortalResponse:
    """Open a guarded page and follow our own door; return the redirect to the OP."""
    refused = browser.get(page)
    assert (refused.status, urlsplit(refused.location).path) == (302, "/oidc/step-up/"), refused
    assert refused.join_header_values("Cache-Control") == "no-store"
    leaving = browser.get(refused.location)
    assert leaving.status == 302, leaving.body
    return leaving


def step_up(browser: Browser, op: DemoProvider, page: str, username: str = "amina") -> PortalResponse:
    """Return what the callback answers."""
    return browser.get(op.authorize(to_provider(browser, page).location, username, cookies=browser.provider_cookies))


def asked(leaving: PortalResponse) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(urlsplit(leaving.location).query).items()}


def rows() -> list[tuple[Any, ...]]:
    """Return what the table of sessions holds, byte for byte, but for when somebody was last seen."""
    columns = [field.column for field in OIDCSession._meta.fields if field.column != "last_seen_at"]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {', '.join(columns)} FROM {OIDCSession._meta.db_table} ORDER BY id")
        return list(cursor.fetchall())


@dataclass(frozen=True)
class Before:
    """What a refusal leaves as it was."""

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
def test_too_weak_leads_through_a_stronger_sign_in_back_to_the_page(
    page: str, op: DemoProvider, amina: Browser
) -> None:
    before = OIDCSession.objects.get()
    cookie, old = amina.cookies["sessionid"], list(op.active_tokens)
    later = clock.now() + timedelta(minutes=6)
    with clock.override_clock(lambda: later):
        leaving = to_provider(amina, f"{page}?x=1")
        wanted, name = PAGES[page]
        sent = asked(leaving)
        assert {key: sent.get(key) for key in ("acr_values", "max_age")} == {
            "acr_values": None,
            "max_age": None,
            **wanted,
        }
        assert (sent["prompt"], sent["scope"]) == ("login", "openid")
        assert "x%3D1" not in leaving.location, "where it leads is nobody else's business"
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
    stranger = Browser(amina.base_url, cookies={"sessionid": cookie})
    assert stranger.user() == ""
    assert [token for token in op.active_tokens if token not in old] == op.tokens[2:], "the new ones live"
    assert PendingRevocation.objects.filter(session=row.pk, due_at=row.started_at + timedelta(hours=8)).count() == 2
    assert set(StoredClaim.objects.filter(session=row.pk).values_list("name", flat=True)) == {"birthdate"}
    (event,) = events(action="session.renewed")
    assert (event.outcome, event.session, event.actor) == ("success", str(row.pk), str(before.user_id))
    assert json.loads(event.detail) == {"acr": row.acr}
    assert len(events(action="login.succeeded")) == 1
    assert [each.reason for each in events(action="access.denied")] == [
        "auth_time_stale" if page == "/fresh/" else "acr_insufficient"
    ]


def test_strong_and_new_enough_runs_at_once_and_leaves_no_event(op: DemoProvider, browser: Browser) -> None:
    assert browser.sign_in(op, "jonas").status == 302
    for page, (_, name) in PAGES.items():
        assert browser.get(page).body == f"{name} ran"
    assert events(action__startswith="access.") == []


def test_session_that_was_renewed_lives_on_and_with_its_end_its_tokens_die(op: DemoProvider, amina: Browser) -> None:
    """Those that it held before die with it: with the old refresh token some providers would revoke the new one."""
    step_up(amina, op, "/strong/")
    assert amina.get("/birthdate/").body == "1984-03-09"
    assert len(op.active_tokens) == 4
    revoke_after_commit(PendingRevocation.objects.values_list("pk", flat=True))
    assert len(op.active_tokens) == 4, "not before"
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


Bend = Callable[[MutableExchange], None]


def set_claim(name: str, value: Any) -> Bend:
    def bend(exchange: MutableExchange) -> None:
        exchange.claims[name] = value(exchange.claims) if callable(value) else value
        if value is OMITTED:
            del exchange.claims[name]

    return bend


OLD: dict[str, tuple[str, Bend, str]] = {
    "an old acr": ("/strong/", set_claim("acr", WEAK), "acr_insufficient"),
    "no acr": ("/strong/", set_claim("acr", OMITTED), "acr_insufficient"),
    "an old auth_time": ("/fresh/", set_claim("auth_time", lambda it: it["iat"] - 400), "auth_time_stale"),
    "an auth_time that only the leeway lets pass": (
        "/fresh/",
        set_claim("auth_time", lambda it: it["iat"] - 315),
        "auth_time_stale",
    ),
    "no auth_time": ("/fresh/", set_claim("auth_time", OMITTED), "auth_time_missing"),
}


@pytest.mark.parametrize("case", OLD)
def test_answer_that_is_too_weak_is_asked_for_once_more_and_then_refused(
    case: str, op: DemoProvider, amina: Browser
) -> None:
    page, bend, code = OLD[case]
    before = Before.of(amina, op)
    op.mutate = lambda endpoint, exchange: bend(exchange) if endpoint == "id_token" else None
    later = clock.now() + timedelta(minutes=6)
    with clock.override_clock(lambda: later):
        again = step_up(amina, op, page)
        assert (again.status, again.location.startswith(op.issuer)) == (302, True), again.body
        assert events(action="login.refused", reason=code) != []
        first = len([name for name in amina.cookies if name.startswith("phi_oidc_")])
        refused = amina.get(op.authorize(again.location, "amina", cookies=amina.provider_cookies))
        assert (refused.status, code in refused.body) == (403, False)
        assert "need more proof" in refused.body
        assert f'href="{page}"' in refused.body, "and from there it begins anew"
        assert (first, [name for name in amina.cookies if name.startswith("phi_oidc_")]) == (1, [])
        told = events(action="login.refused")
        assert [(each.reason, json.loads(each.detail)["stage"]) for each in told] == [(code, "step_up")] * 2
        assert any(str(each.id) in refused.body for each in told)
        assert before.is_now(amina, op)
        assert len(op.tokens) == 6, "there were new ones, and they are dead"
        assert (RAN, events(action="session.renewed")) == ([], [])

        op.mutate = None
        assert step_up(amina, op, page).location == page


@shows("subject_changed")
def test_another_person_who_answers_changes_nothing_and_the_same_one_does(op: DemoProvider, amina: Browser) -> None:
    before = Before.of(amina, op)
    page = step_up(amina, op, "/strong/", "jonas")
    assert (page.status, "A different person has signed in" in page.body) == (403, True)
    (event,) = events(action="login.refused")
    session = OIDCSession.objects.get()
    assert (event.reason, event.session, event.actor) == ("subject_changed", str(session.pk), before.user)
    assert before.is_now(amina, op)
    assert {token.grant.account.username for token in op.tokens[2:]} == {"jonas"}, "there were some"
    assert get_user_model().objects.count() == 1, "nobody gets an account by that"
    assert step_up(amina, op, "/strong/").location == "/strong/"


@shows("subject_changed")
def test_person_who_is_known_here_too_is_another_person(op: DemoProvider, amina: Browser, portal: str) -> None:
    jonas = Browser(portal)
    jonas.sign_in(op, "jonas")
    amina.provider_cookies.clear()
    assert step_up(amina, op, "/strong/", "jonas").status == 403
    assert [event.reason for event in events(action="login.refused")] == ["subject_changed"]
    assert (amina.user() != jonas.user(), OIDCSession.objects.filter(ended_at=None).count()) == (True, 2)


def test_session_that_ended_meanwhile_is_not_renewed(op: DemoProvider, amina: Browser) -> None:
    callback = op.authorize(to_provider(amina, "/strong/").location, "amina", cookies=amina.provider_cookies)
    pending = {name: value for name, value in amina.cookies.items() if name.startswith("phi_oidc_")}
    amina.post("/oidc/logout/")
    amina.cookies |= pending
    page = amina.get(callback)
    assert (page.status, amina.user()) == (403, "")
    assert [event.reason for event in events(action="login.refused")] == ["subject_changed"]
    assert op.active_tokens == []


def test_callback_of_a_step_up_in_a_session_of_another_person_is_refused(op: DemoProvider, amina: Browser) -> None:
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


def test_trail_that_is_away_renews_nothing(op: DemoProvider, amina: Browser) -> None:
    before = Before.of(amina, op)
    callback = op.authorize(to_provider(amina, "/strong/").location, "amina", cookies=amina.provider_cookies)
    with audit_database_away():
        page = amina.get(callback)
    assert page.status == 503
    assert before.is_now(amina, op)
    assert (len(op.tokens), RAN) == (4, [])


def test_page_is_not_run_while_no_refusal_can_be_written(op: DemoProvider, amina: Browser) -> None:
    with audit_database_away():
        assert amina.get("/strong/").status == 503
    assert RAN == []
    assert amina.get("/strong/").status == 302


def test_form_that_was_sent_is_not_sent_again_and_the_person_is_told(op: DemoProvider, amina: Browser) -> None:
    amina.headers["Referer"] = f"{amina.base_url}/portal/form/"
    page = amina.post("/strong/", note="the patient said")
    assert (page.status, "was not saved" in page.body, RAN) == (403, True, [])
    link = page.body.partition('class="button" href="')[2].partition('"')[0]
    leaving = amina.get(link)
    callback = amina.get(op.authorize(leaving.location, "amina", cookies=amina.provider_cookies))
    assert (callback.location, RAN) == ("/portal/form/", [])
    assert amina.post("/strong/", note="the patient said").body == "strong ran"
    assert guarded_urls.BODIES == ["the patient said"]


def test_script_gets_the_challenge_and_where_to_go(op: DemoProvider, amina: Browser) -> None:
    amina.headers["Accept"] = "application/json"
    amina.headers["Referer"] = f"{amina.base_url}/portal/app/"
    page = amina.get("/astrong/")
    assert page.status == 401
    assert page.join_header_values("WWW-Authenticate") == (
        'Bearer error="insufficient_user_authentication", '
        'error_description="A stronger or newer authentication is needed", '
        f'acr_values="{STRONG}", max_age="300"'
    )
    told = json.loads(page.body)
    assert told["code"] == "insufficient_user_authentication"
    leaving = amina.get(told["step_up"])
    assert amina.get(op.authorize(leaving.location, "amina", cookies=amina.provider_cookies)).location == "/portal/app/"
    assert amina.get("/astrong/").body == "astrong ran"


@pytest.mark.parametrize("page", ["/strong/", "/chart/"])
def test_nobody_is_led_to_the_sign_in(page: str, op: DemoProvider, browser: Browser) -> None:
    browser.headers["Accept"] = "text/html"
    assert browser.get(page).location.startswith("/oidc/authenticate/?next=")
    assert events(action__startswith="access.") == []


def test_guard_of_a_chart_asks_for_the_rest_first_and_leaves_one_event_each(op: DemoProvider, amina: Browser) -> None:
    assert amina.get("/chart/").status == 403
    user = get_user_model().objects.get()
    user.user_permissions.add(Permission.objects.get(codename="view_user"))
    assert step_up(amina, op, "/chart/").location == "/chart/"
    assert amina.get("/chart/").body == "chart ran"
    assert [(each.reason, each.resource) for each in events(action__startswith="access.")] == [
        ("permission_missing", "Patient/7"),
        ("acr_insufficient", "Patient/7"),
        ("", "Patient/7"),
    ]


def test_demand_of_another_session_or_none_of_ours_or_an_old_one_begins_nothing(
    op: DemoProvider, amina: Browser, portal: str
) -> None:
    hers = amina.get("/strong/").location
    jonas = Browser(portal)
    jonas.sign_in(op, "jonas")
    begun = len([request for request in op.requests if request.path == "/authorize"])
    assert [browser.get(url).status for browser, url in ((jonas, hers), (Browser(portal), hers))] == [403, 403]
    assert [amina.get(url).status for url in ("/oidc/step-up/", "/oidc/step-up/?demand=x", hers[:-9])] == [403] * 3
    # Nothing in a request shapes what is asked of the provider.
    assert asked(amina.get(f"{hers}&acr_values={WEAK}&prompt=none"))["acr_values"] == STRONG
    later = clock.now() + timedelta(minutes=11)
    with clock.override_clock(lambda: later):
        assert amina.get(hers).status == 403
    assert len([request for request in op.requests if request.path == "/authorize"]) == begun


def test_two_tabs_step_up_each_to_its_own_page(op: DemoProvider, amina: Browser) -> None:
    first, second = to_provider(amina, "/strong/"), to_provider(amina, "/class/?tab=2")
    for leaving, page in ((second, "/class/?tab=2"), (first, "/strong/")):
        callback = amina.get(op.authorize(leaving.location, "amina", cookies=amina.provider_cookies))
        assert callback.location == page, callback.body
    amina.post("/oidc/logout/")
    assert (len(op.tokens), op.active_tokens) == (6, [])


def test_provider_that_cannot_be_reached_is_told_and_changes_nothing(op: DemoProvider, amina: Browser) -> None:
    callback = op.authorize(to_provider(amina, "/strong/").location, "amina", cookies=amina.provider_cookies)
    before = Before.of(amina, op)
    op.stop()
    try:
        page = amina.get(callback)
    finally:
        op.start()
    assert (page.status, 'href="/strong/"' in page.body) == (503, True)
    assert before.is_now(amina, op)


def test_tokens_that_are_discarded_die_at_a_renewal_too(op: DemoProvider, browser: Browser, settings: Any) -> None:
    provider = {**settings.PHI_OIDC["PROVIDERS"]["default"], "tokens": "discard"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": provider}}
    browser.sign_in(op)
    browser.headers["Accept"] = "text/html"
    assert step_up(browser, op, "/strong/").location == "/strong/"
    assert (len(op.tokens), op.active_tokens) == (4, [])
    row = OIDCSession.objects.get()
    assert (row.ended_at, row.access_token, row.refresh_token, row.acr) == (None, None, None, STRONG)
    assert PendingRevocation.objects.filter(status="done").count() == 4


def test_with_several_providers_the_one_that_vouched_is_asked(
    declare: Declare,  # noqa: F811 -- the fixture
    region: DemoProvider,  # noqa: F811
    browser: Browser,
) -> None:
    sign_in_at(browser, "region", region)
    browser.headers["Accept"] = "text/html"
    leaving = to_provider(browser, "/strong/")
    assert leaving.location.startswith(region.issuer)
    callback = browser.get(region.authorize(leaving.location, "amina", cookies=browser.provider_cookies))
    assert (callback.status, callback.location) == (302, "/strong/"), callback.body
