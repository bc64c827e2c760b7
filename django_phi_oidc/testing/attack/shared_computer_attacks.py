"""Attacks on the sessions of a browser that several people use, or that another site directs to the
sign-in URL.
"""

import html
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from django.contrib.staticfiles import finders

from ... import conf
from ..._internal import clock
from ..mock_provider import MutableExchange
from .browser import PortalResponse, find_consent_url
from .browser_attacks import get_authorization_parameters
from .environment import GUARDED_PATH, MAX_SIGN_IN_AGE, PORTAL_URL, AttackEnvironment, advance_clock
from .provider_attacks import AttackFunction
from .tampering import tamper_time_claim

SESSION_SCRIPT = "django_phi_oidc/session.js"
_LINK = re.compile(r'href="([^"]*)"')
_PATH_WITHOUT_ORIGIN = re.compile(r"(?<!location\.origin\+)location\.pathname")
_SPACE = re.compile(r"\s+")


def forge_cross_site_login(environment: AttackEnvironment) -> None:
    """Another site sends a signed-in user's browser to the sign-in URL, also with the consent of
    another session.
    """
    with environment.override_declaration():
        attacker = environment.create_browser()
        browser = environment.create_browser()
        environment.assert_accepted(attacker, attacker.sign_in(environment.op, "jonas"))
        user = environment.assert_accepted(browser, browser.sign_in(environment.op))
        session_key = browser.cookies[browser.session_cookie_name]
        foreign_url = find_consent_url(attacker.get(attacker.sign_in_url))
        for url in filter(None, (browser.sign_in_url, foreign_url)):
            page = browser.get(url)
            if not environment.is_portal_url(page.location):
                browser.get(
                    environment.op.authorize(
                        page.location, "amina", cookies=browser.provider_cookies
                    )
                )
            is_same = browser.cookies.get(browser.session_cookie_name) == session_key
            is_same = is_same and environment.find_signed_in_user(browser) == user
            if not is_same:
                environment.report_fault("a link replaces the session")
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        is_replaced = browser.cookies[browser.session_cookie_name] != session_key
        environment.assert_control(
            is_replaced, "the link on the portal's own page does not replace the session"
        )


def sign_in_after_timeout(environment: AttackEnvironment) -> None:
    """After a timeout, the next person at the browser signs in, and the provider still has the
    session of the first.
    """
    if environment.declaration.reauthentication == "never":
        allowing_setting = "reauthentication"
    else:
        allowing_setting = ""
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        with _advance_past_idle_timeout():
            environment.assert_accepted(browser, browser.sign_in(environment.op))
            age = clock.now() - environment.op.last_grant.auth_time
        if age >= timedelta(minutes=1):
            environment.report_fault(
                "the session of the provider suffices", allowing_setting=allowing_setting
            )


def sign_in_after_timeout_with_stale_authentication(environment: AttackEnvironment) -> None:
    """After a timeout, the provider ignores the request for an authentication."""
    if environment.declaration.reauthentication == "verify":
        allowing_setting = ""
    else:
        allowing_setting = "reauthentication"
    for age_seconds in (0, 3600):
        is_stale = age_seconds > 0
        with environment.override_declaration():
            browser = environment.create_browser()
            environment.assert_accepted(browser, browser.sign_in(environment.op))
            environment.op.mutate = _create_auth_time_hook(environment, -age_seconds)
            with _advance_past_idle_timeout():
                page = browser.sign_in(environment.op)
                if is_stale:
                    environment.assert_refused(
                        browser, page, "auth_time_stale", allowing_setting=allowing_setting
                    )
                else:
                    environment.assert_accepted(browser, page)


def _advance_past_idle_timeout() -> AbstractContextManager[None]:
    # A whole second, as in auth_time: the clock stands still, and the project may declare no
    # leeway.
    later = (clock.now() + conf.idle_timeout() + timedelta(minutes=2)).replace(microsecond=0)
    return clock.override_clock(lambda: later)


def _create_auth_time_hook(
    environment: AttackEnvironment, seconds: int
) -> Callable[[str, MutableExchange], None]:
    honest_hook = environment.create_honest_hook()
    tamper = tamper_time_claim("auth_time")

    def hook(endpoint: str, exchange: MutableExchange) -> None:
        honest_hook(endpoint, exchange)
        if endpoint == "id_token":
            tamper(exchange, seconds)

    return hook


def sign_in_again_after_refusal(environment: AttackEnvironment) -> None:
    """The provider still has the session of a person without an account: "Sign in again" must not
    repeat it.
    """
    if environment.declaration.reauthentication == "never":
        allowing_setting = "reauthentication"
    else:
        allowing_setting = ""

    accounts = environment.op.state.accounts
    accounts["unlinked"] = replace(accounts["amina"], username="unlinked")
    for provisioning in ("invitation", "existing"):
        with environment.override_declaration(provisioning=provisioning):
            browser = environment.create_browser()
            page = browser.sign_in(environment.op, "unlinked")
            if page.location:
                page = browser.get(page.location)
            urls = _list_sign_in_links(page, sign_in_url=browser.sign_in_url)
            environment.assert_control(
                urls, f"the page of {provisioning!r} has no link to sign in again"
            )

            # One link must ask for a new sign-in: others may be in the layout of the project.
            prompts = set()
            for url in urls:
                parameters = get_authorization_parameters(environment, browser.get(url))
                prompts.update(parameters.get("prompt", "").split())
            if prompts.isdisjoint({"login", "select_account"}):
                environment.report_fault(
                    f"the page of {provisioning!r} repeats the sign-in",
                    allowing_setting=allowing_setting,
                )


def _list_sign_in_links(page: PortalResponse, *, sign_in_url: str) -> list[str]:
    urls = []
    for escaped_url in _LINK.findall(page.body):
        url = html.unescape(escaped_url)
        if urlsplit(url).path == sign_in_url:
            urls.append(url)
    return urls


def return_from_step_up(environment: AttackEnvironment) -> None:
    """A page requires a step-up, and as the place to return to, its path `//evil.example/` would
    name another host.
    """
    with environment.override_declaration():
        browser = environment.create_browser(headers={"accept": "text/html"})
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        url = f"{PORTAL_URL}{GUARDED_PATH}"
        environment.assert_control(
            browser.get(url).status == 200, "the page does not open after a sign-in"
        )
        with advance_clock(MAX_SIGN_IN_AGE + timedelta(seconds=5)):
            page = browser.get(browser.get(url).location)
            environment.assert_control(page.status == 302, "the page does not require a step-up")
            page = browser.get(environment.op.authorize(page.location, "amina"))
            is_portal = environment.is_portal_url(page.location)
            if not is_portal:
                environment.report_fault("the step-up leads to another host")
            environment.assert_control(
                browser.get(page.location).status == 200, "the step-up does not open the page"
            )


def go_back_to_another_host(environment: AttackEnvironment) -> None:
    """After a page at `https://portal//evil.example/`, the Back button leads there: the script must
    name the origin.

    No script is run: its source is searched for the path without the origin.
    """
    path = finders.find(SESSION_SCRIPT)
    if not path:
        environment.skip_attack("the project does not serve the script of session timeouts")
    source = _SPACE.sub("", Path(str(path)).read_text())
    environment.assert_control(
        "location.replace(" in source, "the script of session timeouts is not found"
    )
    is_faulty = _PATH_WITHOUT_ORIGIN.search(source)
    if is_faulty:
        environment.report_fault("the script goes to a path without the origin")


SHARED_COMPUTER_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("cross_site_login", ""): forge_cross_site_login,
    ("shared_computer", "after a timeout"): sign_in_after_timeout,
    ("auth_time_stale", "after a timeout"): sign_in_after_timeout_with_stale_authentication,
    ("shared_computer", "sign in again"): sign_in_again_after_refusal,
    ("shared_computer", "return from a step-up"): return_from_step_up,
    ("shared_computer", "back"): go_back_to_another_host,
}
