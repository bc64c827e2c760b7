"""Sessions and pending revocations: list, end, and retry. No token, `sid` or session key is displayed."""

import uuid
from collections.abc import Sequence
from typing import Any

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy, ngettext

from .. import conf
from .._internal import clock
from ..audit.admin_base import ReadOnlyAdmin
from ..audit.request_context import Actor
from . import token_revocation
from .lifecycle import EndedSession, end_sessions
from .models import EndReason, OIDCSession, PendingRevocation, RevocationStatus
from .tasks import revoke_after_commit

SESSION_BATCH_SIZE = 500
"""Sessions ended by the same statements."""
MAX_INLINE_REVOCATIONS = 100
"""A request revokes at most this many tokens itself, because it leases all of them before the first attempt."""


class ProviderFilter(admin.SimpleListFilter):
    """Offers the declared providers, because finding those of a large table would scan it."""

    title = gettext_lazy("provider")
    parameter_name = "provider"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(name, declared.label or name) for name, declared in conf.providers().items()]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        return queryset.filter(provider=self.value()) if self.value() else queryset


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
        origin = Actor.from_request(request).origin
        ended: list[EndedSession] = []
        for start in range(0, len(ids), SESSION_BATCH_SIZE):
            batch = ids[start : start + SESSION_BATCH_SIZE]
            ended += end_sessions(batch, EndReason.ADMINISTRATOR, origin=origin, now=clock.now())
        _revoke_inline_if_few([pk for session in ended for pk in session.revocation_ids])
        message = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", len(ended))
        self.message_user(request, message % {"count": len(ended)}, messages.SUCCESS)


@admin.register(PendingRevocation)
class PendingRevocationAdmin(ReadOnlyAdmin):
    """Tokens to revoke at the provider, and revoked ones."""

    list_display = (
        *("id", "provider", "token_type_hint", "status", "attempts", "last_fault"),
        *("due_at", "created_at", "finished_at"),
    )
    list_filter = ("status", ProviderFilter)
    fields = (*list_display, "session", "token_expires_at")
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


def _revoke_inline_if_few(revocation_ids: Sequence[uuid.UUID]) -> None:
    if len(revocation_ids) <= MAX_INLINE_REVOCATIONS:
        revoke_after_commit(revocation_ids)
