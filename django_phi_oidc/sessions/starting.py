"""A session begins: what the OP issued is kept, sealed, beside the Django session. Spec: OIDC Core 3.1.3.3."""

import uuid
from datetime import datetime

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import router
from django.views.decorators.debug import sensitive_variables

from ..oidc.token import TokenResponse
from ..statements import insert
from ..subjects.models import PairwiseSubject
from .models import OIDCSession, digest


@sensitive_variables()
def start_session(
    *,
    id: uuid.UUID,  # noqa: A002 -- the field's name
    user: AbstractBaseUser,
    subject: PairwiseSubject,
    provider: str,
    issuer: str,
    sid: str,
    tokens: TokenResponse,
    django_session_key: str,
    auth_time: datetime | None,
    acr: str,
    now: datetime,
    keeps_tokens: bool = True,
) -> OIDCSession:
    """Return the new session, written in one INSERT inside the caller's transaction.

    sid: the ID Token's, or empty; only its digest is kept. The caller puts str(id) into the Django session.
    keeps_tokens: False where access and refresh token are not stored; the ID Token is, for the logout hint.
    """
    expires_at = now + tokens.expires_in if keeps_tokens and tokens.expires_in is not None else None
    session = OIDCSession(
        id=id,
        user_id=user.pk,
        subject=subject,
        provider=provider,
        issuer=issuer,
        sid_digest=digest(sid) if sid else "",
        session_key=django_session_key,
        session_key_digest=digest(django_session_key),
        access_token=tokens.access_token if keeps_tokens else None,
        refresh_token=tokens.refresh_token or None if keeps_tokens else None,
        id_token=tokens.id_token,
        access_token_expires_at=expires_at,
        auth_time=auth_time,
        acr=acr,
        started_at=now,
        last_seen_at=now,
    )
    insert([session], using=router.db_for_write(OIDCSession))
    return session
