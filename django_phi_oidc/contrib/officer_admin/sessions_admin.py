"""Sessions and pending revocations: list, end, and retry. No token, `sid` or session key is
displayed.
"""

import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..._internal import clock
from ..._internal.admin_columns import create_time_column, format_utc
from ...audit.admin_actions import RowActionsAdmin, confirmed_action
from ...audit.descriptions import get_reason_label, get_reason_phrase
from ...audit.events import Origin
from ...audit.request_context import Actor
from ...oidc.remedies import get_remedy
from ...provider.labels import get_provider_label, list_provider_choices
from ...sessions import token_revocation
from ...sessions.lifecycle import end_sessions
from ...sessions.models import (
    ENCRYPTED_COLUMNS,
    EndReason,
    OIDCSession,
    PendingRevocation,
    RevocationStatus,
)
from ...sessions.session_selection import refuse_several_people
from ...sessions.sign_in_places import get_device_label
from ...sessions.tasks import revoke_after_commit
from ..common.admin_fields import build_technical_fieldset, create_code_column
from ..common.admin_filters import create_choice_filter, create_state_filter
from ..common.people_admin import PeopleAdmin
from .revocation_descriptions import describe_revocation

SESSION_BATCH_SIZE = 500
"""Sessions ended by the same statements."""
MAX_INLINE_REVOCATIONS = 100
"""A request revokes at most this many tokens itself, because it leases all of them before the first
attempt.
"""

ProviderFilter = create_choice_filter(gettext_lazy("provider"), "provider", list_provider_choices)
SessionStateFilter = create_state_filter(
    gettext_lazy("state"),
    "ended_at__isempty",
    {
        "1": (gettext_lazy("Live"), lambda rows: rows.filter(ended_at=None)),
        "0": (gettext_lazy("Ended"), lambda rows: rows.filter(ended_at__isnull=False)),
    },
    indexed=("1", "0"),
)
EndReasonFilter = create_choice_filter(
    gettext_lazy("end reason"),
    "end_reason__exact",
    lambda: [(reason.value, get_reason_label(reason.value)) for reason in EndReason],
)
RevocationStateFilter = create_state_filter(
    gettext_lazy("state"),
    "status__exact",
    {
        "pending": (gettext_lazy("Pending"), lambda rows: rows.filter(status="pending")),
        "finished": (gettext_lazy("Finished"), lambda rows: rows.exclude(status="pending")),
        "done": (gettext_lazy("Finished: revoked"), lambda rows: rows.filter(status="done")),
        "refused": (gettext_lazy("Finished: refused"), lambda rows: rows.filter(status="refused")),
        "unsupported": (
            gettext_lazy("Finished: not supported"),
            lambda rows: rows.filter(status="unsupported"),
        ),
        "abandoned": (
            gettext_lazy("Finished: abandoned"),
            lambda rows: rows.filter(status="abandoned"),
        ),
    },
    default="pending",
    indexed=("pending",),
)


class OIDCSessionAdmin(PeopleAdmin, RowActionsAdmin):
    """Live and ended sessions."""

    account_lookup = "user"
    uuid_lookups = ("pk",)
    list_display_links = ("started",)
    list_filter = (SessionStateFilter, ProviderFilter, EndReasonFilter)
    sortable_by = ()
    fieldsets = (
        (
            None,
            {
                "fields": (
                    "person",
                    "provider_label",
                    "state",
                    "started",
                    "last_seen",
                    "ended",
                    "device",
                    "address_range",
                )
            },
        ),
        (gettext_lazy("Sign-in"), {"fields": ("signed_in", "assurance", "access_token_expires")}),
        build_technical_fieldset("id", "issuer_url", "subject_uuid", "end_reason_code"),
    )
    search_help_text = gettext_lazy(
        "The beginning of a name or user name, or a complete account, session or subject ID."
    )
    actions = ("end_now",)

    started = create_time_column("started_at", gettext_lazy("Started (UTC)"))
    last_seen = create_time_column("last_seen_at", gettext_lazy("Last seen (UTC)"))
    ended = create_time_column("ended_at", gettext_lazy("Ended (UTC)"))
    signed_in = create_time_column("auth_time", gettext_lazy("Authenticated by the provider (UTC)"))
    end_reason_code = create_code_column("end_reason", gettext_lazy("End reason"))
    issuer_url = create_code_column("issuer", gettext_lazy("Issuer"))
    access_token_expires = create_time_column(
        "access_token_expires_at", gettext_lazy("Access token expires (UTC)")
    )

    def get_list_display(self, request: HttpRequest) -> tuple[str, ...]:
        if _is_list_of_ended(request):
            last = "ended"
        else:
            last = "last_seen"
        return "person", "started", "device", "provider_label", last, "state"

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Put the session first that started last, or ended last. Other orders would need an
        index.
        """
        if _is_list_of_ended(request):
            return ("-ended_at",)
        return ("-started_at",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OIDCSession]:
        rows: QuerySet[OIDCSession] = super().get_queryset(request).defer(*ENCRYPTED_COLUMNS)
        if _is_list_of_ended(request):
            return rows.filter(ended_at__isnull=False)
        return rows

    def list_actors(self, row: OIDCSession) -> Iterable[str]:
        return (str(row.user_id),)

    @admin.display(description=gettext_lazy("Person"))
    def person(self, row: OIDCSession) -> str:
        if row.user_id is None:
            return _("Deleted account")
        return self.show_actor(row, str(row.user_id))

    @admin.display(description=gettext_lazy("Provider"))
    def provider_label(self, row: OIDCSession) -> str:
        return get_provider_label(row.provider)

    @admin.display(description=gettext_lazy("Device"))
    def device(self, row: OIDCSession) -> str:
        return get_device_label(row.browser, row.platform)

    @admin.display(description=gettext_lazy("Address range"))
    def address_range(self, row: OIDCSession) -> str:
        return row.network or str(self.get_empty_value_display())

    @admin.display(description=gettext_lazy("State"))
    def state(self, row: OIDCSession) -> str:
        if row.ended_at is None:
            return _("Live")
        return _("Ended: %(reason)s") % {"reason": get_reason_phrase(row.end_reason)}

    @admin.display(description=gettext_lazy("Assurance level (acr)"))
    def assurance(self, row: OIDCSession) -> str:
        return row.acr or str(self.get_empty_value_display())

    @admin.display(description=gettext_lazy("Subject"))
    def subject_uuid(self, row: OIDCSession) -> str:
        return str(row.subject or self.get_empty_value_display())

    def describe_row(self, row: OIDCSession) -> str:
        """Return person, provider and start."""
        if row.user_id is None:
            person = _("Deleted account")
        else:
            person = self.get_name(row, str(row.user_id))

        texts = {
            "person": person,
            "provider": get_provider_label(row.provider),
            "time": format_utc(row.started_at),
        }
        return _("%(person)s, %(provider)s, started %(time)s UTC") % texts

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.end_oidcsession")

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        may_end_many = request.user.has_perm("phi_oidc_officer_admin.end_many_oidcsessions")
        context = {"may_end_many": may_end_many, **(extra_context or {})}
        return super().changelist_view(request, context)

    @confirmed_action(
        description=gettext_lazy("End now"),
        permissions=["end"],
        can_apply=lambda row: row.ended_at is None,
        ask=lambda count: (
            ngettext("End %(count)d session now?", "End %(count)d sessions now?", count)
            % {"count": count}
        ),
        consequence=gettext_lazy(
            "The person is signed out, and the tokens of these sessions are revoked."
        ),
        describe_skipped=lambda count: (
            ngettext(
                "%(count)d session had already ended and was skipped.",
                "%(count)d sessions had already ended and were skipped.",
                count,
            )
            % {"count": count}
        ),
        refuse=refuse_several_people,
    )
    def end_now(self, request: HttpRequest, rows: Sequence[OIDCSession]) -> None:
        """End the selected live sessions. Their tokens are revoked within 2 s, or in the sweep."""
        message = end_selected_sessions(
            [row.pk for row in rows],
            origin=Actor.from_request(request).origin,
            now=clock.now(),
        )
        self.message_user(request, message, messages.SUCCESS)


class PendingRevocationAdmin(PeopleAdmin, RowActionsAdmin):
    """Tokens to revoke at the provider, and revoked ones."""

    uuid_lookups = ("pk", "session")
    list_display = ("created", "person", "provider_label", "token_kind", "state")
    list_filter = (RevocationStateFilter, ProviderFilter)
    sortable_by = ()
    fieldsets = (
        (None, {"fields": ("person", "provider_label", "token_kind", "state", "remedy")}),
        (
            gettext_lazy("Attempts"),
            {
                "fields": (
                    "created",
                    "first_attempted",
                    "attempts",
                    "due",
                    "finished",
                    "token_expires",
                )
            },
        ),
        build_technical_fieldset("id", "session_link", "status_code", "last_fault_code"),
    )
    search_help_text = gettext_lazy(
        "The beginning of a name or user name, or a complete account, session or revocation ID."
    )
    actions = ("retry",)

    created = create_time_column("created_at", gettext_lazy("Since (UTC)"))
    first_attempted = create_time_column("first_attempt_at", gettext_lazy("First attempt (UTC)"))
    due = create_time_column("due_at", gettext_lazy("Next attempt (UTC)"))
    finished = create_time_column("finished_at", gettext_lazy("Finished (UTC)"))
    status_code = create_code_column("status", gettext_lazy("Status"))
    last_fault_code = create_code_column("last_fault", gettext_lazy("Last fault"))
    token_expires = create_time_column("token_expires_at", gettext_lazy("Token expires (UTC)"))

    def get_ordering(self, request: HttpRequest) -> tuple[str, ...]:
        """Put the next attempt first, or the newest row: an id starts with the creation time. Both
        have an index.
        """
        if request.GET.get("status__exact", "pending") == "pending":
            return ("due_at",)
        return ("-id",)

    def get_queryset(self, request: HttpRequest) -> QuerySet[PendingRevocation]:
        return super().get_queryset(request).defer("token", "session_token")

    def attach_people(self, request: HttpRequest, rows: Iterable[Any]) -> None:
        """Look up the accounts of the sessions first."""
        rows = list(rows)
        sessions = OIDCSession.objects.filter(pk__in={row.session for row in rows if row.session})
        accounts = dict(sessions.values_list("pk", "user"))
        may_view = request.user.has_perm("django_phi_oidc.view_oidcsession")
        for row in rows:
            account = accounts.get(row.session)
            if account is None:
                row.account = ""
            else:
                row.account = str(account)

            row.has_session_link = may_view and row.session in accounts
        super().attach_people(request, rows)

    def list_actors(self, row: Any) -> Iterable[str]:
        return (row.account,)

    def filter_by_accounts(self, queryset: QuerySet[Any], accounts: Sequence[Any]) -> QuerySet[Any]:
        sessions = OIDCSession.objects.filter(user__in=accounts)
        return queryset.filter(session__in=list(sessions.order_by().values_list("pk", flat=True)))

    @admin.display(description=gettext_lazy("Person"))
    def person(self, row: Any) -> str:
        return self.show_actor(row, row.account)

    @admin.display(description=gettext_lazy("Provider"))
    def provider_label(self, row: PendingRevocation) -> str:
        return get_provider_label(row.provider)

    @admin.display(description=gettext_lazy("Token"))
    def token_kind(self, row: PendingRevocation) -> str:
        if row.token_type_hint == "refresh_token":
            return _("Refresh token")
        return _("Access token")

    @admin.display(description=gettext_lazy("State"))
    def state(self, row: PendingRevocation) -> str:
        return describe_revocation(row)

    @admin.display(description=gettext_lazy("Session"))
    def session_link(self, row: Any) -> str:
        if not row.has_session_link:
            return str(row.session or self.get_empty_value_display())
        url = reverse(
            "admin:django_phi_oidc_oidcsession_change",
            args=[row.session],
            current_app=self.admin_site.name,
        )
        return format_html('<a href="{}">{}</a>', url, row.session)

    def describe_row(self, row: Any) -> str:
        """Return the person, or the provider for the tokens of a refused sign-in, and the token."""
        name = self.get_name(row, row.account) or get_provider_label(row.provider)
        return _("%(name)s: %(token)s") % {"name": name, "token": self.token_kind(row)}

    def has_retry_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.retry_pendingrevocation")

    @admin.display(description=gettext_lazy("What to do"))
    def remedy(self, revocation: PendingRevocation) -> str:
        """Return what an operator can do about the last fault."""
        code, _space, provider_error = revocation.last_fault.partition(" ")
        if code:
            return _(get_remedy(code, provider_error))
        return str(self.get_empty_value_display())

    @confirmed_action(
        description=gettext_lazy("Try again now"),
        permissions=["retry"],
        can_apply=lambda row: row.status == RevocationStatus.PENDING,
        ask=lambda count: (
            ngettext(
                "Try %(count)d revocation again now?", "Try %(count)d revocations again now?", count
            )
            % {"count": count}
        ),
        consequence=gettext_lazy(
            "The portal asks the provider now, and does not wait for the next attempt."
        ),
        describe_skipped=lambda count: (
            ngettext(
                "%(count)d revocation was finished and was skipped.",
                "%(count)d revocations were finished and were skipped.",
                count,
            )
            % {"count": count}
        ),
    )
    def retry(self, request: HttpRequest, rows: Sequence[PendingRevocation]) -> None:
        """Retry the selected pending revocations regardless of their back-off, within 2 s or in the
        sweep.
        """
        pks = token_revocation.reset_backoff(
            now=clock.now(), revocation_ids=[row.pk for row in rows]
        )
        _revoke_inline_if_few(pks)
        done = PendingRevocation.objects.filter(pk__in=pks, finished_at__isnull=False).count()
        message = ngettext(
            "%(done)d of %(count)d revocation is finished. The sweep retries the others.",
            "%(done)d of %(count)d revocations are finished. The sweep retries the others.",
            len(pks),
        )

        if done == len(pks):
            level = messages.SUCCESS
        else:
            level = messages.WARNING

        self.message_user(request, message % {"done": done, "count": len(pks)}, level)


def _is_list_of_ended(request: HttpRequest) -> bool:
    """Return whether the filters select ended sessions only."""
    state = request.GET.get(
        "ended_at__isempty", "0" if request.GET.get("end_reason__exact") else ""
    )
    return state == "0"


def end_selected_sessions(
    session_ids: Sequence[uuid.UUID], *, origin: Origin, now: datetime
) -> str:
    """End these sessions, and return a message. Their tokens are revoked within 2 s, or by the
    sweep.
    """
    count = 0
    revocation_ids = list[uuid.UUID]()
    for start in range(0, len(session_ids), SESSION_BATCH_SIZE):
        for ended in end_sessions(
            session_ids[start : start + SESSION_BATCH_SIZE],
            EndReason.ADMINISTRATOR,
            origin=origin,
            now=now,
        ):
            count += 1
            revocation_ids.extend(ended.revocation_ids)
    _revoke_inline_if_few(revocation_ids)
    return ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", count) % {
        "count": count
    }


def _revoke_inline_if_few(revocation_ids: Sequence[uuid.UUID]) -> None:
    if len(revocation_ids) <= MAX_INLINE_REVOCATIONS:
        revoke_after_commit(revocation_ids)
