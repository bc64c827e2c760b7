"""The end of a session in Chromium, on pages of the example portal and under their content security policy."""

import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit
from wsgiref.simple_server import make_server

import pytest
from django.conf import settings as django_settings
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.sessions.lifecycle import end_session
from django_phi_oidc.sessions.models import EndReason, OIDCSession
from tests.support.accessibility import faults
from tests.support.example_portal import EXAMPLE
from tests.support.external_tools import CHROMIUM, PARTS
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_process import Quiet, Server
from tests.support.session_fixtures import (
    NOW,
    ScriptedOP,
    SignedIn,
    answering,
    declare,
    django_session_exists,
    events,
    id_token,
    send,
)

pytestmark = [
    pytest.mark.browser,
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.support.session_pages_urls"),
]
IDLE, ABSOLUTE, MINUTE, SECOND = timedelta(minutes=15), timedelta(hours=8), timedelta(minutes=1), timedelta(seconds=1)
KEPT = """addEventListener("pageshow", ({ persisted }) => {
  if (persisted) {
    console.info(`kept ${getComputedStyle(document.documentElement).display}`);
  }
})"""
LEFT = """new MutationObserver(() => {
  const { textContent } = document.documentElement;
  console.info(`left ${textContent}, ${document.querySelectorAll("body *").length} elements`);
}).observe(document.documentElement, { childList: true })"""
EXPECTED = re.compile(r"status of 401|favicon\.ico|net::ERR_FAILED|^(kept|left|Clear-Site-Data) ")
"""Console messages that do not fail a test."""
FILES = ("/static/", "/favicon.ico")
COOKIE = django_settings.SESSION_COOKIE_NAME


class Moment:
    """The time of the server and of the pages."""

    def __init__(self) -> None:
        self.now = NOW

    def sleep(self, elapsed: timedelta, page: Any) -> None:
        """Advance the time, for the server and for the browser of the page, as if its machine had slept."""
        self.now += elapsed
        page.clock.fast_forward(int(elapsed.total_seconds() * 1000))

    def advance(self, elapsed: timedelta, page: Any) -> None:
        """Advance the time, for the server and for the browser of the page, and run the timers of its pages."""
        self.now += elapsed
        page.clock.run_for(int(elapsed.total_seconds() * 1000))


@pytest.fixture(autouse=True)
def moment() -> Iterator[Moment]:
    moment = Moment()
    with clock.override_clock(lambda: moment.now):
        yield moment


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Start Chromium with the back/forward cache, which playwright turns off by default."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only installed where the marker permits the test

    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        browser = playwright.chromium.launch(
            executable_path=PARTS["browser"]().where,
            args=list(CHROMIUM),
            ignore_default_args=["--disable-back-forward-cache"],
        )
        yield browser
        browser.close()
        # Django has separate connections inside playwright's event loop. They can only be closed here.
        connections.close_all()


@pytest.fixture
def site(settings: Any) -> Iterator[str]:
    """Serve the portal, and yield the base URL."""
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.LOGIN_URL = "oidc_authentication_init"
    settings.LOGIN_REDIRECT_URL, settings.LOGOUT_REDIRECT_URL = "portal", "home"
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "DIRS": [EXAMPLE / "portal" / "templates"]}]
    settings.MIDDLEWARE = ["portal.headers.content_security_policy", *settings.MIDDLEWARE]
    portal = WSGIHandler()

    def serve(environ: Any, start_response: Any) -> Any:
        if environ["PATH_INFO"].startswith(FILES):
            # In production, Django does not serve these. Chromium requests the icon at any time: that is no activity.
            environ.pop("HTTP_COOKIE", None)
        return portal(environ, start_response)

    server = make_server("127.0.0.1", 0, serve, Server, Quiet)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


Browse = Callable[..., Any]


@pytest.fixture
def browse(chromium: Any, site: str, op: ScriptedOP) -> Iterator[Browse]:
    """Return a function that opens a browser, as a user if given. Unexpected console messages fail the test."""
    contexts, console = [], []

    def open_browser(signed_in: SignedIn | None = None, **options: Any) -> Any:
        context = chromium.new_context(base_url=site, **options)
        contexts.append(context)
        context.set_default_timeout(10_000)
        context.on("console", lambda message: console.append(f"{message.text} {message.location['url']}"))
        context.on("weberror", lambda error: console.append(str(error.error)))
        if signed_in:
            context.add_cookies([{"name": COOKIE, "value": signed_in.django_key, "url": site}])
        return context

    yield open_browser
    for context in contexts:
        context.close()
    assert [message for message in console if not EXPECTED.search(message)] == []


def open_page(context: Any, path: str = "/chart/") -> Any:
    """Open a page in the browser. Its clock only moves when the test moves it."""
    if not context.pages:
        context.clock.install(time=NOW)
        context.clock.pause_at(NOW + MINUTE)
    page = context.new_page()
    page.goto(path)
    return page


def until(page: Any, condition: Callable[[], bool]) -> None:
    """Run the browser until the condition is true. Raises: AssertionError after 5 seconds."""
    ends_at = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < ends_at, "It did not happen in time."
        page.wait_for_timeout(10)


class HeldRequests:
    """Requests of a page that are not sent before the test releases them."""

    def __init__(self, page: Any, url: str) -> None:
        self.page = page
        self.routes: list[Any] = []
        page.route(url, self._hold)

    def _hold(self, route: Any) -> None:
        self.routes.append(route)

    def release(self) -> None:
        """Wait for the first request, and send it."""
        until(self.page, lambda: bool(self.routes))
        self.routes[0].continue_()


def heading_after_blanking(page: Any, end: Callable[[], None]) -> str:
    """Call end, check that the page was blanked before it was left, and return the heading of the next page."""
    page.evaluate(LEFT)
    with page.expect_console_message(lambda message: message.text.startswith("left")) as message:
        end()
    assert message.value.text == "left Signed out, 0 elements"
    page.wait_for_url("**/oidc/logged-out/?expired=1")
    return str(page.inner_text("h1"))


def is_hidden(page: Any) -> bool:
    return bool(page.evaluate("getComputedStyle(document.documentElement).display === 'none'"))


def warning(page: Any) -> Any:
    return page.get_by_role("alertdialog", name="Are you still there?")


def seconds_left(page: Any) -> int:
    """Return the seconds that the warning shows."""
    minutes, seconds = page.get_by_role("timer").inner_text().removeprefix("Time left: ").split(":")
    return int(minutes) * 60 + int(seconds)


def wait_for_warning(page: Any, moment: Moment) -> None:
    """Advance to a minute before the limit, when the page asks the server, and one second more."""
    with page.expect_response("**/oidc/session/"):
        moment.advance(IDLE - MINUTE, page)
    moment.advance(SECOND, page)
    warning(page).wait_for()


def test_warning_appears_a_minute_before_the_limit_and_at_the_limit_the_page_blanks(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    signed_in = sign_in()
    page = open_page(browse(signed_in), "/portal/")
    moment.advance(IDLE - MINUTE - 2 * SECOND, page)
    assert warning(page).count() == 0
    with page.expect_request("**/oidc/session/") as request:
        moment.advance(2 * SECOND, page)
    assert (request.value.method, request.value.headers["x-phi-passive"]) == ("GET", "1")
    moment.advance(SECOND, page)
    warning(page).wait_for()
    assert seconds_left(page) in (59, 60)
    moment.advance(30 * SECOND, page)
    assert seconds_left(page) in (29, 30, 31)
    assert heading_after_blanking(page, lambda: moment.advance(32 * SECOND, page)) == "You are signed out"
    assert "you were inactive for a while" in page.inner_text("main")
    assert OIDCSession.objects.get().end_reason == "idle_timeout"
    assert not django_session_exists(signed_in.django_key)


@pytest.mark.parametrize("key", ["click", "Enter", "Escape"])
def test_answered_warning_extends_the_session_and_restores_the_focus(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment, key: str
) -> None:
    page = open_page(browse(sign_in()))
    page.fill("input", "half a sentence")
    wait_for_warning(page, moment)
    assert page.evaluate("document.activeElement.textContent") == "Stay signed in"
    with page.expect_response("**/oidc/session/") as answered:
        if key == "click":
            page.click("text=Stay signed in")
        else:
            page.keyboard.press(key)
    assert (answered.value.request.method, answered.value.status) == ("POST", 200)
    warning(page).wait_for(state="hidden")
    assert OIDCSession.objects.get().last_seen_at == moment.now
    assert page.evaluate("document.activeElement.value") == "half a sentence"
    moment.advance(IDLE - MINUTE - 2 * SECOND, page)
    assert warning(page).count() == 0
    with page.expect_response("**/oidc/session/"):
        moment.advance(3 * SECOND, page)
    moment.advance(SECOND, page)
    warning(page).wait_for()


def test_warning_can_be_answered_after_a_sign_in_changed_the_csrf_token(
    browse: Browse, site: str, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    context = browse(sign_in())
    page = open_page(context)
    context.add_cookies([{"name": "csrftoken", "value": "x" * 32, "url": site}])
    wait_for_warning(page, moment)
    page.click("text=Stay signed in")
    warning(page).wait_for(state="hidden")
    assert OIDCSession.objects.get().last_seen_at == moment.now


def test_warning_is_not_shown_when_the_page_sent_requests(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    page = open_page(browse(sign_in()))
    moment.advance(10 * MINUTE, page)
    page.evaluate("fetch('/chart/')")
    until(page, lambda: OIDCSession.objects.get().last_seen_at == moment.now)
    with page.expect_response("**/oidc/session/"):
        moment.advance(4 * MINUTE, page)
    moment.advance(2 * MINUTE, page)
    assert warning(page).count() == 0
    assert not is_hidden(page)


def test_warning_before_the_absolute_limit_offers_no_extension(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    signed_in = sign_in()
    context = browse(signed_in)
    client = signed_in.client()
    while moment.now < NOW + ABSOLUTE - 10 * MINUTE:
        moment.now += 10 * MINUTE
        assert client.get("/chart/", secure=False).status_code == 200
    page = open_page(context)
    with page.expect_response("**/oidc/session/"):
        moment.advance(9 * MINUTE, page)
    moment.advance(SECOND, page)
    last = page.get_by_role("alertdialog", name="Your session is about to end")
    last.wait_for()
    page.keyboard.press("Enter")
    last.wait_for(state="hidden")
    moment.advance(30 * SECOND, page)
    assert last.count() == 0
    assert heading_after_blanking(page, lambda: moment.advance(32 * SECOND, page)) == "You are signed out"
    assert OIDCSession.objects.get().end_reason == "absolute_timeout"


def test_warning_answered_without_a_network_shows_an_error_and_the_page_blanks_at_the_limit(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    page = open_page(browse(sign_in()))
    wait_for_warning(page, moment)
    page.route("**/oidc/session/", lambda route: route.abort())
    page.click("text=Stay signed in")
    page.get_by_role("alert").get_by_text("That did not work.").wait_for()
    assert warning(page).is_visible()
    assert heading_after_blanking(page, lambda: moment.advance(MINUTE + 2 * SECOND, page)) == "You are signed out"


def test_page_with_a_beforeunload_question_does_not_ask_it_at_the_limit(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    page = open_page(browse(sign_in()))
    page.evaluate("addEventListener('beforeunload', (event) => event.preventDefault())")
    page.fill("input", "half a sentence")
    page.keyboard.press("Tab")
    questions: list[str] = []

    def answer(dialog: Any) -> None:
        questions.append(dialog.type)
        dialog.accept()

    page.on("dialog", answer)
    assert heading_after_blanking(page, lambda: moment.sleep(IDLE, page)) == "You are signed out"
    assert questions == []


def test_page_is_hidden_when_the_machine_wakes_after_the_limit(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    page = open_page(browse(sign_in()))
    asked = HeldRequests(page, "**/oidc/session/")
    moment.sleep(IDLE, page)
    assert is_hidden(page), "before the server answers"
    assert heading_after_blanking(page, asked.release) == "You are signed out"


def test_page_is_shown_again_after_a_short_sleep_when_the_server_confirms_the_session(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    page = open_page(browse(sign_in()))
    page.fill("input", "half a sentence")
    asked = HeldRequests(page, "**/oidc/session/")
    moment.sleep(5 * MINUTE, page)
    assert is_hidden(page), "before the server answers"
    asked.release()
    until(page, lambda: not is_hidden(page))
    assert page.input_value("input") == "half a sentence"


def test_setting_the_clock_of_the_machine_back_does_not_extend_the_session(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    page = open_page(browse(sign_in()))
    page.evaluate("(now => { Date.now = () => now() - 3_600_000 })(Date.now)")
    wait_for_warning(page, moment)
    assert heading_after_blanking(page, lambda: moment.advance(MINUTE + 2 * SECOND, page)) == "You are signed out"


def test_tab_that_becomes_visible_asks_for_the_state_of_its_session(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    signed_in = sign_in()
    page = open_page(browse(signed_in))

    def become_visible() -> None:
        # In headless mode, all tabs are always visible.
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")

    with page.expect_response("**/oidc/session/") as answered:
        become_visible()
    assert answered.value.status == 200
    end_session(signed_in.session.pk, EndReason.BACKCHANNEL_LOGOUT, origin=Origin(), now=moment.now)
    assert heading_after_blanking(page, become_visible) == "You are signed out"


def test_tabs_share_the_time_left(browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment) -> None:
    context = browse(sign_in())
    tabs = [open_page(context), open_page(context)]
    moment.advance(IDLE - MINUTE - 2 * SECOND, tabs[0])
    for _ in range(6):
        # In steps of a second, because the clocks of tabs that send each other the time must not differ by more.
        moment.advance(SECOND, tabs[0])
    for tab in tabs:
        warning(tab).wait_for()
    asked: list[str] = []
    tabs[1].on("request", lambda request: asked.append(request.url))
    tabs[0].click("text=Stay signed in")
    warning(tabs[0]).wait_for(state="hidden")
    tabs[1].clock.run_for(1000)
    warning(tabs[1]).wait_for(state="hidden")
    assert asked == []


def test_all_tabs_end_when_one_of_them_signs_out(
    browse: Browse, op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    context = browse(sign_in(claims={"iss": op.issuer}))
    staying, leaving = open_page(context), context.new_page()
    leaving.goto("/portal/")
    leaving.get_by_role("button", name="Sign out").click()
    leaving.wait_for_url(f"{op.issuer}/end-session?**")
    assert heading_after_blanking(staying, lambda: staying.clock.run_for(2000)) == "You are signed out"


def test_tabs_send_no_requests_when_one_of_them_opens_another_page(
    browse: Browse, sign_in: Callable[..., SignedIn]
) -> None:
    context = browse(sign_in())
    staying, going = open_page(context), context.new_page()
    going.goto("/portal/")
    asked: list[str] = []
    staying.on("request", lambda request: asked.append(request.url))
    going.click("text=See my details")
    going.wait_for_url("**/portal/profile/")
    going.wait_for_timeout(100)
    staying.clock.run_for(3000)
    staying.wait_for_timeout(100)
    assert asked == []


def test_tab_of_one_user_ends_when_another_user_signs_in(
    browse: Browse, site: str, sign_in: Callable[..., SignedIn]
) -> None:
    first, second = sign_in(), sign_in()
    context = browse(first)
    page = open_page(context)
    context.add_cookies([{"name": COOKIE, "value": second.django_key, "url": site}])

    def open_another() -> None:
        assert str(second.user.pk) in open_page(context).inner_text("h1")
        page.clock.run_for(10)

    assert heading_after_blanking(page, open_another) == "You are still signed in"


def back(page: Any) -> list[str]:
    """Go back, and return the display of the page in the back/forward cache, if it was there."""
    console: list[str] = []
    page.on("console", lambda message: console.append(message.text))
    page.evaluate("setTimeout(() => history.back())")
    page.wait_for_timeout(200)
    return [message for message in console if message.startswith("kept")]


@pytest.fixture
def returning(browse: Browse, op: ScriptedOP, sign_in: Callable[..., SignedIn]) -> tuple[SignedIn, Any]:
    """Return a signed-in user, and a page on which the user has viewed a claim."""
    person = sign_in(claims={"iss": op.issuer})
    context = browse(person)
    context.add_init_script(KEPT)
    page = context.new_page()
    page.goto("/record/")
    assert "a value" in page.inner_text("body")
    return person, page


def test_back_to_a_claim_after_the_session_has_ended_shows_nothing(
    returning: tuple[SignedIn, Any], moment: Moment
) -> None:
    person, page = returning
    page.goto("/elsewhere/")
    end_session(person.session.pk, EndReason.BACKCHANNEL_LOGOUT, origin=Origin(), now=moment.now)
    with page.expect_navigation(url="**/oidc/logged-out/?expired=1"):
        assert back(page) == ["kept none"]
    assert page.inner_text("h1") == "You are signed out"


def test_back_to_a_claim_within_the_session_requests_the_page_again(returning: tuple[SignedIn, Any]) -> None:
    _, page = returning
    page.goto("/elsewhere/")
    assert len(events(Action.CLAIM_REVEALED)) == 1
    with page.expect_response("**/record/"):
        assert back(page) == ["kept none"]
    page.wait_for_load_state()
    assert "a value" in page.inner_text("body")
    assert len(events(Action.CLAIM_REVEALED)) == 2


@pytest.mark.parametrize("path", ["/chart/?a=1", "//elsewhere.example/chart/?a=1"])
def test_f3_back_to_a_path_with_two_slashes_stays_at_the_portal(
    browse: Browse, site: str, sign_in: Callable[..., SignedIn], path: str
) -> None:
    context = browse(sign_in())
    context.add_init_script(KEPT)
    page = context.new_page()
    requested: list[str] = []
    page.goto(f"{site}{path}")
    page.goto(f"{site}/elsewhere/")
    context.route("**/*", lambda route: (requested.append(route.request.url), route.continue_()))
    with page.expect_response("**/chart/?a=1"):
        assert back(page) == ["kept none"]
    page.wait_for_load_state()
    assert page.url == f"{site}{path}"
    assert [url for url in requested if not url.startswith(f"{site}/")] == []


@pytest.mark.parametrize("leads_to_the_op", [True, False])
@pytest.mark.parametrize("path", ["/record/", "/portal/profile/"])
def test_back_to_a_claim_after_the_sign_out_shows_nothing(
    op: ScriptedOP, returning: tuple[SignedIn, Any], path: str, leads_to_the_op: bool
) -> None:
    op.metadata["end_session_endpoint"] = f"{op.issuer}/end-session" if leads_to_the_op else None
    _, page = returning
    page.goto("/portal/profile/")
    if path != "/record/":
        page.click("text=Show my details")
        assert page.inner_text("[data-claim=birthdate] dd") == "a value"
    page.get_by_role("button", name="Sign out").click()
    page.wait_for_url(re.compile("/end-session|/logged-out/"))
    for _ in range(2):
        back(page)
        assert "a value" not in page.inner_text("html")


def test_page_without_javascript_is_left_at_the_limit(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment, settings: Any
) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"idle_timeout": SECOND})
    page = browse(sign_in(), java_script_enabled=False).new_page()
    page.goto("/portal/")
    moment.now += SECOND
    page.wait_for_url("**/oidc/logged-out/?expired=1", timeout=4000)
    assert "you were inactive for a while" in page.inner_text("main")
    assert OIDCSession.objects.get().end_reason == "idle_timeout"


def test_logged_out_page_offers_a_sign_out_to_a_signed_in_user(
    browse: Browse, op: ScriptedOP, sign_in: Callable[..., SignedIn]
) -> None:
    op.metadata["end_session_endpoint"] = None
    person = sign_in()
    page = browse(person).new_page()
    page.goto("/oidc/logged-out/")
    assert page.inner_text("h1") == "You are still signed in"
    page.locator("main").get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="You are signed out").wait_for()
    assert not django_session_exists(person.django_key)


@pytest.mark.parametrize("has_script", [True, False])
def test_logout_by_post_goes_to_the_op_and_back(
    browse: Browse, op: ScriptedOP, sign_in: Callable[..., SignedIn], settings: Any, has_script: bool
) -> None:
    declare(settings, op, end_session_method="post", id_token_hint="always")

    def send_back(handler: BaseHTTPRequestHandler) -> None:
        parameters = op.asked[-1]
        if handler.path == "/end-session":
            send(handler, 303, Location=f"{parameters['post_logout_redirect_uri']}?state={quote(parameters['state'])}")
        else:
            send(handler, 200)

    op.answer = send_back
    page = browse(sign_in(claims={"iss": op.issuer, "email": "a@b"}), java_script_enabled=has_script).new_page()
    page.goto("/portal/")
    page.get_by_role("button", name="Sign out").click()
    if not has_script:
        page.get_by_role("button", name="Sign out there too").click()
    page.wait_for_url("**/oidc/logged-out/?state=*")
    assert "your sign-in service has been informed" in page.inner_text("main")
    assert op.asked[-1]["id_token_hint"] == id_token(iss=op.issuer, email="a@b")
    assert COOKIE not in op.headers[-1].get("Cookie", ""), (
        "the OP of this test has the host of the portal, and so its cookies"
    )


@pytest.mark.node
@pytest.mark.parametrize("is_available", [True, False])
def test_b4_page_before_the_logout_at_the_op_is_accessible_and_leads_there_and_back(
    browse: Browse, op: ScriptedOP, sign_in: Callable[..., SignedIn], is_available: bool
) -> None:
    def send_back(handler: BaseHTTPRequestHandler) -> None:
        if handler.path.startswith("/end-session"):
            sent = parse_qs(urlsplit(handler.path).query)
            send(handler, 303, Location=f"{sent['post_logout_redirect_uri'][0]}?state={quote(sent['state'][0])}")
        else:
            send(handler, 200, op.document())

    op.discovery = send_back
    op.answer = answering(200 if is_available else 503)
    page = browse(sign_in(claims={"iss": op.issuer, "email": "a@b"})).new_page()
    page.goto("/portal/")
    page.get_by_role("button", name="Sign out").click()
    page.get_by_role("heading", name="You are signed out here").wait_for()
    assert ("does not respond at the moment" in page.inner_text("main")) is not is_available
    assert faults(page, sure=True) == []
    page.get_by_role("link", name="Sign out there too").click()
    page.wait_for_url("**/oidc/logged-out/?state=*")
    assert "your sign-in service has been informed" in page.inner_text("main")


@pytest.mark.node
def test_warning_is_accessible_and_fits_in_each_width_and_color_scheme(
    browse: Browse, sign_in: Callable[..., SignedIn], moment: Moment
) -> None:
    page = open_page(browse(sign_in()), "/portal/")
    wait_for_warning(page, moment)
    page.route("**/oidc/session/", lambda route: route.abort())
    page.clock.resume()
    assert faults(page, sure=True) == []
    page.click("text=Stay signed in")
    page.get_by_role("alert").get_by_text("That did not work.").wait_for()
    assert faults(page, sure=True) == []


@pytest.mark.node
def test_logged_out_page_is_accessible_and_fits_in_each_width_and_color_scheme(browse: Browse) -> None:
    page = browse().new_page()
    page.goto("/oidc/logged-out/?expired=1")
    assert faults(page, sure=True) == []
