"""A verified e-mail address links a first sign-in to an existing account, once and for a limited time."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.management import call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.contrib.notices.tasks import send_notices
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.integration.journeys.rule_codes import shows
from tests.support.http_browser import Browser
from tests.support.mail_server import mail_server  # noqa: F401 -- a fixture
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)
ADDRESS = "amina.okafor@example.org"
"""Of the person at the provider, which has verified it."""


def declare(settings: Any, op: DemoProvider, *, first_day: int = -1, last_day: int = 30, **options: Any) -> None:
    """Declare the provider with e-mail linking between these days, relative to today."""
    first, last = (clock.now().date() + timedelta(days=days) for days in (first_day, last_day))
    linking = {"accounts_created_before": first.isoformat(), "until": last.isoformat()}
    options = {"provisioning": "existing", "link_verified_email": linking, **options}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}


@pytest.fixture(autouse=True)
def _linking(op: DemoProvider, settings: Any) -> None:
    declare(settings, op)


def create_account(name: str = "record of amina", **fields: Any) -> Any:
    """Create an account from before the migration, with a password that its owner knows."""
    fields = {"email": ADDRESS, "date_joined": clock.now() - timedelta(days=400), **fields}
    return get_user_model().objects.create_user(name, password="a password of the former portal", **fields)


def send(op: DemoProvider, *, userinfo: Mapping[str, Any], id_token: Mapping[str, Any] | None = None) -> None:
    """Change the provider's claims: None removes one."""

    def mutate(endpoint: str, exchange: MutableExchange) -> None:
        changes = {"userinfo": userinfo, "id_token": id_token or {}}.get(endpoint, {})
        claims = exchange.reply.json if endpoint == "userinfo" else exchange.claims
        for name, value in changes.items():
            claims.pop(name, None)
            if value is not None:
                claims[name] = value

    op.mutate = mutate


def refusals() -> list[tuple[str, str]]:
    return [(event.reason, json.loads(event.detail).get("match", "")) for event in events(action="login.refused")]


def links() -> list[dict[str, Any]]:
    return [json.loads(event.detail) for event in events(action="subject.linked")]


@shows("email_match_refused")
def test_verified_address_links_the_account_but_no_privileged_one(
    op: DemoProvider, browser: Browser, portal: str
) -> None:
    user = create_account(is_staff=True)
    assert browser.sign_in(op).status == 403
    assert (browser.user(), refusals(), op.active_tokens) == ("", [("email_match_refused", "privileged")], [])
    assert "email_match_refused" not in browser.get("/oidc/logged-out/").body
    get_user_model().objects.update(is_staff=False)
    assert browser.sign_in(op).status == 302
    assert browser.user() == str(user.pk)
    (event,) = events(action="subject.linked")
    assert (event.resource, event.provider, event.actor) == (f"user/{user.pk}", "default", "")
    assert json.loads(event.detail) == {"created": False, "method": "verified_email"}
    again = Browser(portal)
    assert again.sign_in(op).status == 302
    assert (again.user(), len(links())) == (str(user.pk), 1)


def test_case_of_the_address_is_ignored_and_the_person_gets_a_mail(
    op: DemoProvider, browser: Browser, mail_server: SimpleNamespace
) -> None:
    user = create_account(email="Amina.OKAFOR@Example.org")
    browser.sign_in(op)
    assert browser.user() == str(user.pk)
    assert [notice.kind for notice in AccountNotice.objects.all()] == ["linked"]
    send_notices()
    (mail,) = mail_server.mails
    assert "Subject: A sign-in was added to your account" in mail


def test_former_password_and_sessions_of_the_account_end_with_the_link(
    op: DemoProvider, browser: Browser, settings: Any, client: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS = [*settings.AUTHENTICATION_BACKENDS, "django.contrib.auth.backends.ModelBackend"]
    user, other = create_account(), create_account("another", email="other@example.org")
    credentials = {"username": "record of amina", "password": "a password of the former portal"}
    assert client.login(**credentials)
    former = {settings.SESSION_COOKIE_NAME: client.cookies[settings.SESSION_COOKIE_NAME].value}
    stranger = Browser(browser.base_url, cookies=dict(former))
    assert stranger.user() == str(user.pk)
    browser.sign_in(op)
    assert browser.user() == str(user.pk)
    assert stranger.user() == ""
    assert not client.login(**credentials)
    assert client.login(**{**credentials, "username": "another"})
    assert other.has_usable_password()


@pytest.mark.parametrize(
    ("userinfo", "id_token", "is_linked"),
    [
        ({}, {}, True),
        ({"email_verified": False}, {}, False),
        ({"email_verified": "true"}, {}, False),
        ({"email_verified": 1}, {}, False),
        ({"email_verified": None}, {}, False),
        ({"email": None}, {}, False),
        ({"email": [ADDRESS]}, {}, False),
        ({"email": "amına.okafor@example.org"}, {}, False),
        ({"email": f"{ADDRESS}\0"}, {}, False),
        ({}, {"email": ADDRESS, "email_verified": True}, True),
        ({}, {"email": ADDRESS}, True),
        ({"email": "jonas@example.org"}, {"email": ADDRESS}, False),
        ({"email": "jonas@example.org"}, {"email": ADDRESS, "email_verified": True}, False),
        ({}, {"email_verified": False}, False),
    ],
    ids=repr,
)
def test_only_an_address_that_the_provider_states_as_verified_links(
    op: DemoProvider, browser: Browser, userinfo: dict[str, Any], id_token: dict[str, Any], is_linked: bool
) -> None:
    user = create_account()
    send(op, userinfo=userinfo, id_token=id_token)
    browser.sign_in(op)
    assert browser.user() == (str(user.pk) if is_linked else "")
    assert PairwiseSubject.objects.count() == is_linked


def test_two_accounts_with_the_address_are_refused(op: DemoProvider, browser: Browser) -> None:
    create_account()
    second = create_account("the same", email=ADDRESS.upper(), is_active=False)
    assert browser.sign_in(op).status == 403
    assert refusals() == [("email_match_refused", "ambiguous")]
    second.delete()
    assert browser.sign_in(op).status == 302


REFUSED_ACCOUNTS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "inactive": ("inactive", {"is_active": False}),
    "superuser": ("privileged", {"is_superuser": True}),
    "staff": ("privileged", {"is_staff": True}),
    "created later": ("created_later", {"date_joined": datetime.now(UTC)}),
}


@pytest.mark.parametrize(("match", "fields"), REFUSED_ACCOUNTS.values(), ids=REFUSED_ACCOUNTS)
@pytest.mark.parametrize("provisioning", ["existing", "create"])
def test_account_that_must_not_be_linked_is_refused_and_none_is_created(
    op: DemoProvider, browser: Browser, settings: Any, match: str, fields: dict[str, Any], provisioning: str
) -> None:
    declare(settings, op, provisioning=provisioning)
    create_account(**fields)
    assert browser.sign_in(op).status == 403
    assert (refusals(), links(), op.active_tokens) == ([("email_match_refused", match)], [], [])
    assert get_user_model().objects.count() == 1


def test_account_with_permissions_of_this_package_is_refused_and_another_permission_does_not_matter(
    op: DemoProvider, browser: Browser
) -> None:
    user = create_account()
    user.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    browser.sign_in(op)
    assert refusals() == [("email_match_refused", "privileged")]
    user.user_permissions.set([Permission.objects.get(codename="view_session")])
    browser.sign_in(op)
    assert browser.user() == str(user.pk)


def test_local_account_for_emergencies_is_refused(op: DemoProvider, browser: Browser, settings: Any) -> None:
    settings.AUTHENTICATION_BACKENDS = [
        *settings.AUTHENTICATION_BACKENDS,
        "django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend",
    ]
    create_account("night-desk")
    settings.PHI_OIDC = {**settings.PHI_OIDC, "BREAK_GLASS_ACCOUNTS": ["night-desk"]}
    browser.sign_in(op)
    assert refusals() == [("email_match_refused", "privileged")]


@pytest.mark.parametrize(
    ("first_day", "last_day", "is_in_force"),
    [(-1, 0, True), (-2, -1, False), (1, 2, False), (0, 1, True)],
    ids=["last day", "over", "not yet", "first day"],
)
def test_option_has_an_effect_from_its_first_to_its_last_day(
    op: DemoProvider, browser: Browser, settings: Any, first_day: int, last_day: int, is_in_force: bool
) -> None:
    declare(settings, op, first_day=first_day, last_day=last_day)
    create_account()
    request = browser.start_sign_in()
    (scope,) = parse_qs(urlsplit(request.location).query)["scope"]
    assert ("email" in scope.split()) == is_in_force
    browser.get(op.authorize(request.location, "amina"))
    assert len(links()) == is_in_force
    assert refusals() == ([] if is_in_force else [("not_provisioned", "")])


def test_address_is_neither_stored_nor_reported_nor_given_to_hooks(
    op: DemoProvider, browser: Browser, settings: Any
) -> None:
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Naming"]
    user = create_account(email="")
    get_user_model().objects.update(email=ADDRESS)
    browser.sign_in(op)
    user.refresh_from_db()
    assert user.last_name == "address,birthdate", "the account exists, so update_user is called"
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    assert not [event for event in events(action="claim.overfetched") if "email" in event.detail]
    assert [event.detail for event in events() if ADDRESS in event.detail] == []


@pytest.mark.parametrize("mode", ["scopes", "parameter", "parameter_null"])
def test_each_way_of_requesting_claims_requests_the_address(
    op: DemoProvider, browser: Browser, settings: Any, mode: str
) -> None:
    declare(settings, op, claims_request=mode)
    user = create_account()
    browser.sign_in(op)
    assert browser.user() == str(user.pk)


def test_unlinked_account_is_not_linked_by_its_address_again(
    op: DemoProvider, browser: Browser, settings: Any, portal: str
) -> None:
    user = create_account()
    browser.sign_in(op)
    call_command("phi_oidc", "subject", "unlink", str(PairwiseSubject.objects.get().uuid))
    again = Browser(portal)
    assert again.sign_in(op).status == 403
    assert refusals() == [("email_match_refused", "linked_before")]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "AUDIT": {"resource_ids": "keyed"}}
    assert again.sign_in(op).status == 403
    assert not user.pairwise_subjects.exists()


def test_second_person_with_the_address_is_refused(op: DemoProvider, browser: Browser, portal: str) -> None:
    create_account()
    browser.sign_in(op)
    send(op, userinfo={"email": ADDRESS})
    other = Browser(portal)
    assert other.sign_in(op, "jonas").status == 403
    assert refusals() == [("email_match_refused", "linked_before")]
    assert PairwiseSubject.objects.count() == 1


@pytest.mark.parametrize("provisioning", ["existing", "create", "invitation"])
def test_person_without_an_account_is_provisioned_as_without_the_option(
    op: DemoProvider, browser: Browser, settings: Any, provisioning: str
) -> None:
    declare(settings, op, provisioning=provisioning)
    create_account(email="other@example.org")
    page = browser.sign_in(op)
    assert links() == ([{"created": True}] if provisioning == "create" else [])
    expected = {"existing": (403, ""), "create": (302, "/portal/home/"), "invitation": (302, "/oidc/activate/")}[
        provisioning
    ]
    assert (page.status, page.location) == expected


def test_account_with_a_code_is_linked_by_the_code_only(op: DemoProvider, browser: Browser, settings: Any) -> None:
    declare(settings, op, provisioning="invitation")
    user = create_account()
    call_command("phi_oidc", "subject", "invite", user.get_username())
    assert browser.sign_in(op).location == "/oidc/activate/"
    assert refusals() == [("email_match_refused", "invited")]
    call_command("phi_oidc", "subject", "invite", "--revoke", user.get_username())
    browser.sign_in(op)
    assert browser.user() == str(user.pk)
