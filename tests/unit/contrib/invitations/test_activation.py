"""The activation page: who may enter a code, how often, and with which result."""

import html
import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from http.cookies import Morsel
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session
from django.core.signals import got_request_exception
from django.db import connections
from django.utils.formats import date_format
from django.utils.timezone import localtime
from django.views.debug import ExceptionReporter

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent, RefusalCount
from django_phi_oidc.audit.throttling import MAX_EVENTS_PER_SENDER, flush_refusal_counts
from django_phi_oidc.contrib.invitations.activation import (
    MAX_CODE_LENGTH,
    MAX_GUESSES_PER_ADDRESS,
    MAX_GUESSES_PER_PERSON,
    ActivationView,
    attach_unlinked_sign_in,
    redirect_to_activation,
)
from django_phi_oidc.contrib.invitations.invitations import (
    create_invitations,
    revoke_activation_codes,
)
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import AccountError, Code, NotProvisioned
from django_phi_oidc.login.code_exchange import VerifiedSignIn
from django_phi_oidc.login.failures import create_sign_in_attempt
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support import databases
from tests.support.audit_outage import audit_database_fails
from tests.support.log_capture import capture_all_logs
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SecureClient
from tests.support.subject_linking import NOW, SUB, at_once, make_user, sign_in

pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.urls"),
]
URL, COOKIE = "/oidc/activate/", "__Host-phi_oidc_activation"
SIGN_IN_URL = "/oidc/authenticate/?next=%2Fportal%2F"
WRONG = "0000-0000-0000-0000"
DAY = timedelta(days=1)
HERE, THERE = "198.51.100.1", "198.51.100.2"


class Moment:
    now = NOW


@pytest.fixture(autouse=True)
def moment() -> Iterator[type[Moment]]:
    Moment.now = NOW
    with clock.override_clock(lambda: Moment.now):
        yield Moment


@pytest.fixture(autouse=True)
def _invitation(settings: Any) -> None:
    declare(settings, provisioning="invitation")


def declare(settings: Any, **options: Any) -> None:
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], **options}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": default}}


@pytest.fixture
def arrive(rf: Any) -> Callable[..., SecureClient]:
    """Return a function that creates a browser after a sign-in of a person without a linked account."""

    def make(sub: str = SUB, *, address: str = HERE, named: str | None = None) -> SecureClient:
        client = SecureClient(REMOTE_ADDR=address)
        cookie = cookie_of(rf, sub, address=address, named=named)
        client.cookies[COOKIE] = cookie.value
        return client

    return make


def cookie_of(
    rf: Any, sub: str = SUB, *, address: str = HERE, named: str | None = None, auth_time: datetime | None = None
) -> Morsel[str]:
    request = rf.get("/oidc/callback/", secure=True, REMOTE_ADDR=address)
    issuer, origin = conf.providers()["default"].issuer, Origin(client_ip=address)
    sign_in = {"provider": "default", "issuer": issuer, "sub": sub, "claims": {}, "origin": origin}
    attach_unlinked_sign_in(request, VerifiedSignIn(**sign_in, auth_time=auth_time))
    attempt = create_sign_in_attempt(ActivationView(), named, stage="callback")
    response = redirect_to_activation(request, NotProvisioned(), attempt, next_url="/portal/")
    assert response is not None
    assert (response.status_code, response["Location"], response["Cache-Control"]) == (302, URL, "no-store")
    cookie: Morsel[str] = response.cookies[COOKIE]
    return cookie


def invited(user: Any) -> str:
    (invitation,) = create_invitations(
        [user.pk],
        provider=conf.providers()["default"],
        key=keyring.get_keys("subject")[0],
        lifetime=14 * DAY,
        origin=Origin(),
        now=clock.now(),
    )
    return invitation.code


def enter(client: SecureClient, code: str = WRONG) -> Any:
    return client.post(URL, {"code": code})


def refusals() -> list[str]:
    """Return the reasons, sorted: the clock is fixed, and events of the same time have no order."""
    return sorted(event.reason for event in AuditEvent.objects.filter(action="activation.refused"))


def body_of(response: Any) -> str:
    """Return the page without its CSRF token and reference."""
    page = re.sub(r'name="csrfmiddlewaretoken" value="\w+"', "", response.content.decode())
    return re.sub(r"<code>[-0-9a-f]{18,36}</code>", "", page)


def linked() -> list[Any]:
    return list(PairwiseSubject.objects.order_by("pk").values_list("user", flat=True))


RESTART = re.compile(r'<a (?:class="button" )?href="([^"]+)">Sign in again</a>')


@pytest.mark.parametrize(("named", "path"), [(None, ""), ("default", "default/")])
def test_f4_sign_in_again_asks_the_provider_for_a_new_authentication(
    arrive: Callable[..., SecureClient], named: str | None, path: str
) -> None:
    (link,) = RESTART.findall(arrive(named=named).get(URL).content.decode())
    assert html.unescape(link) == f"/oidc/{path}authenticate/?next=%2Fportal%2F&prompt=login"


def test_f4_sign_in_again_asks_for_it_when_it_is_too_late_for_the_code(
    arrive: Callable[..., SecureClient], moment: type[Moment]
) -> None:
    client = arrive()
    moment.now += timedelta(minutes=10, seconds=1)
    (link,) = RESTART.findall(enter(client).content.decode())
    assert html.unescape(link) == "/oidc/authenticate/?prompt=login"


def test_f4_page_states_when_the_signed_in_person_authenticated(rf: Any) -> None:
    pages = []
    for auth_time in (NOW - timedelta(hours=3), None):
        client = SecureClient(REMOTE_ADDR=HERE)
        client.cookies[COOKIE] = cookie_of(rf, auth_time=auth_time).value
        pages.append(client.get(URL).content.decode())
    stated, unknown = pages
    shown = date_format(localtime(NOW - timedelta(hours=3)), "SHORT_DATETIME_FORMAT")
    assert f"entered their sign-in details at {shown}." in stated
    assert "entered their sign-in details" not in unknown
    assert SUB not in stated, "a subject identifier is not shown"


def test_valid_code_links_the_person_and_redirects_to_the_sign_in(arrive: Callable[..., SecureClient]) -> None:
    user, client = make_user(), arrive()
    code = invited(user)
    page = client.get(URL)
    assert (page.status_code, page["Cache-Control"], page["Referrer-Policy"]) == (200, "no-store", "same-origin")
    assert 'name="code"' in page.content.decode()
    response = enter(client, code)
    assert (response.status_code, response["Location"], response["Cache-Control"]) == (302, SIGN_IN_URL, "no-store")
    assert linked() == [user.pk]
    assert client.cookies[COOKIE].value == ""
    assert client.cookies[COOKIE]["max-age"] == 0
    assert Session.objects.count() == 0
    assert sign_in(keyring.get_keys("subject"), create_user=None).user == user


def test_cookie_is_encrypted_and_valid_for_this_host_and_ten_minutes(rf: Any) -> None:
    cookie = cookie_of(rf)
    flags = {name: cookie[name] for name in ("secure", "httponly", "samesite", "path", "domain", "max-age")}
    assert flags == {"secure": True, "httponly": True, "samesite": "Lax", "path": "/", "domain": "", "max-age": 600}
    assert SUB not in cookie.value
    assert keyring.decrypt(cookie.value, context=["newcomer", COOKIE]).count(SUB) == 1


def test_sign_in_continues_at_the_named_provider(arrive: Callable[..., SecureClient]) -> None:
    response = enter(arrive(named="default"), invited(make_user()))
    assert response["Location"] == "/oidc/default/authenticate/?next=%2Fportal%2F"


def expired(user: Any) -> str:
    Moment.now = NOW - 14 * DAY
    code = invited(user)
    Moment.now = NOW
    return code


def revoked(user: Any) -> str:
    code = invited(user)
    revoke_activation_codes(ActivationCode.objects.filter(user=user), reason="withdrawn", origin=Origin(), now=NOW)
    return code


def spent(user: Any) -> str:
    code = invited(user)
    ActivationCode.objects.filter(user=user).update(redeemed_at=NOW)
    return code


def inactive(user: Any) -> str:
    code = invited(user)
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    return code


REFUSED: dict[str, Callable[[Any], str]] = {
    "unknown": lambda user: WRONG,
    "expired": expired,
    "revoked": revoked,
    "redeemed": spent,
    "user_inactive": inactive,
}


def test_refusal_reasons_differ_only_in_the_audit_log(
    arrive: Callable[..., SecureClient],
) -> None:
    pages, users = set(), {}
    for reason, make in REFUSED.items():
        users[reason] = make_user()
        code = make(users[reason])
        client = arrive(f"person {reason}")
        response = enter(client, code)
        assert (response.status_code, response["Cache-Control"]) == (403, "no-store")
        assert code not in response.content.decode()
        event = AuditEvent.objects.get(action="activation.refused", reason=reason)
        assert str(event.id) in response.content.decode()
        resource = "" if reason == "unknown" else f"user/{users[reason].pk}"
        recorded = (event.outcome, event.provider, event.resource, event.subject, event.detail)
        assert recorded == ("failure", "default", resource, "", "{}")
        pages.add(body_of(response))
        assert client.get(URL).status_code == 200, "the form may be sent again"
    assert len(pages) == 1
    assert (linked(), refusals()) == ([], sorted(REFUSED))


def test_code_stays_valid_after_a_refusal(arrive: Callable[..., SecureClient]) -> None:
    user, client = make_user(), arrive()
    code = invited(user)
    for wrong in (WRONG, "", f"{code}0", "x" * 5000):
        assert enter(client, wrong).status_code == 403
    assert enter(client, f" {code.lower()} ").status_code == 302
    assert linked() == [user.pk]
    assert len(f" {code} ") < MAX_CODE_LENGTH


def test_log_line_has_the_reference_but_no_code_or_sub(arrive: Callable[..., SecureClient]) -> None:
    client = arrive()
    with capture_all_logs() as log:
        response = enter(client, "5J2R-8WNC-3YPT-6FGA")
    (line,) = (line for line in log.lines if "activation code" in line)
    event = AuditEvent.objects.get(action="activation.refused")
    assert line == (
        "WARNING django_phi_oidc.login: An activation code was refused: "
        f"reason=unknown provider=default reference={event.id}"
    )
    assert not [text for text in ("5J2R", SUB) if text in "\n".join(log.lines) + response.content.decode()]


def test_error_report_hides_the_code_and_the_sub(
    arrive: Callable[..., SecureClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error report, as Django sends it to administrators, contains neither."""
    user, client, reports = make_user(), arrive(), list[str]()
    code = invited(user)
    client.raise_request_exception = False

    def report(request: Any, **kwargs: Any) -> None:
        reporter = ExceptionReporter(request, *sys.exc_info())
        reports.append(reporter.get_traceback_text() + reporter.get_traceback_html())

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("an internal error")

    got_request_exception.connect(report)
    try:
        with monkeypatch.context() as patched:
            patched.setattr("django_phi_oidc.contrib.invitations.activation_redemption.enqueue", fail)
            assert enter(client, code).status_code == 500
    finally:
        got_request_exception.disconnect(report)
    assert "an internal error" in reports[0]
    assert not [text for text in (code, code.replace("-", ""), SUB) if text in reports[0]]
    assert enter(client, code).status_code == 302, "the code is still valid"


def test_page_without_a_sign_in_redirects_and_accepts_no_code() -> None:
    code = invited(make_user())
    client = SecureClient()
    response = client.get(URL)
    assert (response.status_code, response["Location"]) == (302, "/oidc/authenticate/")
    assert enter(client, code).status_code == 403
    assert 'name="code"' not in enter(client, code).content.decode()
    assert (linked(), refusals()) == ([], [])
    client.force_login(make_user())
    assert client.get(URL)["Location"] == "/"


def test_cookie_expires_ten_minutes_after_the_sign_in(
    arrive: Callable[..., SecureClient], moment: type[Moment]
) -> None:
    user = make_user()
    code, late, soon = invited(user), arrive("late"), arrive("soon")
    moment.now += timedelta(seconds=600)
    assert soon.get(URL).status_code == 200
    moment.now += timedelta(seconds=1)
    assert late.get(URL)["Location"] == "/oidc/authenticate/"
    response = enter(late, code)
    assert response.status_code == 403
    assert 'href="/oidc/authenticate/?prompt=login"' in response.content.decode()
    assert linked() == []
    moment.now -= timedelta(seconds=1)
    assert enter(soon, code).status_code == 302


CHANGED: dict[str, dict[str, Any]] = {
    "create": {"provisioning": "create"},
    "existing": {"provisioning": "existing"},
    "another issuer": {"issuer": "https://other.example.test"},
}


@pytest.mark.parametrize("options", CHANGED.values(), ids=CHANGED)
def test_cookie_is_invalid_after_a_change_of_the_provider(
    options: dict[str, Any], arrive: Callable[..., SecureClient], settings: Any
) -> None:
    code, client = invited(make_user()), arrive()
    before = settings.PHI_OIDC
    declare(settings, **options)
    assert enter(client, code).status_code == 403
    assert linked() == []
    settings.PHI_OIDC = before
    assert enter(client, code).status_code == 302


def alter(text: str) -> str:
    return text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:]


FORGED: dict[str, Callable[[str], str]] = {
    "altered": alter,
    "cut": lambda text: text[:-20],
    "not encrypted": lambda text: json.dumps({"provider": "default", "sub": SUB}),
    "of another cookie": lambda text: keyring.encrypt(
        keyring.decrypt(text, context=["newcomer", COOKIE]), context=["pending sign-in", COOKIE]
    ),
    "of another release": lambda text: keyring.encrypt('{"provider": "default"}', context=["newcomer", COOKIE]),
}


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
def test_forged_cookie_is_invalid(forge: Callable[[str], str], arrive: Callable[..., SecureClient]) -> None:
    code, client = invited(make_user()), arrive()
    valid = client.cookies[COOKIE].value
    client.cookies[COOKIE] = forge(valid)
    assert enter(client, code).status_code == 403
    assert linked() == []
    client.cookies[COOKIE] = valid
    assert enter(client, code).status_code == 302


def test_form_requires_a_csrf_token(rf: Any) -> None:
    code, client = invited(make_user()), SecureClient(enforce_csrf_checks=True)
    client.cookies[COOKIE] = cookie_of(rf).value
    token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get(URL).content.decode())
    assert enter(client, code).status_code == 403
    assert (linked(), refusals()) == ([], [])
    assert token
    headers = {"HTTP_REFERER": "https://testserver/oidc/activate/"}
    assert client.post(URL, {"code": code, "csrfmiddlewaretoken": token[1]}, **headers).status_code == 302


SENT = {
    "urlencoded": ("application/x-www-form-urlencoded; charset=utf-7", b"code=+2AA-"),
    "multipart": (
        "multipart/form-data; charset=utf-7; boundary=x",
        b'--x\r\nContent-Disposition: form-data; name="code"\r\n\r\n+2AA-\r\n--x--\r\n',
    ),
}


@pytest.mark.parametrize(("kind", "status"), [("urlencoded", 400), ("multipart", 403)])
def test_invalid_charset_gives_no_code(kind: str, status: int, arrive: Callable[..., SecureClient]) -> None:
    client, (content_type, body) = arrive(), SENT[kind]
    assert client.generic("POST", URL, body, content_type=content_type).status_code == status
    assert refusals() == ["unknown"] * (status == 403)


def test_double_submit_redirects_twice(arrive: Callable[..., SecureClient]) -> None:
    user = make_user()
    code, one, other, stranger = invited(user), arrive(), arrive(), arrive("other")
    assert [enter(client, code).status_code for client in (one, other, stranger)] == [302, 302, 403]
    assert linked() == [user.pk]
    assert refusals() == ["redeemed"] * 2


def test_linked_person_is_redirected_and_the_code_stays_unused(
    arrive: Callable[..., SecureClient],
) -> None:
    client, first = arrive(), make_user()
    sign_in(keyring.get_keys("subject"), create_user=lambda: first)
    code = invited(make_user())
    assert enter(client, code)["Location"] == SIGN_IN_URL
    assert linked() == [first.pk]
    assert refusals() == ["subject_taken"]
    assert ActivationCode.objects.get().redeemed_at is None


def test_missing_subject_key_refuses(arrive: Callable[..., SecureClient], settings: Any) -> None:
    sign_in(keyring.get_keys("subject")[1:], sub="known")
    code, client, before = invited(make_user()), arrive(), settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"subject": before["KEYS"]["subject"][:1]})
    assert enter(client, code).status_code == 403
    assert refusals() == ["subject_key_missing"]
    settings.PHI_OIDC = before
    assert enter(client, code).status_code == 302


def test_only_an_unlinked_sign_in_of_an_inviting_provider_is_redirected(rf: Any, settings: Any) -> None:
    def is_redirected(error: Any = None, **options: str) -> bool:
        declare(settings, **options)
        request = rf.get("/oidc/callback/", secure=True)
        issuer = conf.providers()["default"].issuer
        attach_unlinked_sign_in(
            request, VerifiedSignIn(provider="default", issuer=issuer, sub=SUB, claims={}, origin=Origin())
        )
        attempt = create_sign_in_attempt(ActivationView(), None, stage="callback")
        return redirect_to_activation(request, error or NotProvisioned(), attempt, next_url="") is not None

    assert is_redirected(provisioning="invitation")
    assert not is_redirected(AccountError(Code.USER_INACTIVE), provisioning="invitation")
    assert not is_redirected(provisioning="existing")
    assert not is_redirected(provisioning="create")
    attempt = create_sign_in_attempt(ActivationView(), None, stage="callback")
    assert redirect_to_activation(rf.get("/oidc/callback/"), NotProvisioned(), attempt, next_url="") is None


# Guessing


def test_guesses_are_limited_per_person(arrive: Callable[..., SecureClient], moment: type[Moment]) -> None:
    user = make_user()
    code = invited(user)
    for number in range(MAX_GUESSES_PER_PERSON):
        assert enter(arrive(address=f"198.51.100.{number}")).status_code == 403
    late = enter(arrive(address="198.51.100.99"), code)
    assert (late.status_code, late["Retry-After"]) == (429, "60")
    assert linked() == []
    assert refusals() == ["guessing"] + ["unknown"] * MAX_GUESSES_PER_PERSON
    assert enter(arrive("another", address=THERE)).status_code == 403
    moment.now += timedelta(minutes=1)
    assert enter(arrive(), code).status_code == 302
    assert linked() == [user.pk]


def test_guesses_are_limited_per_address(
    arrive: Callable[..., SecureClient],
) -> None:
    code = invited(make_user())
    for number in range(MAX_GUESSES_PER_ADDRESS):
        assert enter(arrive(f"person {number}")).status_code == 403
    assert enter(arrive("one more"), code).status_code == 429
    assert linked() == []
    assert enter(arrive("one more", address=THERE), code).status_code == 302


def test_guesses_are_limited_in_total(
    arrive: Callable[..., SecureClient], monkeypatch: pytest.MonkeyPatch, moment: type[Moment]
) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.invitations.activation.MAX_GUESSES_TOTAL", 3)
    code = invited(make_user())
    for number in range(3):
        assert enter(arrive(f"person {number}", address=f"198.51.100.{number}")).status_code == 403
    assert enter(arrive(address="198.51.100.99"), code).status_code == 429
    moment.now += timedelta(minutes=1)
    assert enter(arrive(address="198.51.100.99"), code).status_code == 302


def test_guesses_of_one_person_do_not_use_up_the_total_limit(
    arrive: Callable[..., SecureClient], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django_phi_oidc.contrib.invitations.activation.MAX_GUESSES_TOTAL", MAX_GUESSES_PER_PERSON + 1)
    code, flooder = invited(make_user()), arrive()
    statuses = Counter(enter(flooder).status_code for _ in range(MAX_GUESSES_PER_PERSON + 10))
    assert statuses == {403: MAX_GUESSES_PER_PERSON, 429: 10}
    assert enter(arrive("another"), code).status_code == 302, "from the same address"


def test_concurrent_guesses_do_not_exceed_the_limit(arrive: Callable[..., SecureClient]) -> None:
    clients = [arrive() for _ in range(12)]
    statuses = Counter(at_once(*(lambda client=client: enter(client).status_code for client in clients)))
    assert statuses == {403: MAX_GUESSES_PER_PERSON, 429: 12 - MAX_GUESSES_PER_PERSON}


def test_valid_codes_do_not_count_as_guesses(arrive: Callable[..., SecureClient]) -> None:
    for number in range(MAX_GUESSES_PER_ADDRESS + 2):
        assert enter(arrive(f"person {number}"), invited(make_user())).status_code == 302
    assert len(linked()) == MAX_GUESSES_PER_ADDRESS + 2
    tries = RefusalCount.objects.filter(reason__startswith="try:").values_list("count", flat=True)
    assert (len(tries), set(tries)) == (MAX_GUESSES_PER_ADDRESS + 4, {0})


def test_guesses_are_limited_across_processes(arrive: Callable[..., SecureClient], settings: Any) -> None:
    """Guesses in another process count in this one."""
    code, here = invited(make_user()), arrive()
    environment = databases.child_environment(
        os.environ, {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    )
    arguments = [NOW.isoformat(), json.dumps(settings.PHI_OIDC["PROVIDERS"]), THERE, here.cookies[COOKIE].value]
    other = subprocess.Popen(
        [sys.executable, "-m", "tests.unit.contrib.invitations.activation_process", *arguments],
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[4])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with other:
        assert other.stdin
        assert other.stdout
        assert other.stdout.readline() == "ready\n"

        def guess_there() -> int:
            assert other.stdin
            assert other.stdout
            other.stdin.write(f"{WRONG}\n")
            other.stdin.flush()
            return int(other.stdout.readline())

        statuses = []
        for _ in range(MAX_GUESSES_PER_PERSON):
            statuses += [guess_there(), enter(here).status_code]
        other.stdin.close()
    assert statuses == [403] * MAX_GUESSES_PER_PERSON + [429] * MAX_GUESSES_PER_PERSON
    assert enter(here, code).status_code == 429
    assert linked() == []


def test_refusal_events_are_throttled_per_address(
    arrive: Callable[..., SecureClient],
) -> None:
    clients = [arrive(f"person {number}") for number in range(6)]
    for number in range(MAX_EVENTS_PER_SENDER + 4):
        enter(clients[number % 6])
    assert len(refusals()) == MAX_EVENTS_PER_SENDER
    flush_refusal_counts(now=NOW + timedelta(minutes=2))
    summary = AuditEvent.objects.get(action="activation.refused", detail__contains="count")
    assert (summary.reason, summary.client_ip, json.loads(summary.detail)) == ("activation_refused", HERE, {"count": 4})
    (alert,) = AuditEvent.objects.filter(action="alert.raised")
    assert (alert.reason, json.loads(alert.detail)) == ("activation_refused", {"rule": "refusal_burst", "count": 4})
    assert not RefusalCount.objects.exists(), "attempt counts are deleted without an event"


def test_refusal_stays_a_refusal_during_an_audit_outage(arrive: Callable[..., SecureClient]) -> None:
    user, client = make_user(), arrive()
    code = invited(user)
    with audit_database_fails():
        response = enter(client)
        assert response.status_code == 503
        assert 'name="code"' in response.content.decode()
        assert enter(client, code).status_code == 302, "a change, which is stored in the outbox"
    assert linked() == [user.pk]
    assert refusals() == []


def test_limits_are_per_minute_of_the_server_clock(arrive: Callable[..., SecureClient], moment: type[Moment]) -> None:
    moment.now = datetime.combine(NOW.date(), NOW.time(), NOW.tzinfo) + timedelta(seconds=59)
    client = arrive()
    for _ in range(MAX_GUESSES_PER_PERSON):
        enter(client)
    assert enter(client).status_code == 429
    moment.now += timedelta(seconds=1)
    assert enter(client).status_code == 403


def test_asvs_6_3_5_invalid_code_is_notified_to_its_account(arrive: Callable[..., SecureClient]) -> None:
    user = make_user()
    user.email = "ada@example.org"
    user.save()
    code = invited(user)
    assert enter(arrive()).status_code == 403
    assert not AccountNotice.objects.exists(), "a code that is unknown is of no account"
    revoke_activation_codes(ActivationCode.objects.all(), reason="issued", origin=Origin(), now=NOW)
    for _ in range(2):
        assert enter(arrive(), code).status_code == 403
    assert list(AccountNotice.objects.values_list("kind", "user")) == [("code_refused", user.pk)]
