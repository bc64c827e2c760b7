"""Create many signed-in users without running their sign-ins."""

import uuid
from dataclasses import dataclass, field
from datetime import timedelta
from importlib import import_module

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, get_user_model
from django.contrib.auth import SESSION_KEY as USER_KEY
from django.db import transaction

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.request_context import SESSION_KEY
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.oidc.token import TokenResponse
from django_phi_oidc.sessions.activity import TIMES_KEY, create_times_entry
from django_phi_oidc.sessions.kept_id_token import KeptIDToken
from django_phi_oidc.sessions.lifecycle import start_session
from django_phi_oidc.subjects.models import PairwiseSubject
from django_phi_oidc.testing.mock_provider import DemoProvider, Grant
from tests.support.http_browser import Browser


@dataclass
class Person:
    """The browser of a user and the tokens of the session, the refresh token first."""

    browser: Browser
    tokens: tuple[str, str] = field(repr=False)


def create_signed_in_users(op: DemoProvider, bases: list[str], count: int) -> list[Person]:
    """Return that many signed-in users, distributed over the portals."""
    with transaction.atomic():
        return [_sign_in(op, bases[number % len(bases)], number) for number in range(count)]


def _sign_in(op: DemoProvider, base: str, number: int) -> Person:
    now = clock.now()
    user = get_user_model()._default_manager.create_user(username=f"person-{number}")
    subject = PairwiseSubject.objects.create(
        uuid=uuid.uuid4(), user=user, issuer=op.issuer, first_seen_at=now, last_seen_at=now
    )
    grant = Grant(
        client=op.state.clients["portal"],
        account=next(iter(op.state.accounts.values())),
        sub=f"sub-{number}",
        sid="",
        scope=("openid",),
        claims={},
        nonce="",
        auth_time=now,
        acr="",
        redirect_uri="",
        code_challenge="",
        code="",
        code_expires_at=now,
    )
    access = op.state.issue_token(grant, "access_token", scope=grant.scope, now=now).value
    refresh = op.state.issue_token(grant, "refresh_token", scope=grant.scope, now=now).value
    session_id = uuid.uuid4()
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    store[USER_KEY] = str(user.pk)
    store[BACKEND_SESSION_KEY] = "django_phi_oidc.backends.OIDCAuthenticationBackend"
    store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    store[SESSION_KEY] = str(session_id)
    store[TIMES_KEY] = create_times_entry(now)
    store.create()
    store.save()
    start_session(
        session_id=session_id,
        user=user,
        subject=subject,
        provider="default",
        issuer=op.issuer,
        sid="",
        tokens=TokenResponse(
            access_token=access,
            refresh_token=refresh,
            id_token="an.id.token",
            expires_in=timedelta(minutes=5),
            lifetime_alert=False,
        ),
        id_token=KeptIDToken(claims={}, token="an.id.token"),
        django_session_key=str(store.session_key),
        auth_time=now,
        acr="",
        now=now,
    )
    StoredClaim.objects.create(
        subject=subject,
        name="birthdate",
        value='"1984-03-09"',
        purpose="TREAT",
        obtained_at=now,
        session=session_id,
    )
    cookies = {settings.SESSION_COOKIE_NAME: str(store.session_key), "csrftoken": "a" * 32}
    return Person(Browser(base, cookies), (refresh, access))
