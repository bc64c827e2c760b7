"""Attacks on R4 and on accounts: replayed, late or altered callbacks, and users who must not get
access.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_backends, get_user_model
from django.contrib.sessions.backends.base import SessionBase
from django.db import IntegrityError
from django.db.models.signals import pre_save
from django.middleware.csrf import CSRF_SESSION_KEY
from django.test import override_settings
from django.urls import NoReverseMatch, reverse
from django.utils.crypto import get_random_string
from django.utils.module_loading import import_string

from ..._internal import clock, randomness
from ...access.policy import Assurance
from ...access.step_up import create_step_up_url
from ...audit.request_context import SESSION_KEY
from ...contrib.subject_links.email_match import CREATION_FIELD, has_required_fields
from ...crypto import keyring
from ...subjects.local_accounts import list_local_account_names
from ...subjects.models import PairwiseSubject
from ..mock_provider import MutableExchange
from .browser import Browser
from .environment import AttackEnvironment, advance_clock
from .tampering import OMITTED

# code -> (callback parameters that are refused, parameters that are accepted)
CALLBACK_PARAMETER_CASES: Mapping[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "state_missing": ({"state": OMITTED}, {}),
    "state_unknown": ({"state": "x" * 43}, {}),
    "iss_mismatch": ({"iss": "https://elsewhere.example"}, {}),
    "iss_missing": ({"iss": OMITTED}, {}),
    "provider_error": ({"error": "access_denied"}, {"remark": "access_denied"}),
    "parameter_repeated": ({"code": ["a", "b"]}, {"remark": ["a", "b"]}),
    "code_missing": ({"code": OMITTED}, {}),
}


def replace_query_parameters(url: str, **changes: Any) -> str:
    """Return url with parameters replaced, omitted (OMITTED) or repeated (a list)."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), **changes}
    query = {name: value for name, value in query.items() if value is not OMITTED}
    return parts._replace(query=urlencode(query, doseq=True)).geturl()


def alter_callback(code: str, environment: AttackEnvironment) -> None:
    """The callback differs in one parameter from the response of the provider."""
    invalid, valid = CALLBACK_PARAMETER_CASES[code]
    with environment.override_declaration():
        browser = environment.create_browser()
        page = browser.get(
            replace_query_parameters(browser.get_callback_url(environment.op), **valid)
        )
        environment.assert_accepted(browser, page)
    with environment.override_declaration():
        browser = environment.create_browser()
        page = browser.get(
            replace_query_parameters(browser.get_callback_url(environment.op), **invalid)
        )
        environment.assert_refused(browser, page, code)
        if environment.op.tokens:
            environment.report_fault("the portal requested tokens")


def replay_callback(environment: AttackEnvironment) -> None:
    """A callback is requested a second time, with the same cookies."""
    with environment.override_declaration():
        browser = environment.create_browser()
        callback = browser.get_callback_url(environment.op)
        cookies = dict(browser.cookies)
        environment.assert_accepted(browser, browser.get(callback))
        issued = len(environment.op.tokens)
        active = len(environment.op.active_tokens)
        attacker = environment.create_browser(cookies=cookies)
        page = attacker.get(callback)
        if len(environment.op.tokens) > issued:
            environment.report_fault("the portal requested tokens")
        environment.assert_refused(attacker, page, "state_replayed", allowed_active_tokens=active)


def finish_sign_in_late(environment: AttackEnvironment) -> None:
    """A sign-in is completed after more than ten minutes."""
    for minutes, is_late in ((9.9, False), (10.1, True)):
        with environment.override_declaration():
            browser = environment.create_browser()
            response = browser.start_sign_in()
            with advance_clock(timedelta(minutes=minutes)):
                page = browser.get(environment.op.authorize(response.location, "amina"))
                if is_late:
                    environment.assert_refused(browser, page, "state_expired")
                else:
                    environment.assert_accepted(browser, page)


def replay_id_token(environment: AttackEnvironment) -> None:
    """The provider, or an attacker in its place, sends the ID Token of an earlier sign-in."""
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
        earlier_token = environment.op.id_tokens[-1]
    with environment.override_declaration():
        honest_hook = environment.create_honest_hook()

        def replay(endpoint: str, exchange: MutableExchange) -> None:
            honest_hook(endpoint, exchange)
            if endpoint == "id_token":
                exchange.token = earlier_token

        environment.op.mutate = replay
        browser = environment.create_browser()
        environment.assert_refused(browser, browser.sign_in(environment.op), "token_replayed")


def use_untrusted_certificate_authority(environment: AttackEnvironment) -> None:
    """The provider's certificate was issued by a CA that the project does not trust."""
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op))
    with environment.override_declaration(ca_bundle=environment.untrusted_ca_bundle):
        browser = environment.create_browser()
        environment.assert_refused(browser, browser.start_sign_in(), "transport_tls")


def request_unknown_provider(environment: AttackEnvironment) -> None:
    """A URL names an undeclared provider."""
    with environment.override_declaration():
        build_url = partial(reverse, "oidc_authentication_init")
        browser = environment.create_browser()
        page = browser.start_sign_in(
            path=build_url(kwargs={"provider": environment.declaration.name})
        )
        environment.assert_control(page.status == 302, f"the status is {page.status}")
        page = browser.start_sign_in(path=build_url(kwargs={"provider": "nobody"}))
        environment.assert_refused(browser, page, "provider_unknown")


def remove_subject_key(environment: AttackEnvironment) -> None:
    """A subject key is missing, so new and known users cannot be distinguished."""
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op, "amina"))
    declared: Any = settings.PHI_OIDC
    keys = {**declared["KEYS"], "subject": [keyring.generate_key()]}
    with override_settings(PHI_OIDC={**declared, "KEYS": keys}), environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_refused(
            browser, browser.sign_in(environment.op, "amina"), "subject_key_missing"
        )


def sign_in_without_account(environment: AttackEnvironment) -> None:
    """A user without an account signs in, and accounts are not created."""
    accounts = environment.op.state.accounts
    accounts["stranger"] = replace(accounts["amina"], username="stranger")
    with environment.override_declaration(provisioning="existing"):
        browser = environment.create_browser()
        environment.assert_refused(
            browser, browser.sign_in(environment.op, "stranger"), "not_provisioned"
        )
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_accepted(browser, browser.sign_in(environment.op, "stranger"))


def link_unverified_email(environment: AttackEnvironment) -> None:
    """The e-mail address of an attacker at the provider is that of another user's account, and is
    not verified.
    """
    for statement in (False, "true", OMITTED):
        with _override_email_linking(environment):
            address = _create_account_with_email(environment)
            _send_email(environment, email=address, email_verified=statement)
            browser = environment.create_browser()
            environment.assert_refused(
                browser, browser.sign_in(environment.op, _OWNER), "not_provisioned"
            )
            _assert_linked_by_email(environment, address)


def link_privileged_account(environment: AttackEnvironment) -> None:
    """The verified e-mail address of a user is that of a superuser's account."""
    with _override_email_linking(environment):
        address = _create_account_with_email(environment)
        accounts = get_user_model()._default_manager.filter(
            **{get_user_model().get_email_field_name(): address}
        )
        if not hasattr(get_user_model(), "is_superuser"):
            environment.skip_attack("there are no superusers")
        accounts.update(is_superuser=True)
        _send_email(environment, email=address, email_verified=True)
        browser = environment.create_browser()
        environment.assert_refused(
            browser, browser.sign_in(environment.op, _OWNER), "email_match_refused"
        )
        accounts.update(is_superuser=False)
        _assert_linked_by_email(environment, address)


_OWNER = "owner of an address"


@contextmanager
def _override_email_linking(environment: AttackEnvironment) -> Iterator[None]:
    """Declare e-mail linking from today, and a new account at the provider."""
    if not apps.is_installed("django_phi_oidc.contrib.subject_links"):
        environment.skip_attack("contrib.subject_links is not installed")
    if not has_required_fields(get_user_model()):
        environment.skip_attack("accounts have no e-mail address or time of creation")
    accounts = environment.op.state.accounts
    today = clock.now().date()
    accounts[_OWNER] = replace(accounts["amina"], username=f"{_OWNER} {randomness.token_b64url(8)}")
    linking = {"accounts_created_before": today, "until": today + timedelta(days=1)}
    with environment.override_declaration(provisioning="existing", link_verified_email=linking):
        yield


def _create_account_with_email(environment: AttackEnvironment) -> str:
    """Create an account that is older than the option, as the project creates one, and return its
    new address.
    """
    user_model: Any = get_user_model()
    backend: Any = next(backend for backend in get_backends() if hasattr(backend, "create_user"))
    user = backend.create_user(environment.claim_values)
    address = f"{randomness.token_b64url(9)}@attack.example"
    fields = {
        user_model.get_email_field_name(): address,
        CREATION_FIELD: clock.now() - timedelta(days=2),
    }
    # The user model names its e-mail column at run time.
    user_model._default_manager.filter(pk=user.pk).update(**fields)
    return address


def _send_email(environment: AttackEnvironment, **claims: Any) -> None:
    """Make the provider send these claims in UserInfo, in addition to the declared ones."""
    honest_hook = environment.create_honest_hook()

    def add_email(endpoint: str, exchange: MutableExchange) -> None:
        honest_hook(endpoint, exchange)
        if endpoint == "userinfo" and isinstance(exchange.reply.json, dict):
            known = {}
            for name, value in exchange.reply.json.items():
                if name not in claims:
                    known[name] = value
            exchange.reply.json = known | {
                name: value for name, value in claims.items() if value is not OMITTED
            }

    environment.op.mutate = add_email


def _assert_linked_by_email(environment: AttackEnvironment, address: str) -> None:
    """Check the positive control: the account of that address is linked if the provider has
    verified it.
    """
    user_model: Any = get_user_model()
    account = user_model._default_manager.get(**{user_model.get_email_field_name(): address})
    _send_email(environment, email=address, email_verified=True)
    browser = environment.create_browser()
    user = environment.assert_accepted(browser, browser.sign_in(environment.op, _OWNER))
    environment.assert_control(user == str(account.pk), "the account is not linked")


def sign_in_with_refused_account(environment: AttackEnvironment) -> None:
    """The database refuses the account of a new user."""
    accounts = environment.op.state.accounts
    accounts["refused"] = replace(accounts["amina"], username="refused")

    def refuse(*, instance: Any, **kwargs: Any) -> None:
        raise IntegrityError

    user_model = get_user_model()
    with environment.override_declaration():
        browser = environment.create_browser()
        pre_save.connect(refuse, sender=user_model)
        try:
            response = browser.sign_in(environment.op, "refused")
        finally:
            pre_save.disconnect(refuse, sender=user_model)
        environment.assert_refused(browser, response, "account_not_saved")
        environment.assert_accepted(browser, browser.sign_in(environment.op, "refused"))


def sign_in_with_altered_link(environment: AttackEnvironment) -> None:
    """The link of a known user is changed to the account of another user, in the database."""
    accounts = environment.op.state.accounts
    accounts["altered"] = replace(accounts["amina"], username="altered")
    with environment.override_declaration():
        pks: list[Any] = []
        for username in ("amina", "altered", "altered"):
            browser = environment.create_browser()
            pks.append(
                environment.assert_accepted(browser, browser.sign_in(environment.op, username))
            )
    PairwiseSubject.objects.filter(user=pks[1]).update(user=pks[0])
    with environment.override_declaration():
        browser = environment.create_browser()
        environment.assert_refused(
            browser, browser.sign_in(environment.op, "altered"), "subject_altered"
        )


def sign_in_with_deactivated_account(environment: AttackEnvironment) -> None:
    """A user's account is deactivated while they are signed in; they sign in again."""
    with environment.override_declaration():
        browser = environment.create_browser()
        user_pk = environment.assert_accepted(browser, browser.sign_in(environment.op))
        account = get_user_model()._default_manager.filter(pk=user_pk)
        environment.op.state.tokens.clear()
        account.update(is_active=False)
        try:
            is_signed_in = environment.find_signed_in_user(browser)
            if is_signed_in:
                environment.report_fault("the account's session is still valid")
            again = environment.create_browser()
            environment.assert_refused(again, again.sign_in(environment.op), "user_inactive")
        finally:
            account.update(is_active=True)


def step_up_as_another_user(environment: AttackEnvironment) -> None:
    """Another user signs in during a step-up."""
    with environment.override_declaration():
        browser = environment.create_browser()
        amina = environment.assert_accepted(browser, browser.sign_in(environment.op, "amina"))
        environment.assert_control(
            _step_up(environment, browser, "amina").status == 302, "no step-up"
        )
        active = len(environment.op.active_tokens)
        environment.portal.mark_refusals_seen()
        page = _step_up(environment, browser, "jonas")
        faults = []
        code = environment.portal.find_refusal_code()
        if page.status != 403 or code != "subject_changed":
            faults.append(
                f"the status is {page.status}, the audit log contains {code or 'no refusal'}"
            )
        if environment.find_signed_in_user(browser) != amina:
            faults.append("another user is signed in")
        if len(environment.op.active_tokens) > active:
            faults.append("tokens are still valid")
        environment.report_fault("; ".join(faults))


def _step_up(environment: AttackEnvironment, browser: Browser, username: str) -> Any:
    return browser.get(
        environment.op.authorize(browser.get(create_step_up_link(browser)).location, username)
    )


def create_step_up_link(browser: Browser) -> str:
    """Return the URL that begins a step-up of the session of the browser."""
    session_id = str(get_session(browser)[SESSION_KEY])
    assurance = Assurance(max_age=timedelta(minutes=5))
    return create_step_up_url(assurance, session_id=session_id, next_url="/", now=clock.now())


def guess_local_account_password(environment: AttackEnvironment) -> None:
    """An attacker guesses the password of the break-glass account. Without one, its page must not
    exist.
    """
    username = next(iter(list_local_account_names()), "")
    url = find_local_login_url(environment)
    with environment.override_declaration():
        page = environment.create_browser().get(url)
        if not username:
            is_missing = page.status == 404
            if not is_missing:
                environment.report_fault(f"its page returns {page.status} without such an account")
            environment.skip_attack("there is no break-glass account")
        password = create_break_glass_account(username)
        for attempt, is_right in ((password, True), (f"{password}x", False)):
            browser = environment.create_browser()
            csrf = create_csrf_token(browser)
            environment.portal.mark_refusals_seen()
            page = browser.post(url, username=username, password=attempt, csrfmiddlewaretoken=csrf)
            if is_right:
                environment.assert_accepted(browser, page)
            else:
                environment.assert_refused(browser, page, "break_glass_refused")


def find_local_login_url(environment: AttackEnvironment) -> str:
    """Return the URL of the sign-in with a password, or skip the attack without one."""
    try:
        return reverse("oidc_local_login")
    except NoReverseMatch:
        environment.skip_attack("there is no break-glass account")


def create_break_glass_account(username: str) -> str:
    """Create the account, unless another attack has, and return its new password."""
    password = randomness.token_b64url(16)
    users = get_user_model()._default_manager
    user = users.filter(**{get_user_model().USERNAME_FIELD: username}).first()
    if user is None:
        users.create_user(username, password=password)
    else:
        user.set_password(password)
        user.save()
    return password


def create_csrf_token(browser: Browser) -> str:
    """Return a new CSRF token, stored in the browser's cookie or session as Django expects it."""
    secret = get_random_string(32)
    if settings.CSRF_USE_SESSIONS:
        session = get_session(browser)
        session[CSRF_SESSION_KEY] = secret
        session.save()
        browser.cookies[browser.session_cookie_name] = str(session.session_key)
    browser.cookies[settings.CSRF_COOKIE_NAME] = secret
    return secret


def get_session(browser: Browser) -> SessionBase:
    """Return the Django session of the browser."""
    engine: type[SessionBase] = import_string(f"{settings.SESSION_ENGINE}.SessionStore")
    return engine(browser.cookies.get(browser.session_cookie_name))


AttackFunction = Callable[[AttackEnvironment], None]
CALLBACK_AND_ACCOUNT_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    **{(code, ""): partial(alter_callback, code) for code in CALLBACK_PARAMETER_CASES},
    ("state_replayed", ""): replay_callback,
    ("state_expired", ""): finish_sign_in_late,
    ("token_replayed", ""): replay_id_token,
    ("transport_tls", ""): use_untrusted_certificate_authority,
    ("provider_unknown", ""): request_unknown_provider,
    ("subject_key_missing", ""): remove_subject_key,
    ("not_provisioned", ""): sign_in_without_account,
    ("not_provisioned", "unverified e-mail"): link_unverified_email,
    ("email_match_refused", ""): link_privileged_account,
    ("account_not_saved", ""): sign_in_with_refused_account,
    ("subject_altered", ""): sign_in_with_altered_link,
    ("user_inactive", ""): sign_in_with_deactivated_account,
    ("subject_changed", ""): step_up_as_another_user,
    ("break_glass_refused", ""): guess_local_account_password,
}
