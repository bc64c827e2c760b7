"""Persons with a `sub`, and sessions with a `sid`."""

import uuid
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module

from django.conf import settings

from django_phi_oidc._internal import clock
from django_phi_oidc.crypto import keyring
from django_phi_oidc.oidc.token import TokenResponse
from django_phi_oidc.sessions.digests import sha256_hex
from django_phi_oidc.sessions.kept_id_token import KeptIDToken
from django_phi_oidc.sessions.lifecycle import start_session
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.identifiers import compute_subject_digest
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support.session_fixtures import SignedIn, django_session_exists

ISSUER = "https://op"


def name(signed_in: SignedIn, *, sub: str, sid: str = "", issuer: str = ISSUER) -> SignedIn:
    """Store the digests of the person's sub under every subject key, and the sid of the session."""
    PairwiseSubject.objects.filter(pk=signed_in.subject.pk).update(issuer=issuer)
    sid_digest = sha256_hex(sid) if sid else ""
    OIDCSession.objects.filter(pk=signed_in.session.pk).update(issuer=issuer, sid_digest=sid_digest)
    for key in keyring.get_keys("subject"):
        digest = compute_subject_digest(key.material, issuer=issuer, sub=sub)
        SubjectDigest.objects.create(
            subject=signed_in.subject, issuer=issuer, key_id=key.id, digest=digest, binding="x"
        )
    return signed_in


def sign_in_again(signed_in: SignedIn, *, sid: str = "", issuer: str = ISSUER) -> str:
    """Start one more session of that person; return the key of its Django session."""
    session_id = uuid.uuid4()
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    store["phi_oidc_session"] = str(session_id)
    store.save()
    start_session(
        session_id=session_id,
        user=signed_in.user,
        subject=signed_in.subject,
        provider="default",
        issuer=issuer,
        sid=sid,
        tokens=TokenResponse(
            access_token="an access token",
            refresh_token="a refresh token",
            id_token="an.id.token",
            expires_in=timedelta(minutes=5),
            lifetime_alert=False,
        ),
        id_token=KeptIDToken(claims={}, token="an.id.token"),
        django_session_key=store.session_key,
        auth_time=None,
        acr="",
        now=clock.now(),
    )
    return str(store.session_key)


def sign_in_often(sign_in: Callable[..., SignedIn], times: int, *, sub: str, issuer: str = ISSUER) -> SignedIn:
    """Sign a person in with that many sessions, each with its own `sid` and two tokens."""
    signed_in = name(sign_in(), sub=sub, sid="sid-0", issuer=issuer)
    for number in range(1, times):
        sign_in_again(signed_in, sid=f"sid-{number}", issuer=issuer)
    return signed_in


def is_live(signed_in: SignedIn) -> bool:
    """Say whether the OIDC session is live; the Django session must be in the same state."""
    is_unended = OIDCSession.objects.get(pk=signed_in.session.pk).ended_at is None
    assert django_session_exists(signed_in.django_key) is is_unended
    return is_unended
