"""Sessions and pending revocations: list, end, and retry. No token, `sid` or session key is displayed."""

import uuid
from collections.abc import Sequence
from datetime import datetime

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy, ngettext

from .. import conf
from .._internal import clock
from .._internal.admin_filters import create_choice_filter
from ..audit.admin_base import ReadOnlyAdmin
from ..audit.events import Origin
from ..audit.request_context import Actor
from . import token_revocation
from .lifecycle import end_sessions
from .models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from .tasks import revoke_after_commit

SESSION_BATCH_SIZE = 500
"""Sessions ended by the same statements."""
MAX_INLINE_REVOCATIONS = 100
"""A request revokes at most this many tokens itself, because it leases all of them before the first attempt."""

ProviderFilter = create_choice_filter(
    gettext_lazy("provider"),
    "provider",
    lambda: [(name, declaration.label or name) for name, declaration in conf.providers().items()],
)


@admin.register(OIDCSession)
class OIDCSessionAdmin(ReadOnlyAdmin):
    """Live and ended sessions."""

    list_display = ("id", "user", "provider", "started_at", "last_seen_at", "ended_at", "end_reason")
    list_filter = (("ended_at", admin.EmptyFieldListFilter), ProviderFilter, "end_reason")
    list_select_related = ("user",)
    fields = (*list_display, "auth_time", "acr", "access_token_expires_at")
    ordering = ("-started_at",)
    search_help_text = gettext_lazy("The full user name.")
    actions = ("end_now",)

    def get_search_fields(self, request: HttpRequest) -> tuple[str, ...]:
        return (f"user__{get_user_model().USERNAME_FIELD}__exact",)

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.end_oidcsession")

    @admin.action(description=gettext_lazy("End now"), permissions=["end"])
    def end_now(self, request: HttpRequest, queryset: QuerySet[OIDCSession]) -> None:
        """End the selected live sessions. Their tokens are revoked within 2 s, or in the sweep."""
        ids: list[uuid.UUID] = list(queryset.filter(ended_at=None).order_by().values_list("pk", flat=True))
        message = end_selected_sessions(ids, origin=Actor.from_request(request).origin, now=clock.now())
        self.message_user(request, message, messages.SUCCESS)


@admin.register(PendingRevocation)
class PendingRevocationAdmin(ReadOnlyAdmin):
    """Tokens to revoke at the provider, and revoked ones."""

    list_display = (
        *("id", "provider", "token_type_hint", "status", "attempts", "last_fault"),
        *("due_at", "created_at", "finished_at"),
    )
    list_filter = ("status", ProviderFilter)
    fields = (*list_display, "first_attempt_at", "session", "token_expires_at")
    # The id starts with the creation time and has an index.
    ordering = ("-id",)
    actions = ("retry",)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.retry_pendingrevocation")

    @admin.action(description=gettext_lazy("Try again now"), permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[PendingRevocation]) -> None:
        """Retry the selected pending revocations regardless of their back-off, within 2 s or in the sweep."""
        pending = queryset.filter(status=RevocationStatus.PENDING).order_by().values_list("pk", flat=True)
        pks = token_revocation.reset_backoff(now=clock.now(), revocation_ids=list(pending))
        _revoke_inline_if_few(pks)
        done = PendingRevocation.objects.filter(pk__in=pks, finished_at__isnull=False).count()
        message = ngettext(
            "%(done)d of %(count)d revocation is finished. The sweep retries the others.",
            "%(done)d of %(count)d revocations are finished. The sweep retries the others.",
            len(pks),
        )
        level = messages.SUCCESS if done == len(pks) else messages.WARNING
        self.message_user(request, message % {"done": done, "count": len(pks)}, level)


def end_selected_sessions(session_ids: Sequence[uuid.UUID], *, origin: Origin, now: datetime) -> str:
    """End these sessions, and return a message. Their tokens are revoked within 2 s, or by the sweep."""
    ended_sessions = [
        ended
        for start in range(0, len(session_ids), SESSION_BATCH_SIZE)
        for ended in end_sessions(
            session_ids[start : start + SESSION_BATCH_SIZE], EndReason.ADMINISTRATOR, origin=origin, now=now
        )
    ]
    _revoke_inline_if_few([pk for ended in ended_sessions for pk in ended.revocation_ids])
    count = len(ended_sessions)
    return ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", count) % {"count": count}


def _revoke_inline_if_few(revocation_ids: Sequence[uuid.UUID]) -> None:
    if len(revocation_ids) <= MAX_INLINE_REVOCATIONS:
        revoke_after_commit(revocation_ids)
