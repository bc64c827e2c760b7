"""Browsers and networks from which a local account has signed in: their guesses are counted apart."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc import tasks
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import RefusalCount
from django_phi_oidc.audit.request_context import use_origin
from django_phi_oidc.contrib.common.personal_data_sources import PersonalDataExport
from django_phi_oidc.contrib.individual_rights.erasure import erase_person
from django_phi_oidc.contrib.local_accounts.guess_limits import (
    MAX_FIRST_GUESSES,
    MAX_GUESSES_PER_ADDRESS,
    MAX_GUESSES_PER_COMPANY_LINE,
    MAX_GUESSES_PER_HOME_LINE,
    MAX_RUNNING_CHECKS,
    start_guess,
)
from django_phi_oidc.contrib.local_accounts.known_senders import (
    MAX_NETWORKS,
    SENDER_LIFETIME,
    remember_network,
)
from django_phi_oidc.contrib.local_accounts.models import KnownNetwork
from django_phi_oidc.contrib.local_accounts.observers import NETWORK_OBSERVER
from django_phi_oidc.contrib.local_accounts.personal_data import KNOWN_NETWORK_DATA
from django_phi_oidc.extensions import SignIn
from tests.support.officers import create_account
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import NOW, SecureClient
from tests.unit.audit.test_throttling import at_once
from tests.unit.contrib.local_accounts.test_break_glass import (
    PASSWORD,
    Moment,
    account,
    checked_passwords,
    enter,
    moment,
)

__all__ = ["account", "checked_passwords", "moment"]  # fixtures
pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.urls"),
]
COOKIE = "__Host-phi_oidc_local_browser"
HOME, ELSEWHERE, STRANGE = "198.51.100.1", "203.0.113.2", "203.0.113.9"


def client_at(address: str, browser: str = "") -> SecureClient:
    """Return a client without a session. browser: the cookie of a known browser, if any."""
    client = SecureClient(REMOTE_ADDR=address)
    if browser:
        client.cookies[COOKIE] = browser
    return client


@pytest.fixture
def browser() -> str:
    """Sign the account in from HOME, and return the cookie of its browser."""
    client = client_at(HOME)
    assert enter(client).status_code == 302
    return str(client.cookies[COOKIE].value)


def flood(addresses: list[str], *, guesses: int = 1, username: str = "night-desk") -> None:
    for address in addresses * guesses:
        assert enter(client_at(address), username, "wrong").status_code == 403


IPV4 = [f"192.0.2.{number}" for number in range(40)]
FLOODS = {
    "IPv4": IPV4,
    "IPv6 networks of different companies": [f"2001:db8:{number:x}::1" for number in range(1, 41)],
    "both": IPV4[:20] + [f"2001:db8:{number:x}::1" for number in range(1, 21)],
}


@pytest.mark.parametrize("addresses", FLOODS.values(), ids=FLOODS)
def test_s2_known_browser_and_known_network_get_in_during_a_flood(addresses: list[str], browser: str) -> None:
    flood(addresses, guesses=2)
    assert enter(client_at(ELSEWHERE)).status_code == 403, "a stranger, with the correct password"
    assert enter(client_at(ELSEWHERE, browser)).status_code == 302
    assert enter(client_at(HOME)).status_code == 302


def test_s2_home_line_with_many_ipv6_networks_does_not_shut_the_page(checked_passwords: list[str]) -> None:
    flood([f"2001:db8:0:ff{number:02x}::1" for number in range(26)], guesses=2)
    assert len(checked_passwords) == MAX_GUESSES_PER_HOME_LINE
    assert enter(client_at(ELSEWHERE)).status_code == 302


def test_s2_company_line_with_many_ipv6_networks_does_not_shut_the_page(checked_passwords: list[str]) -> None:
    flood([f"2001:db8:0:{number:x}00::1" for number in range(60)], guesses=2)
    assert len(checked_passwords) == MAX_GUESSES_PER_COMPANY_LINE
    assert enter(client_at("2001:db8:1::1")).status_code == 302


def test_s2_guesses_from_one_ipv6_64_are_limited(checked_passwords: list[str]) -> None:
    flood([f"2001:db8:0:1::{number:x}" for number in range(1, 9)])
    assert len(checked_passwords) == MAX_GUESSES_PER_ADDRESS
    assert enter(client_at("2001:db8:0:2::1")).status_code == 302, "another /64 of the same line"


def test_s2_known_network_counts_for_its_account_only(browser: str) -> None:
    create_account("day-desk", password=PASSWORD)
    flood(IPV4)
    assert enter(client_at(HOME), "day-desk").status_code == 403
    assert enter(client_at(HOME)).status_code == 302


def test_s2_known_browser_is_known_for_each_local_account(browser: str) -> None:
    create_account("day-desk", password=PASSWORD)
    flood(IPV4)
    assert enter(client_at(ELSEWHERE), "day-desk").status_code == 403
    assert enter(client_at(ELSEWHERE, browser), "day-desk").status_code == 302


def test_s2_guesses_from_a_known_network_do_not_stop_a_known_browser(browser: str) -> None:
    flood([HOME], guesses=MAX_GUESSES_PER_ADDRESS + 1)
    assert enter(client_at(HOME)).status_code == 403
    assert enter(client_at(HOME, browser)).status_code == 302
    assert enter(client_at(ELSEWHERE)).status_code == 302, "they are no guesses of strangers"


def test_s2_guesses_of_a_known_browser_are_limited(
    browser: str, checked_passwords: list[str], moment: type[Moment]
) -> None:
    checked_passwords.clear()
    for number in range(MAX_GUESSES_PER_ADDRESS + 1):
        assert enter(client_at(f"192.0.2.{number}", browser), password="wrong").status_code == 403
    assert len(checked_passwords) == MAX_GUESSES_PER_ADDRESS
    assert enter(client_at(STRANGE, browser)).status_code == 403
    moment.now += timedelta(minutes=1)
    assert enter(client_at(STRANGE, browser)).status_code == 302


def test_s2_refused_sign_in_makes_no_sender_known() -> None:
    client = client_at(HOME)
    assert enter(client, password="wrong").status_code == 403
    assert COOKIE not in client.cookies
    assert not KnownNetwork.objects.exists()


@pytest.mark.parametrize(
    "forged",
    ["", "browser-of-a-stranger", "A" * 200],
    ids=["empty", "text", "long"],
)
def test_s2_forged_cookie_makes_no_browser_known(forged: str, browser: str) -> None:
    flood(IPV4)
    for value in (forged, browser[:-4] + "AAAA"):
        assert enter(client_at(ELSEWHERE, value)).status_code == 403
    assert enter(client_at(ELSEWHERE, browser)).status_code == 302


def test_s2_cookie_of_another_purpose_makes_no_browser_known(browser: str) -> None:
    flood(IPV4)
    client = client_at(ELSEWHERE)
    client.cookies["__Host-phi_oidc_last_session"] = browser
    assert enter(client).status_code == 403


def test_s2_browser_keeps_its_id(browser: str) -> None:
    client = client_at(ELSEWHERE, browser)
    assert enter(client).status_code == 302
    flood(IPV4)
    for _ in range(MAX_GUESSES_PER_ADDRESS):
        assert enter(client_at(STRANGE, browser), password="wrong").status_code == 403
    assert enter(client_at(STRANGE, client.cookies[COOKIE].value)).status_code == 403


@pytest.mark.parametrize("is_late", [False, True], ids=["in time", "a second late"])
def test_s2_sender_is_forgotten_after_its_lifetime(is_late: bool, browser: str, moment: type[Moment]) -> None:
    moment.now += SENDER_LIFETIME + timedelta(seconds=is_late)
    flood(IPV4)
    expected = 403 if is_late else 302
    assert enter(client_at(HOME)).status_code == expected
    assert enter(client_at(ELSEWHERE, browser)).status_code == expected


def test_s2_unused_networks_are_deleted(browser: str, moment: type[Moment]) -> None:
    for seconds, count in ((0, 1), (1, 0)):
        moment.now = NOW + SENDER_LIFETIME + timedelta(seconds=seconds)
        tasks.prune()
        assert KnownNetwork.objects.count() == count


def test_s2_cookie_is_for_this_host_over_https_and_not_for_scripts(browser: str) -> None:
    client = client_at(ELSEWHERE)
    enter(client)
    cookie = client.cookies[COOKIE]
    assert (cookie["secure"], cookie["httponly"], cookie["samesite"]) == (True, True, "Lax")
    assert cookie["max-age"] == SENDER_LIFETIME.total_seconds()
    assert "night-desk" not in cookie.value


def test_s2_sign_in_succeeds_without_the_encryption_key(settings: Any, browser: str) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    client = client_at(ELSEWHERE, browser)
    assert enter(client).status_code == 302
    assert client.cookies[COOKIE].value == browser, "the cookie is not replaced"


def test_s2_flood_from_new_addresses_adds_no_counters_when_the_share_is_used_up() -> None:
    flood(IPV4)
    counters = RefusalCount.objects.filter(reason="try:break_glass")
    assert counters.filter(network__startswith="192.0.2.").count() == MAX_FIRST_GUESSES < len(IPV4)


def test_s2_strangers_occupy_few_threads_with_password_checks() -> None:
    started = [start_guess("", client_ip=address, now=NOW) for address in IPV4]
    assert [bool(keys) for keys in started[: MAX_RUNNING_CHECKS + 1]] == [True] * MAX_RUNNING_CHECKS + [False]
    assert start_guess("browser x", client_ip=IPV4[0], now=NOW) == ("browser x",)


def test_s2_network_of_a_sign_in_at_the_provider_is_known(account: Any) -> None:
    other = get_user_model()._default_manager.get(username="other-admin")
    for user in (account, other):
        sign_in: Any = SignIn(
            user=user,
            provider=None,  # type: ignore[arg-type]  # the observer does not use it
            subject=None,  # type: ignore[arg-type]  # nor this
            sub="",
            offered_acr_values=(),
            last_seen_at=NOW,
            is_new_link=False,
            now=NOW,
        )
        with use_origin(lambda: Origin(client_ip="2001:db8:5:6:7::8")):
            NETWORK_OBSERVER.record_sign_in(sign_in, get_device=lambda: "")
    assert list(KnownNetwork.objects.values_list("network", "user")) == [("2001:db8:5:6::/64", account.pk)]
    flood(IPV4)
    assert enter(client_at("2001:db8:5:6::9")).status_code == 302


def test_s2_sender_without_an_address_is_a_stranger(account: Any) -> None:
    remember_network(account, client_ip="", now=NOW)
    assert not KnownNetwork.objects.exists()


def test_s2_least_recently_used_network_is_forgotten(account: Any) -> None:
    for number in range(MAX_NETWORKS + 1):
        remember_network(account, client_ip=f"192.0.2.{number}", now=NOW + timedelta(seconds=number))
    remember_network(account, client_ip="192.0.2.1", now=NOW + timedelta(minutes=1))
    networks = KnownNetwork.objects.order_by("last_used_at").values_list("network", flat=True)
    assert list(networks) == [*(f"192.0.2.{number}" for number in range(2, MAX_NETWORKS + 1)), "192.0.2.1"]


def test_s2_known_networks_are_exported_and_erased_with_the_person(account: Any, browser: str) -> None:
    other = get_user_model()._default_manager.get(username="other-admin")
    remember_network(other, client_ip=HOME, now=NOW)
    export = PersonalDataExport(user=account, subjects=[], hides_suspensions=False, unreadable_items=[])
    network = {"network": HOME, "last_used_at": NOW.isoformat(timespec="seconds")}
    assert KNOWN_NETWORK_DATA.export_account(export) == {"networks": [network]}
    erase_person(account, [], origin=Origin(), now=NOW)
    assert [row.user for row in KnownNetwork.objects.all()] == [other]


@pytest.mark.parametrize("username", ["night-desk", "other-admin", "unknown"])
def test_s2_same_statements_for_each_user_name(username: str, browser: str) -> None:
    flood(IPV4)
    with CaptureQueriesContext(connections["default"]) as queries:
        assert enter(client_at(STRANGE), username, "wrong").status_code == 403
    kinds = [query["sql"].split()[0] for query in queries]
    assert kinds[:2] == ["SELECT", "SELECT"], "the known networks and the counters"
    assert not [query for query in queries if 'FROM "auth_user"' in query["sql"]]


def test_s2_concurrent_guesses_of_strangers_do_not_exceed_the_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = iter(IPV4)
    limits = "django_phi_oidc.contrib.local_accounts.guess_limits"

    def guess() -> bool:
        return bool(start_guess("", client_ip=next(addresses), now=Moment.now))

    assert sum(at_once(guess)) <= MAX_RUNNING_CHECKS
    monkeypatch.setattr(f"{limits}.MAX_RUNNING_CHECKS", 100)
    monkeypatch.setattr(f"{limits}.MAX_FIRST_GUESSES", 3)
    Moment.now = NOW + timedelta(minutes=1)
    assert sum(at_once(guess)) == 3


def test_s2_check_that_fails_leaves_its_place_to_another(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, raw: str) -> bool:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(get_user_model(), "check_password", fail)
        for address in IPV4[: MAX_RUNNING_CHECKS + 1]:
            with pytest.raises(RuntimeError):
                enter(client_at(address))
    assert enter(client_at(STRANGE)).status_code == 302
