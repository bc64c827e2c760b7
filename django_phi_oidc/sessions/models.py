"""What the OP issued to a Django session, and what must still be revoked."""

import hashlib
import uuid
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.db import models
from django.db.models.functions import Least
from django.utils.translation import gettext_lazy as _

from .._internal import randomness
from ..fields import SealedTextField
from ..oidc.token import ReceivedToken
from ..subjects.models import PairwiseSubject


class EndReason(models.TextChoices):
    """Why a session ended."""

    LOGOUT = "logout", _("the person signed out")
    DJANGO_LOGOUT = "django_logout", _("django.contrib.auth.logout was called")
    REPLACED = "replaced", _("somebody signed in on the same browser")
    SESSION_LOST = "session_lost", _("the Django session was flushed")
    AUDIT_UNAVAILABLE = "audit_unavailable", _("the sign-in could not be written to the trail")
    SUBJECT_UNLINKED = "subject_unlinked", _("the person's link to the account was deleted")
    IDLE_TIMEOUT = "idle_timeout", _("nobody did anything for as long as is allowed")
    ABSOLUTE_TIMEOUT = "absolute_timeout", _("it had lasted for as long as is allowed")
    USER_INACTIVE = "user_inactive", _("the account was deactivated or deleted")
    PASSWORD_CHANGED = "password_changed", _("the account's password was changed")
    ROLES_CHANGED = "roles_changed", _("the account's groups or permissions were changed")
    ADMINISTRATOR = "administrator", _("an administrator ended it")
    BACKCHANNEL_LOGOUT = "backchannel_logout", _("the provider said that the person signed out")
    FRONTCHANNEL_LOGOUT = "frontchannel_logout", _("the provider sent the browser to say so")
    INVALID_GRANT = "invalid_grant", _("the provider refused to refresh its tokens")
    REFRESH_MISMATCH = "refresh_mismatch", _("a refresh gave tokens of another person or sign-in")


class OIDCSession(models.Model):
    """Joins a Django session to what the OP issued for it. An ended one has no token left."""

    id = models.UUIDField(_("id"), primary_key=True, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, verbose_name=_("user"), null=True, on_delete=models.SET_NULL, related_name="+"
    )
    subject = models.ForeignKey(PairwiseSubject, null=True, on_delete=models.SET_NULL, related_name="+")
    provider = models.CharField(_("provider"), max_length=64)
    issuer = models.CharField(max_length=255)
    sid_digest = models.CharField(max_length=64, blank=True)
    """SHA-256 of the ID Token's `sid`, hexadecimal, or empty."""
    session_key = SealedTextField(bind=("id",), null=True)
    session_key_digest = models.CharField(max_length=64, db_index=True)
    """SHA-256 of the Django session key, hexadecimal."""
    access_token = SealedTextField(bind=("id",), null=True)
    refresh_token = SealedTextField(bind=("id",), null=True)
    id_token = SealedTextField(bind=("id",), null=True)
    access_token_expires_at = models.DateTimeField(_("access token expires at"), null=True)
    auth_time = models.DateTimeField(_("auth time"), null=True)
    acr = models.CharField(_("acr"), max_length=255, blank=True)
    started_at = models.DateTimeField(_("started at"))
    last_seen_at = models.DateTimeField(_("last seen at"))
    ended_at = models.DateTimeField(_("ended at"), null=True, db_index=True)
    end_reason = models.CharField(_("end reason"), max_length=32, choices=EndReason, blank=True)
    refresh_lease_until = models.DateTimeField(null=True)
    """While it lies ahead, somebody refreshes the tokens."""

    class Meta:
        verbose_name, verbose_name_plural = _("OIDC session"), _("OIDC sessions")
        indexes = (
            models.Index(fields=["issuer", "sid_digest"], name="phi_oidc_session_sid"),
            models.Index(fields=["started_at"], name="phi_oidc_session_started"),
        )
        default_permissions = ("view",)
        permissions = (("end_oidcsession", "Can end sessions"),)

    def __str__(self) -> str:
        return str(self.pk)


def sha256_hex(value: str) -> str:
    """Return the SHA-256 of value, hexadecimal, by which a row is found without the value."""
    return hashlib.sha256(value.encode("utf-8")).hexdigest()


class RevocationStatus(models.TextChoices):
    """Where a revocation stands. Only PENDING is not final."""

    PENDING = "pending", _("to be tried")
    DONE = "done", _("revoked at the OP")
    UNSUPPORTED = "unsupported", _("the OP does not revoke tokens of this kind")
    REFUSED = "refused", _("the OP refused for good")
    ABANDONED = "abandoned", _("given up")


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenToRevoke:
    """A token that must die."""

    token: ReceivedToken
    provider: str
    session_id: uuid.UUID | None = None
    """None for the tokens of a refused sign-in."""
    access_token_expires_at: datetime | None = None
    """Of the access token."""


class PendingRevocationQuerySet(models.QuerySet["PendingRevocation"]):
    """Writes the rows of tokens that must die, and finds those whose time has come."""

    def queue(
        self, tokens: Iterable["TokenToRevoke"], *, now: datetime, due_at: datetime | None = None
    ) -> tuple[uuid.UUID, ...]:
        """Write one row for each token in one statement; return their ids in the order of tokens.

        due_at: None: at once. What is due later is due when its session ends.
        """
        rows = [
            self.model(
                id=randomness.uuid7(now),
                provider=doomed.provider,
                session=doomed.session_id,
                token=doomed.token.value,
                token_type_hint=doomed.token.token_type_hint,
                token_expires_at=doomed.access_token_expires_at
                if doomed.token.token_type_hint == "access_token"
                else None,
                due_at=due_at or now,
                created_at=due_at or now,
            )
            for doomed in tokens
        ]
        self.bulk_create(rows)
        return tuple(row.id for row in rows)

    def make_due_now(
        self, session_ids: Collection[uuid.UUID], *, keep_offline_session_ids: Collection[uuid.UUID], now: datetime
    ) -> dict[uuid.UUID | None, list[uuid.UUID]]:
        """Let what is due later of these sessions be due now; return the ids by session, refresh tokens first.

        keep_offline: of these, refresh tokens that were not to be tried yet are dropped instead, and live.
        """
        later = self.filter(session__in=session_ids, status=RevocationStatus.PENDING, due_at__gt=now)
        if keep_offline_session_ids:
            later.filter(
                session__in=keep_offline_session_ids, token_type_hint="refresh_token", created_at__gt=now
            ).delete()
        found: dict[uuid.UUID | None, list[uuid.UUID]] = {}
        for session, pk in later.order_by("-token_type_hint").values_list("session", "pk"):
            found.setdefault(session, []).append(pk)
        if found:
            later.update(due_at=now, created_at=Least("created_at", models.Value(now)))
        return found

    def due(self, now: datetime) -> "PendingRevocationQuerySet":
        """Return what may be tried now: pending, its time has come, and nobody is at it."""
        free = models.Q(lease_until__isnull=True) | models.Q(lease_until__lte=now)
        return self.filter(free, status=RevocationStatus.PENDING, due_at__lte=now)


class PendingRevocation(models.Model):
    """One token that must die at the OP. A finished row has no token left."""

    id = models.UUIDField(_("id"), primary_key=True, editable=False)
    provider = models.CharField(_("provider"), max_length=64)
    session = models.UUIDField(_("session"), null=True)
    """The OIDC session that held the token; None for the tokens of a refused sign-in."""
    token = SealedTextField(bind=("id",), null=True)
    token_type_hint = models.CharField(_("token type hint"), max_length=16)
    token_expires_at = models.DateTimeField(_("token expires at"), null=True)
    status = models.CharField(_("status"), max_length=16, choices=RevocationStatus, default=RevocationStatus.PENDING)
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    due_at = models.DateTimeField(_("due at"))
    lease_until = models.DateTimeField(null=True)
    """While it lies ahead, a worker is at it."""
    last_fault = models.CharField(_("last fault"), max_length=64, blank=True)
    created_at = models.DateTimeField(_("created at"))
    """From when on it was to be tried; it is given up so long after that."""
    finished_at = models.DateTimeField(_("finished at"), null=True)

    objects = PendingRevocationQuerySet.as_manager()

    class Meta:
        verbose_name, verbose_name_plural = _("pending revocation"), _("pending revocations")
        indexes = (
            models.Index(fields=["due_at"], condition=models.Q(status="pending"), name="phi_oidc_revocation_due"),
            models.Index(fields=["session"], condition=models.Q(status="pending"), name="phi_oidc_revocation_session"),
        )
        default_permissions = ("view",)
        permissions = (("retry_pendingrevocation", "Can have revocations tried again"),)

    def __str__(self) -> str:
        return f"{self.token_type_hint} {self.pk}"
