"""SCIM clients: create, rotate and revoke them, and authenticate their requests. Spec: RFC 7644 2;
RFC 6750 2.1.
"""

import hashlib
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from django.db import IntegrityError, transaction
from django.db.models import Q
from django.views.decorators.debug import sensitive_variables

from ..._internal import randomness
from ...audit.events import Action, Origin
from ...audit.outbox import enqueue
from . import conf
from .models import SCIMClient, SCIMToken

TOKEN_PREFIX = "phi_scim_"
DEFAULT_LIFETIME = timedelta(days=365)
DEFAULT_OVERLAP = timedelta(hours=24)
_USE_PRECISION = timedelta(minutes=1)


class SCIMClientRefused(Exception):
    """A client can't be created or changed. The message, for operators, gives the reason."""


class SCIMTokenRefused(Exception):
    """A request has no valid token. reason, rule: for the audit log only; client: of the token, if
    it has one.
    """

    def __init__(
        self, reason: str, client: SCIMClient | None = None, *, provider: str = "", rule: str = ""
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.client = client
        self.rule = rule

        if client:
            self.provider = client.provider
        else:
            self.provider = provider


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedToken:
    """A new token, which is not stored and can't be shown again."""

    client: SCIMClient
    token: str = field(repr=False)
    expires_at: datetime


@sensitive_variables()
def create_client(
    name: str, *, provider: str, lifetime: timedelta, origin: Origin, now: datetime
) -> IssuedToken:
    """Create a client of that provider with its first token, in one transaction with the event.

    Raises: SCIMClientRefused: the name is taken, or the provider does not have the option scim.
    """
    if provider not in conf.scim():
        raise SCIMClientRefused(f"The provider {provider} does not have the option scim.")
    try:
        with transaction.atomic():
            client = SCIMClient.objects.create(
                name=name, provider=provider, created_at=now, created_by=origin.actor
            )
            _record(client, "created", origin=origin, now=now)
            return _issue_token(client, lifetime=lifetime, now=now)
    except IntegrityError as error:
        raise SCIMClientRefused(f"There is a client {name} already.") from error


@sensitive_variables()
def rotate_token(
    client: SCIMClient, *, lifetime: timedelta, overlap: timedelta, origin: Origin, now: datetime
) -> IssuedToken:
    """Issue a new token. The newest one before stays valid for overlap at most, older ones end now.

    One transaction, with the event. Raises: SCIMClientRefused: the client was revoked.
    """
    with transaction.atomic():
        _lock_live_client(client)
        valid = list(
            client.tokens.filter(revoked_at=None, expires_at__gt=now).order_by("-created_at", "-pk")
        )
        client.tokens.filter(pk__in=[token.pk for token in valid[1:]]).update(revoked_at=now)
        for token in valid[:1]:
            token.expires_at = min(token.expires_at, now + overlap)
            token.save(update_fields=["expires_at"])
        _record(client, "rotated", origin=origin, now=now)
        return _issue_token(client, lifetime=lifetime, now=now)


def revoke_client(client: SCIMClient, *, origin: Origin, now: datetime) -> None:
    """Revoke the client and its tokens for good, in one transaction with the event. Its users stay
    as they are.

    Raises: SCIMClientRefused: it was revoked before.
    """
    with transaction.atomic():
        _lock_live_client(client)
        SCIMClient.objects.filter(pk=client.pk).update(revoked_at=now)
        client.tokens.filter(revoked_at=None).update(revoked_at=now)
        _record(client, "revoked", origin=origin, now=now)


@sensitive_variables()
def authenticate_client(token: str, *, now: datetime) -> SCIMClient:
    """Return the client of a bearer token. Raises: SCIMTokenRefused; DatabaseError.

    Tokens are found by their digest, so that no comparison shows how much of a token is correct.
    """
    digest = _compute_digest(token)
    row = SCIMToken.objects.select_related("client").filter(digest=digest).first()
    if row is None:
        raise SCIMTokenRefused("scim_token_unknown")
    if row.revoked_at is not None or row.client.revoked_at is not None:
        raise SCIMTokenRefused("scim_token_revoked", row.client)
    if row.expires_at <= now:
        raise SCIMTokenRefused("scim_token_expired", row.client)
    if row.client.provider not in conf.scim():
        raise SCIMTokenRefused("scim_provider_undeclared", row.client)
    is_stale = Q(last_used_at=None) | Q(last_used_at__lt=now - _USE_PRECISION)
    if row.last_used_at is None or row.last_used_at < now - _USE_PRECISION:
        SCIMToken.objects.filter(is_stale, pk=row.pk).update(last_used_at=now)
    return row.client


def _lock_live_client(client: SCIMClient) -> None:
    # A write first: on SQLite a read would not lock.
    if not SCIMClient.objects.filter(pk=client.pk, revoked_at=None).update(revoked_at=None):
        raise SCIMClientRefused(f"The client {client.name} was revoked.")


@sensitive_variables()
def _issue_token(client: SCIMClient, *, lifetime: timedelta, now: datetime) -> IssuedToken:
    token = TOKEN_PREFIX + randomness.token_b64url(32)
    expires_at = now + lifetime
    SCIMToken.objects.create(
        client=client, digest=_compute_digest(token), created_at=now, expires_at=expires_at
    )
    return IssuedToken(client=client, token=token, expires_at=expires_at)


def _compute_digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", errors="surrogatepass")).hexdigest()


def _record(client: SCIMClient, change: str, *, origin: Origin, now: datetime) -> None:
    resource = f"SCIMClient/{client.pk}"
    detail = {"change": change}
    enqueue(
        Action.SCIM_CLIENT_CHANGED,
        origin=origin,
        now=now,
        provider=client.provider,
        resource=resource,
        detail=detail,
    )
