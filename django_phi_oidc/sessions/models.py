"""OIDC sessions with their tokens, and the revocations that are not finished."""

import uuid
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal, NamedTuple, Self, cast

from django.conf import settings
from django.db import connections, models, router
from django.db.models.functions import Coalesce, Least
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop
from django.views.decorators.debug import sensitive_variables

from .._internal import randomness, request_secrets
from .._internal.inserts import CopiedRows, insert, insert_copies
from .._internal.lease import LeasedQuerySet
from .._internal.sql import any_of
from ..claims.minimization import list_personal_claims
from ..crypto.keyring import SymmetricKey
from ..errors import IDTokenError, KeyRingError, Undecryptable
from ..fields import EncryptedText, SealedTextField
from ..http.transport import MAX_RETRY_AFTER
from ..oidc.jose import parse_compact_jws
from ..oidc.token import ReceivedToken, TokenTypeHint
from ..subjects.models import PairwiseSubject
from .digests import compute_token_digest

EncryptedColumnName = Literal[
    "refresh_token", "access_token", "dpop_seed", "id_token", "id_token_claims", "session_key"
]
KEY_ID_LENGTH = 8
"""Of the id of an encryption key."""
DUE_AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)
TOKEN_HINTS: tuple[TokenTypeHint, ...] = ("refresh_token", "access_token")
"""In the order of revocation: a valid refresh token could be used for new access tokens."""
ENCRYPTED_COLUMNS: tuple[EncryptedColumnName, ...] = (
    *TOKEN_HINTS,
    *("dpop_seed", "id_token", "id_token_claims", "session_key"),
)


class EndReason(models.TextChoices):
    """Why a session ended."""

    LOGOUT = "logout", _("the user signed out")
    DJANGO_LOGOUT = "django_logout", _("django.contrib.auth.logout was called")
    REPLACED = "replaced", _("another sign-in on the same browser")
    SESSION_LOST = "session_lost", _("the Django session was flushed")
    ROW_DELETED = "row_deleted", _("the row of the session was deleted")
    AUDIT_UNAVAILABLE = "audit_unavailable", _("the sign-in could not be written to the audit log")
    SUBJECT_UNLINKED = "subject_unlinked", _("the link to the account was deleted")
    IDLE_TIMEOUT = "idle_timeout", _("idle timeout")
    ABSOLUTE_TIMEOUT = "absolute_timeout", _("absolute timeout")
    USER_INACTIVE = "user_inactive", _("the account was deactivated or deleted")
    PASSWORD_CHANGED = "password_changed", _("the account's password was changed")
    ROLES_CHANGED = "roles_changed", _("the account's groups or permissions were changed")
    ADMINISTRATOR = "administrator", _("an administrator ended it")
    ACCOUNT_OWNER = "account_owner", _("the user ended it from another device")
    PARALLEL_LIMIT = "parallel_limit", _("limit of parallel sessions")
    BACKCHANNEL_LOGOUT = "backchannel_logout", _("back-channel logout by the provider")
    FRONTCHANNEL_LOGOUT = "frontchannel_logout", _("front-channel logout by the provider")
    SECURITY_EVENT = "security_event", _("a security event of the provider")
    INVALID_GRANT = "invalid_grant", _("the provider refused the refresh token")
    REFRESH_MISMATCH = "refresh_mismatch", _("a refresh returned tokens of another user or sign-in")


class OIDCSessionQuerySet(LeasedQuerySet["OIDCSession"]):
    """Queries of sessions; the lease is for refreshing the tokens."""

    lease_field = "refresh_lease_until"

    def live(self) -> Self:
        """Return the sessions that have not ended."""
        return self.filter(ended_at=None)

    @sensitive_variables()
    def discard_personal_id_tokens(
        self, subjects: Sequence[PairwiseSubject]
    ) -> list[tuple[int, tuple[str, ...]]]:
        """Delete the ID Tokens of live sessions that have claims about these persons, in the
        caller's transaction.

        Returns the same as list_personal_id_tokens.
        """
        discarded = self.select_for_update().list_personal_id_tokens(subjects)
        if discarded:
            self.filter(pk__in=discarded).update(id_token=None)
        return list(discarded.values())

    @sensitive_variables()
    def list_personal_id_tokens(
        self, subjects: Sequence[PairwiseSubject]
    ) -> dict[uuid.UUID, tuple[int, tuple[str, ...]]]:
        """Return which live sessions have an ID Token with claims about these persons.

        For each session: the key of its subject, and the names of the claims. Tokens that can't be
        decrypted here and now count as well; their names are empty.
        """
        personal: dict[uuid.UUID, tuple[int, tuple[str, ...]]] = {}
        for row in self.live().filter(subject__in=subjects, id_token__isnull=False).order_by("pk"):
            try:
                names = list_personal_claims(parse_compact_jws(row.decrypt("id_token")).payload)
                is_personal = bool(names)
            except (KeyRingError, IDTokenError):
                names = ()
                is_personal = True
            if is_personal:
                personal[row.pk] = cast(int, row.subject_id), names
        return personal


@dataclass(frozen=True, slots=True, kw_only=True)
class DecryptedColumns:
    """The encrypted columns of a session that are not empty, by what their decryption gave."""

    plaintexts: dict[EncryptedColumnName, str] = field(default_factory=dict, repr=False)
    ciphertexts: dict[EncryptedColumnName, EncryptedText] = field(default_factory=dict)
    """Those whose key is missing here and now; they may be intact."""
    damaged: list[EncryptedColumnName] = field(default_factory=list)


class OIDCSession(models.Model):
    """Connects a Django session with what the provider issued for it. An ended session has no
    tokens.
    """

    id = models.UUIDField(_("id"), primary_key=True, editable=False)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        verbose_name=_("user"),
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
    )
    subject = models.ForeignKey(
        PairwiseSubject, null=True, on_delete=models.SET_NULL, related_name="+"
    )
    provider = models.CharField(_("provider"), max_length=64)
    issuer = models.CharField(max_length=255)
    sid_digest = models.CharField(max_length=64, blank=True)
    """SHA-256 of the ID Token's `sid`, hexadecimal, or empty."""
    session_key = SealedTextField(bind=("id",), null=True)
    session_key_digest = models.CharField(max_length=64)
    """SHA-256 of the Django session key, hexadecimal. A key of at least 160 random bits cannot be
    guessed from it.
    """
    access_token = SealedTextField(bind=("id",), null=True)
    access_token_digest = models.CharField(max_length=64, null=True)  # noqa: DJ001 -- as in PendingRevocation
    """`compute_token_digest`: an end moves the token to its revocation without decrypting it."""
    refresh_token = SealedTextField(bind=("id",), null=True)
    dpop_seed = SealedTextField(bind=("id",), null=True)
    """Of the key that the tokens are bound to (`oidc.dpop.create_proof_key`). None: they are Bearer
    tokens.
    """
    id_token = SealedTextField(bind=("id",), null=True)
    """Only as the hint of a logout, and only if its provider's `id_token_hint` permits to store
    it.
    """
    id_token_claims = SealedTextField(bind=("id",), null=True)
    """JSON: the protocol claims of the ID Token that a refresh compares, and `sid`."""
    access_token_expires_at = models.DateTimeField(_("access token expires at"), null=True)
    auth_time = models.DateTimeField(_("auth time"), null=True)
    acr = models.CharField(_("acr"), max_length=255, blank=True)
    started_at = models.DateTimeField(_("started at"))
    last_seen_at = models.DateTimeField(_("last seen at"))
    due_at = models.DateTimeField(default=DUE_AT_ONCE, db_default=DUE_AT_ONCE, editable=False)
    """When `phi_oidc.end_overdue` compares the other times with the timeouts; it does not time out
    earlier.

    Only that task changes it, so that a later `last_seen_at` is written without a change of any
    index.
    """
    ended_at = models.DateTimeField(_("ended at"), null=True, db_index=True)
    end_reason = models.CharField(_("end reason"), max_length=32, choices=EndReason, blank=True)
    refresh_lease_until = models.DateTimeField(null=True)
    # Defaults of the database: during an update, servers with the former release insert rows
    # without these columns.
    browser = models.CharField(max_length=32, blank=True, default="", db_default="")
    platform = models.CharField(max_length=32, blank=True, default="", db_default="")
    network = models.CharField(max_length=64, blank=True, default="", db_default="")
    """These three: the place of the sign-in, as `sign_in_places` stores it, so that the user
    recognizes the session.
    """

    objects = OIDCSessionQuerySet.as_manager()

    class Meta:
        verbose_name = _("OIDC session")
        verbose_name_plural = _("OIDC sessions")
        indexes = (
            # Each sign-in pays for each index. Logouts by `sid` look for live sessions only.
            models.Index(
                fields=["sid_digest"],
                condition=models.Q(sid_digest__gt="", ended_at=None),
                name="phi_oidc_session_sid",
            ),
            models.Index(fields=["started_at"], name="phi_oidc_session_started"),
            models.Index(
                fields=["due_at"], condition=models.Q(ended_at=None), name="phi_oidc_session_due"
            ),
        )
        default_permissions = ("view",)
        permissions = (("end_oidcsession", gettext_noop("Can end sessions")),)

    def __str__(self) -> str:
        return str(self.pk)

    @sensitive_variables()
    def decrypt(
        self, column: EncryptedColumnName, *, keys: Sequence[SymmetricKey] | None = None
    ) -> str:
        """Return the plaintext of the column, or empty, and register a token as a secret of the
        current request.

        The Django session key is not registered, because the session cookie of the response
        contains it.
        keys, Raises: as `SealedTextField.decrypt`.
        """
        value = cast(SealedTextField, self._meta.get_field(column)).decrypt(self, keys=keys) or ""
        if column in ("dpop_seed", "id_token", *TOKEN_HINTS):
            request_secrets.register_secret(value, column)
        return value

    @sensitive_variables()
    def decrypt_columns(
        self,
        columns: Sequence[EncryptedColumnName] = ENCRYPTED_COLUMNS,
        *,
        keys: Sequence[SymmetricKey],
    ) -> DecryptedColumns:
        """Return what the columns contain, as far as these encryption keys decrypt it. keys: may be
        none.
        """
        result = DecryptedColumns()
        for column in columns:
            try:
                if value := self.decrypt(column, keys=keys):
                    result.plaintexts[column] = value
            except KeyRingError as error:
                if error.is_key_missing:
                    result.ciphertexts[column] = getattr(self, column)
                else:
                    result.damaged.append(column)
        return result


REVOCATION_LEASE = timedelta(seconds=30)
"""Longer than the limit of any call."""
_MAX_WAIT = 2 * MAX_RETRY_AFTER
"""Twice the longest back-off, because the clocks of two servers differ."""


class RevocationStatus(models.TextChoices):
    """The status of a revocation. All but PENDING are final."""

    PENDING = "pending", _("pending")
    DONE = "done", _("revoked")
    UNSUPPORTED = "unsupported", _("not supported by the provider")
    REFUSED = "refused", _("refused by the provider")
    ABANDONED = "abandoned", _("abandoned")


class SessionToken(NamedTuple):
    """A token that a session stores."""

    session_id: uuid.UUID
    hint: TokenTypeHint


_MOVED_COLUMNS: Mapping[TokenTypeHint, Mapping[str, str]] = {
    "refresh_token": {},
    "access_token": {
        "token_digest": "access_token_digest",
        "token_expires_at": "access_token_expires_at",
    },
}
"""The columns of a session that are moved with its token."""
_MOVED_AT_ONCE = 400
"""Tokens moved by one statement. SQLite limits the number of its parameters."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenToRevoke:
    """A token that must be revoked at the provider."""

    token: ReceivedToken
    provider: str
    session_id: uuid.UUID | None = None
    """None for the tokens of a refused sign-in."""
    access_token_expires_at: datetime | None = None


class PendingRevocationQuerySet(LeasedQuerySet["PendingRevocation"]):
    """Creates revocations and finds those that are due."""

    def queue(self, tokens: Iterable["TokenToRevoke"], *, now: datetime) -> tuple[uuid.UUID, ...]:
        """Create a row that is due at once for each token, by one statement; return their ids in
        order.
        """
        rows: list[PendingRevocation] = []
        for item in tokens:
            is_access_token = item.token.token_type_hint == "access_token"
            rows.append(
                self.model(
                    id=randomness.uuid7(now),
                    provider=item.provider,
                    session=item.session_id,
                    token=item.token.value,
                    token_type_hint=item.token.token_type_hint,
                    token_digest=compute_token_digest(item.token.value)
                    if is_access_token
                    else None,
                    token_expires_at=item.access_token_expires_at if is_access_token else None,
                    due_at=now,
                    created_at=now,
                )
            )
        if rows:
            insert(rows, using=router.db_for_write(self.model))
        return tuple(row.id for row in rows)

    def move_tokens(
        self,
        tokens: Sequence["SessionToken"],
        *,
        now: datetime,
        due_at: datetime | None = None,
        is_leased: bool = False,
        end_job: uuid.UUID | None = None,
    ) -> tuple[list[uuid.UUID], dict[uuid.UUID, "PendingRevocation"]]:
        """Create a row for each of these tokens, with its ciphertext, by one statement for each
        400; return their ids.

        No key is needed. The caller empties the columns of the sessions.
        due_at: None means at once. is_leased: the caller tries them first, after the commit, and
        gets the rows by id as well. end_job: the id of the job that ends the sessions. Requires:
        the sessions are locked, and have the tokens.
        """
        shared: dict[str, Any] = {
            "status": RevocationStatus.PENDING.value,
            "last_fault": "",
            "missing_key": "",
            "attempts": 0,
        }
        shared |= {"due_at": due_at or now, "created_at": due_at or now}

        if end_job:
            shared |= {"end_job": end_job}
        else:
            shared |= {}

        if is_leased:
            shared |= {
                "attempts": 1,
                "first_attempt_at": now,
                "lease_until": now + REVOCATION_LEASE,
            }
        ids = [randomness.uuid7(now) for _ in tokens]
        rows: list[PendingRevocation] = []
        using = router.db_for_write(self.model)
        for start in range(0, len(tokens), _MOVED_AT_ONCE):
            end = start + _MOVED_AT_ONCE
            part = list(zip(ids[start:end], tokens[start:end], strict=True))
            copies = []
            for hint, further_columns in _MOVED_COLUMNS.items():
                copies.append(
                    CopiedRows(
                        keys=[(pk, token.session_id) for pk, token in part if token.hint == hint],
                        columns={
                            "provider": "provider",
                            "session": "id",
                            "session_token": hint,
                            **further_columns,
                        },
                        values={"token_type_hint": hint, **shared},
                    )
                )
            rows += insert_copies(
                self.model, copies, source=OIDCSession, using=using, returning=is_leased
            )
        return ids, {row.pk: row for row in rows}

    def make_due_now(
        self,
        session_ids: Sequence[uuid.UUID],
        *,
        keep_offline_session_ids: Collection[uuid.UUID],
        now: datetime,
        end_job: uuid.UUID | None = None,
    ) -> dict[uuid.UUID | None, list[uuid.UUID]]:
        """Make the later revocations of these sessions due now; return their ids by session,
        refresh tokens first.

        keep_offline_session_ids: refresh tokens of these sessions that were not yet to be revoked
        stay valid.
        Their rows are deleted.
        """
        later = self.filter(
            any_of("session", session_ids), status=RevocationStatus.PENDING, due_at__gt=now
        )
        if keep_offline_session_ids:
            offline = later.filter(
                session__in=keep_offline_session_ids, token_type_hint="refresh_token"
            )
            offline.filter(created_at__gt=now).delete()
        ids_by_session: dict[uuid.UUID | None, list[uuid.UUID]] = {}
        for session, pk in later.order_by("-token_type_hint").values_list("session", "pk"):
            ids_by_session.setdefault(session, []).append(pk)
        if ids_by_session:
            later.update(
                due_at=now, created_at=Least("created_at", models.Value(now)), end_job=end_job
            )
        return ids_by_session

    def due(self, now: datetime) -> Self:
        """Return the pending revocations that are due and not leased.

        A row that waits for its next attempt longer than any back-off was written by a clock that
        was ahead: it is due.
        """
        is_due = models.Q(due_at__lte=now) | models.Q(attempts__gt=0, due_at__gt=now + _MAX_WAIT)
        return self.unleased(now, lease=REVOCATION_LEASE).filter(
            is_due, status=RevocationStatus.PENDING
        )

    def not_blocked(
        self, now: datetime, *, key_ids: Collection[str], providers: Collection[str]
    ) -> Self:
        """Leave out the rows that a process with the same fault has tried and left to others.

        key_ids: of the encryption keys that this process has. providers: those that it declares.
        """
        return self.filter(
            models.Q(blocked_until=None)
            | models.Q(blocked_until__lte=now)
            | models.Q(blocked_until__gt=now + _MAX_WAIT)
            | models.Q(missing_key__in=key_ids)
            | models.Q(missing_key="", provider__in=providers)
        )

    def at_ready_providers(self, now: datetime) -> Self:
        """Leave out the providers that have asked for no request before a later time than now
        (Retry-After).
        """
        waiting = self.model._default_manager.filter(
            status=RevocationStatus.PENDING,
            provider_busy_until__gt=now,
            provider_busy_until__lte=now + _MAX_WAIT,
        )
        return self.exclude(provider__in=waiting.values("provider"))

    def lease_due(self, *, now: datetime, limit: int | None = None) -> list["PendingRevocation"]:
        """Acquire the leases of those of these rows that are due, and return them: longest due,
        then refresh tokens.

        Two statements for any number of rows. Rows that another transaction locks are skipped.
        Requires: an open transaction, which is committed before the work begins.
        """
        rows = list(
            self.due(now)
            .order_by("due_at", "-token_type_hint", "id")
            .lock(skip_locked=True)[:limit]
        )
        if rows:
            first_attempt_at = Least(
                Coalesce("first_attempt_at", models.Value(now)), models.Value(now)
            )
            self.model._default_manager.filter(pk__in=[row.pk for row in rows]).update(
                lease_until=now + REVOCATION_LEASE,
                attempts=models.F("attempts") + 1,
                # Not later than now: the clock of the first attempt may have been ahead.
                first_attempt_at=first_attempt_at,
            )
        for row in rows:
            row.attempts += 1
            row.first_attempt_at = min(row.first_attempt_at or now, now)
        return rows

    def lock(self, *, skip_locked: bool = False) -> Self:
        """Lock the rows until the commit, when they are read. On SQLite, lock the database at
        once.
        """
        features = connections[self.db].features
        if features.has_select_for_update:
            return self.select_for_update(
                skip_locked=skip_locked and features.has_select_for_update_skip_locked
            )
        # A write that changes nothing: after a read, SQLite may refuse the first write.
        self.model._default_manager.filter(pk=uuid.UUID(int=0)).update(lease_until=None)
        return self.all()


class PendingRevocation(models.Model):
    """One token to revoke at the provider. A finished row has no token."""

    id = models.UUIDField(_("id"), primary_key=True, editable=False)
    provider = models.CharField(_("provider"), max_length=64)
    session = models.UUIDField(_("session"), null=True)
    """The OIDC session that had the token; None for the tokens of a refused sign-in."""
    token = SealedTextField(bind=("id",), null=True)
    session_token = SealedTextField(
        bind=("token_type_hint", "session"), source_table="django_phi_oidc_oidcsession", null=True
    )
    """Instead of `token`: the ciphertext from the session's column, which needs no key to be moved
    here.
    """
    token_type_hint = models.CharField(_("token type hint"), max_length=16)
    token_digest = models.CharField(max_length=64, null=True)  # noqa: DJ001 -- every index can leave out NULL
    """Of an access token: `compute_token_digest`. Kept when it is revoked."""
    token_expires_at = models.DateTimeField(_("token expires at"), null=True)
    status = models.CharField(
        _("status"), max_length=16, choices=RevocationStatus, default=RevocationStatus.PENDING
    )
    attempts = models.PositiveIntegerField(_("attempts"), default=0)
    due_at = models.DateTimeField(_("due at"))
    lease_until = models.DateTimeField(null=True)
    last_fault = models.CharField(_("last fault"), max_length=64, blank=True)
    created_at = models.DateTimeField(_("created at"))
    """When the token was first to be revoked."""
    first_attempt_at = models.DateTimeField(_("first attempt at"), null=True)
    """`REVOCATION_GIVE_UP_AFTER` counts from it: without workers or keys, no revocation is
    abandoned.
    """
    finished_at = models.DateTimeField(_("finished at"), null=True)
    provider_busy_until = models.DateTimeField(null=True, editable=False)
    """From a Retry-After: until then, sweeps send the provider no request for any token."""
    blocked_until = models.DateTimeField(null=True, editable=False)
    """Set by a process that lacks the key, or does not declare the provider: until then, such
    processes leave the row to the others, for which it stays due.
    """
    missing_key = models.CharField(max_length=KEY_ID_LENGTH, blank=True, editable=False)
    """The id of the encryption key that the process lacked; empty if it lacked none."""
    end_job = models.UUIDField(null=True, editable=False)
    """The id of the job of an app that ended the session, for its progress page."""

    objects = PendingRevocationQuerySet.as_manager()

    class Meta:
        verbose_name = _("pending revocation")
        verbose_name_plural = _("pending revocations")
        indexes = (
            models.Index(
                fields=["due_at"],
                condition=models.Q(status="pending"),
                name="phi_oidc_revocation_due",
            ),
            models.Index(
                fields=["session"],
                condition=models.Q(status="pending"),
                name="phi_oidc_revocation_session",
            ),
            models.Index(
                fields=["token_digest"],
                condition=models.Q(token_digest__isnull=False),
                name="phi_oidc_revocation_token",
            ),
            models.Index(
                fields=["provider_busy_until"],
                condition=models.Q(provider_busy_until__isnull=False),
                name="phi_oidc_revocation_busy",
            ),
            models.Index(
                fields=["end_job"],
                condition=models.Q(end_job__isnull=False),
                name="phi_oidc_revocation_end_job",
            ),
        )
        default_permissions = ("view",)
        permissions = (
            ("retry_pendingrevocation", gettext_noop("Can have revocations tried again")),
        )

    def __str__(self) -> str:
        return f"{self.token_type_hint} {self.pk}"

    def get_key_id(self) -> str:
        """Return the id of the encryption key of the token; empty if its ciphertext names none."""
        ciphertexts: tuple[Any, Any] = (self.token, self.session_token)
        for ciphertext in ciphertexts:
            if not isinstance(ciphertext, EncryptedText):
                continue
            if len(ciphertext.key_id) == KEY_ID_LENGTH:
                return ciphertext.key_id
        return ""

    @sensitive_variables()
    def decrypt_token(self) -> str:
        """Return the token, and register it as a secret of the current request. Raises:
        KeyRingError.
        """
        for column in ("token", "session_token"):
            value = cast(SealedTextField, self._meta.get_field(column)).decrypt(self)
            if value is not None:
                break
        else:
            raise Undecryptable
        request_secrets.register_secret(value, self.token_type_hint)
        return value
