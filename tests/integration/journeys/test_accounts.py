"""Accounts of sign-ins: creation, matching, refusals, pending sign-ins and redirect targets."""

import json
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.sessions.models import Session

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import EndReason, OIDCSession
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.rule_codes import shows
from tests.support.http_browser import Browser
from tests.support.log_capture import capture_all_logs
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)


def test_first_sign_in_creates_an_opaque_account(op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    user = get_user_model().objects.get()
    assert user.get_username().startswith("phi_")
    assert len(user.get_username()) == 30
    assert (user.email, user.first_name, user.last_name) == ("", "", "")
    assert not user.has_usable_password()
    subject = PairwiseSubject.objects.get()
    assert (subject.user, subject.issuer) == (user, op.issuer)
    assert SubjectDigest.objects.filter(subject=subject).count() == 2
    (linked,) = events(action="subject.linked")
    assert linked.subject == str(subject.uuid)
    sub = op.get_subject("amina", "portal")
    assert not SubjectDigest.objects.filter(digest__contains=sub).exists()


def test_returning_person_gets_the_same_account(op: DemoProvider, browser: Browser, portal: str) -> None:
    browser.sign_in(op)
    again, other = Browser(portal), Browser(portal)
    again.sign_in(op)
    other.sign_in(op, "jonas")
    assert browser.user() == again.user() != other.user() != ""
    assert get_user_model().objects.count() == 2


def test_account_is_not_matched_by_email(op: DemoProvider, browser: Browser, portal: str) -> None:
    get_user_model().objects.create_user("other", email="amina.okafor@example.org")
    browser.sign_in(op)
    assert get_user_model().objects.get(pk=browser.user()).get_username() != "other"


def test_session_of_a_deactivated_user_ends_at_the_next_request(op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    user = get_user_model().objects.get(pk=browser.user())
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    assert browser.user() == ""
    assert browser.get("/portal/home/").status == 302


@shows("user_inactive")
def test_deactivated_user_is_refused_and_the_tokens_are_revoked(
    op: DemoProvider, browser: Browser, portal: str
) -> None:
    assert browser.sign_in(op).status == 302
    get_user_model().objects.update(is_active=False)
    before = len(op.active_tokens)
    page = Browser(portal).sign_in(op)
    assert page.status == 403
    assert [event.reason for event in events(action="login.refused")] == ["user_inactive"]
    assert len(op.active_tokens) == before


@shows("not_provisioned")
def test_sign_in_refused_by_the_backend_revokes_the_tokens(op: DemoProvider, settings: Any, browser: Browser) -> None:
    configured = settings.AUTHENTICATION_BACKENDS
    settings.AUTHENTICATION_BACKENDS = ["tests.integration.journeys.authentication_backends.Refusing"]
    assert browser.sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["not_provisioned"]
    assert op.tokens != []
    assert op.active_tokens == []
    settings.AUTHENTICATION_BACKENDS = configured
    assert browser.sign_in(op).status == 302
    assert len(op.active_tokens) == 2


@shows("subject_altered")
def test_f7_writer_to_the_database_cannot_sign_in_as_another_person(
    op: DemoProvider, browser: Browser, portal: str
) -> None:
    victim, attacker = Browser(portal), browser
    victim.sign_in(op)
    attacker.sign_in(op, "jonas")
    victim_pk, attacker_pk = victim.user(), attacker.user()
    before = len(op.active_tokens)
    PairwiseSubject.objects.filter(user=attacker_pk).update(user=victim_pk)
    again = Browser(portal)
    assert again.sign_in(op, "jonas").status == 403
    assert again.user() == ""
    assert [event.reason for event in events(action="login.refused")] == ["subject_altered"]
    assert len(op.active_tokens) == before
    assert Browser(portal).sign_in(op).status == 302, "the link of the victim is unchanged"


def test_f7_writer_to_the_database_cannot_move_a_digest(op: DemoProvider, browser: Browser, portal: str) -> None:
    Browser(portal).sign_in(op)
    browser.sign_in(op, "jonas")
    first, second = PairwiseSubject.objects.order_by("pk")
    SubjectDigest.objects.filter(subject=second).update(subject=first)
    assert Browser(portal).sign_in(op, "jonas").status == 403
    assert [event.reason for event in events(action="login.refused")] == ["subject_altered"]


HOOKS = "tests.integration.journeys.authentication_backends"


@shows("account_not_saved")
def test_f1_exception_of_a_hook_refuses_the_sign_in_with_its_own_code(
    op: DemoProvider, settings: Any, browser: Browser, portal: str
) -> None:
    configured = settings.AUTHENTICATION_BACKENDS
    settings.AUTHENTICATION_BACKENDS = [f"{HOOKS}.RaisingHooks"]
    with capture_all_logs() as log:
        assert browser.sign_in(op).status == 403
    assert (browser.user(), get_user_model().objects.count(), op.active_tokens) == ("", 0, [])
    settings.AUTHENTICATION_BACKENDS = configured
    assert browser.sign_in(op).status == 302
    settings.AUTHENTICATION_BACKENDS = [f"{HOOKS}.RaisingHooks"]
    returning = Browser(portal)
    assert returning.sign_in(op).status == 403
    assert returning.user() == ""
    assert len(op.active_tokens) == 2, "those of the accepted sign-in"
    assert [(event.reason, event.outcome) for event in events(action="login.refused")] == [
        ("account_not_saved", "failure")
    ] * 2
    (line,) = [line for line in log.lines if "An account was not saved" in line]
    assert "RuntimeError" in line
    assert "in create_user" in line
    assert "1984" not in line


@pytest.mark.parametrize(
    ("backend", "code"), [("Vetoing", "not_provisioned"), ("BreakingTransaction", "account_not_saved")]
)
def test_f1_hook_may_refuse_a_person_and_may_break_the_transaction(
    backend: str, code: str, op: DemoProvider, settings: Any, browser: Browser
) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{HOOKS}.{backend}"]
    assert browser.sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == [code]
    assert (get_user_model().objects.count(), op.active_tokens) == (0, [])


@pytest.mark.parametrize("backend", ["HalfUpdating", "Forgetting"])
def test_f1_refused_update_of_an_account_changes_nothing(
    backend: str, op: DemoProvider, settings: Any, browser: Browser, portal: str
) -> None:
    browser.sign_in(op)
    settings.AUTHENTICATION_BACKENDS = [f"{HOOKS}.{backend}"]
    assert Browser(portal).sign_in(op).status == 403
    assert [event.reason for event in events(action="login.refused")] == ["account_not_saved"]
    assert get_user_model().objects.get().last_name == ""


def claims_in_account() -> list[list[str]]:
    """Return the claims of each event about claims in columns of an account."""
    details = [json.loads(event.detail) for event in events(action="claim.stored")]
    return [detail["claims"] for detail in details if detail.get("place") == "account"]


def test_f1_claim_that_a_hook_copies_into_the_account_is_named_in_the_audit_log(
    op: DemoProvider, settings: Any, browser: Browser, portal: str
) -> None:
    settings.AUTHENTICATION_BACKENDS = [f"{HOOKS}.Copying"]
    browser.sign_in(op)
    assert claims_in_account() == [], "the first sign-in does not update the account"
    Browser(portal).sign_in(op)
    assert claims_in_account() == [["birthdate"]]
    assert get_user_model().objects.get().last_name == "born 1984-03-09"
    settings.AUTHENTICATION_BACKENDS = ["django_phi_oidc.backends.OIDCAuthenticationBackend"]
    Browser(portal).sign_in(op)
    assert claims_in_account() == [["birthdate"]], "without a hook, nothing copies claims"


@shows("subject_key_missing")
def test_digest_of_an_unknown_key_refuses_only_first_sign_ins(
    op: DemoProvider, settings: Any, browser: Browser, portal: str
) -> None:
    browser.sign_in(op)
    all_keys = settings.PHI_OIDC["KEYS"]["subject"]
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": all_keys[:1]})
    assert Browser(portal).sign_in(op, "jonas").status == 403
    assert [event.reason for event in events(action="login.refused")] == ["subject_key_missing"]
    again = Browser(portal)
    again.sign_in(op)
    assert again.user() == browser.user()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": all_keys})
    assert Browser(portal).sign_in(op, "jonas").status == 302


@shows("provider_unknown")
def test_unknown_provider_is_refused(op: DemoProvider, settings: Any, browser: Browser) -> None:
    both = {"default": declaration(op), "other": declaration(op)}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": both}
    assert browser.start_sign_in(path="/oidc/undeclared/authenticate/").status == 403
    assert [event.reason for event in events(action="login.refused")] == ["provider_unknown"]
    redirect = browser.start_sign_in(path="/oidc/other/authenticate/")
    assert browser.get(op.authorize(redirect.location, "amina")).status == 302
    assert browser.user() != ""


def test_sign_ins_in_several_tabs_lead_to_their_own_pages(op: DemoProvider, browser: Browser) -> None:
    tabs = {
        page: browser.get_callback_url(op, next_url=page) for page in ("/portal/a/", "/portal/b/", "/portal/c/?x=1")
    }
    for page, callback in reversed(tabs.items()):
        assert browser.get(callback).location == page


def test_sixth_pending_sign_in_drops_the_oldest(op: DemoProvider, browser: Browser) -> None:
    callbacks = [browser.get_callback_url(op) for _ in range(6)]
    assert len([name for name in browser.cookies if name.startswith("phi_oidc_")]) == 5
    assert browser.get(callbacks[0]).status == 403
    assert browser.get(callbacks[5]).status == 302


@pytest.mark.parametrize(
    "url",
    ["https://evil.example/", "//evil.example/", "/\\evil.example", "javascript:alert(1)", "/" + "x" * 2000],
)
def test_next_url_of_another_host_is_ignored(url: str, op: DemoProvider, browser: Browser) -> None:
    redirect = browser.start_sign_in(next_url=url)
    assert "evil" not in redirect.location
    assert browser.get(op.authorize(redirect.location, "amina")).location == "/"


def test_anonymous_visitor_gets_no_session(op: DemoProvider, browser: Browser) -> None:
    browser.start_sign_in()
    assert Session.objects.count() == 0
    assert "sessionid" not in browser.cookies


def test_sign_in_of_another_person_ends_the_first_session(op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    first = browser.user()
    browser.provider_cookies.clear()
    browser.sign_in(op, "jonas")
    assert browser.user() not in ("", first)
    ended = OIDCSession.objects.get(user_id=first)
    assert ended.end_reason == EndReason.REPLACED
    assert {token.grant.account.username for token in op.active_tokens} == {"jonas"}
    assert Session.objects.count() == 1
    assert not StoredClaim.objects.filter(session=ended.pk).exists()


@pytest.mark.parametrize("method", ["get", "post"])
def test_refused_callback_does_not_sign_out(method: str, op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    user = browser.user()
    for query in ("?error=access_denied&state=x", "?state=x&code=y", "", "?error=login_required"):
        getattr(browser, method)(f"/oidc/callback/{query}")
        assert browser.user() == user


def test_claims_are_stored_encrypted_and_only_if_declared(op: DemoProvider, browser: Browser) -> None:
    browser.sign_in(op)
    assert {claim.name for claim in StoredClaim.objects.all()} == {"birthdate", "address"}
    assert "1984" not in "".join(claim.value.ciphertext for claim in StoredClaim.objects.all())
    (overfetched,) = events(action="claim.overfetched")
    assert "gender" in overfetched.detail
    assert "female" not in overfetched.detail
