"""Attacks on availability: floods by a stranger, and a provider that does not answer, must not stop
other users.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from functools import partial
from threading import Event

from django.db import connections

from ...subjects.local_accounts import list_local_account_names
from ..mock_provider import MutableExchange
from .browser import PortalResponse
from .environment import WHOAMI_PATH, AttackEnvironment, advance_clock
from .logout_attacks import (
    create_signed_in_browser,
    create_tampered_logout_token,
    post_logout_token,
)
from .provider_attacks import (
    AttackFunction,
    create_break_glass_account,
    create_csrf_token,
    find_local_login_url,
)
from .tampering import sign_with_foreign_key

FLOOD_SIZE = 60
"""Requests of one sender, all in one minute."""
SENDER_ADDRESS = "203.0.113.77"
OTHER_ADDRESS = "203.0.113.78"
MIN_THREADS = 8
"""Of the attacked server. It has twice as many as the project allows concurrent calls to the
provider, or more.
"""
MAX_ANSWER_SECONDS = 6.0
"""Within this time a page must answer while the provider hangs. The calls to the provider time out
later.
"""
HANG_SECONDS = 60.0


def flood_break_glass_page(environment: AttackEnvironment) -> None:
    """One address sends empty forms of the break-glass account, and the person signs in from
    another address.
    """
    username = next(iter(list_local_account_names()), "")
    url = find_local_login_url(environment)
    if not username:
        environment.skip_attack("there is no break-glass account")
    with environment.override_declaration(), advance_clock(timedelta()):
        password = create_break_glass_account(username)
        for forms in (0, FLOOD_SIZE):
            sender = environment.create_browser(client_address=SENDER_ADDRESS)
            csrf = create_csrf_token(sender)
            for _ in range(forms):
                sender.post(url, username="", password="", csrfmiddlewaretoken=csrf)
            browser = environment.create_browser(client_address=OTHER_ADDRESS)
            csrf = create_csrf_token(browser)
            page = browser.post(url, username=username, password=password, csrfmiddlewaretoken=csrf)
            if forms:
                is_signed_in = environment.find_signed_in_user(browser)
                if not is_signed_in:
                    environment.report_fault(f"the right password is refused: {page.status}")
            else:
                environment.assert_accepted(browser, page)


def flood_callback(environment: AttackEnvironment) -> None:
    """A used callback is requested again and again, with and without its cookies, to fill the audit
    log.
    """
    with environment.override_declaration():
        browser = environment.create_browser()
        callback = browser.get_callback_url(environment.op)
        cookies = dict(browser.cookies)
        environment.assert_accepted(browser, browser.get(callback))
        # The clock is stopped, so that the requests are in one minute.
        with advance_clock(timedelta()):
            for number in range(FLOOD_SIZE):
                sent_cookies = {}
                if number % 2:
                    sent_cookies = dict(cookies)
                page = environment.create_browser(cookies=sent_cookies).get(callback)
                if page.status != 403:
                    environment.report_fault(f"the status is {page.status}")
        events = environment.portal.count_refusals()
        environment.assert_control(events, "a replay is not in the audit log")

        if events > FLOOD_SIZE / 2:
            fault = f"{events} of {FLOOD_SIZE} replays are events"
        else:
            fault = ""

        environment.report_fault(fault)


def rotate_keys_after_invented_kid(environment: AttackEnvironment) -> None:
    """A stranger sends a logout token with an invented kid, then the provider rotates its keys and
    a user signs in.
    """
    for is_sent in (False, True):
        with environment.override_declaration():
            create_signed_in_browser(environment)
            if is_sent:
                token = create_tampered_logout_token(environment, _sign_with_invented_key, None)
                status = post_logout_token(environment, token).status
                if status not in (400, 503):
                    environment.report_fault(f"the status of the token is {status}")
                environment.op.mutate = environment.create_honest_hook()
            environment.op.rotate_keys()
            browser = environment.create_browser()
            page = browser.sign_in(environment.op)
            if is_sent:
                is_signed_in = environment.find_signed_in_user(browser)
                code = environment.portal.find_refusal_code()
                if not is_signed_in:
                    environment.report_fault(f"the sign-in is refused: {page.status}, {code}")
            else:
                environment.assert_accepted(browser, page)


def _sign_with_invented_key(exchange: MutableExchange, value: object) -> None:
    exchange.header["kid"] = "invented"
    sign_with_foreign_key(exchange, True)


def hang_during_sign_ins(environment: AttackEnvironment) -> None:
    """The provider does not answer, and more sign-ins are started than the server has threads."""
    is_hanging = Event()
    is_released = Event()
    threads = max(MIN_THREADS, 2 * environment.declaration.max_concurrent_calls)

    def hang(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "par":
            is_hanging.set()
            is_released.wait(HANG_SECONDS)

    with environment.override_declaration(par="auto"):
        environment.op.par = "offered"
        status = environment.create_browser().start_sign_in().status
        environment.assert_control(status == 302, f"the status of the sign-in is {status}")
        environment.op.intercept = hang
        with ThreadPoolExecutor(threads) as server:
            for _ in range(2 * threads):
                server.submit(_run_request, environment.create_browser().start_sign_in)
            page = server.submit(
                _run_request, partial(environment.create_browser().get, WHOAMI_PATH)
            )
            try:
                if page.result(MAX_ANSWER_SECONDS).status == 200:
                    fault = ""
                else:
                    fault = "another page has an error"
            except TimeoutError:
                fault = f"another page does not answer within {MAX_ANSWER_SECONDS:.0f} seconds"
            finally:
                is_released.set()
        environment.assert_control(is_hanging.is_set(), "the portal did not call the provider")
        environment.report_fault(fault)


def _run_request(request: Callable[[], PortalResponse]) -> PortalResponse:
    """Run the request in a thread of the server, and close the connections of that thread."""
    try:
        return request()
    finally:
        connections.close_all()


AVAILABILITY_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("flood", "forms of the break-glass account"): flood_break_glass_page,
    ("flood", "replays of a callback"): flood_callback,
    ("flood", "invented kid"): rotate_keys_after_invented_kid,
    ("hanging_provider", ""): hang_during_sign_ins,
}
