"""Read-only lists of what the core stores, and sign-in to the admin through the provider.

`contrib.officer_admin` replaces these lists by its own pages.
"""

from collections.abc import Sequence
from uuid import UUID

from django.contrib import admin, messages
from django.db.models import Model, QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy, ngettext

from ._internal import clock
from ._internal.admin_columns import create_time_column
from ._internal.admin_theme import install_script_texts, install_theme_styles
from .audit.admin_actions import RowActionsAdmin, confirmed_action
from .audit.admin_base import ReadOnlyAdmin
from .audit.request_context import Actor
from .claims.models import StoredClaim
from .extensions import person_directories
from .login.admin_site import use_oidc_login
from .sessions.lifecycle import MAX_INLINE_SESSIONS, end_sessions
from .sessions.models import ENCRYPTED_COLUMNS, EndReason, OIDCSession, PendingRevocation
from .sessions.session_selection import refuse_several_people
from .sessions.tasks import revoke_after_commit
from .subjects.models import PairwiseSubject
from .subjects.person_directory import ACCOUNT_DIRECTORY


class SessionList(RowActionsAdmin):
    """Live and ended sessions. No token, `sid` or session key is read."""

    fields = ("id", "user", "provider", "started", "last_seen", "ended", "end_reason")
    list_display = ("started", "user", "provider", "last_seen", "ended")
    list_select_related = ("user",)
    ordering = ("-started_at",)
    sortable_by = ()
    actions = ("end_now",)

    started = create_time_column("started_at", gettext_lazy("Started (UTC)"))
    last_seen = create_time_column("last_seen_at", gettext_lazy("Last seen (UTC)"))
    ended = create_time_column("ended_at", gettext_lazy("Ended (UTC)"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[OIDCSession]:
        return super().get_queryset(request).defer(*ENCRYPTED_COLUMNS)

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.end_oidcsession")

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
        max_rows=MAX_INLINE_SESSIONS,
    )
    def end_now(self, request: HttpRequest, rows: Sequence[OIDCSession]) -> None:
        """End the selected live sessions. Their tokens are revoked within 2 s, or in the sweep."""
        ended_sessions = end_sessions(
            [row.pk for row in rows],
            EndReason.ADMINISTRATOR,
            origin=Actor.from_request(request).origin,
            now=clock.now(),
        )
        revocation_ids: list[UUID] = []
        for ended in ended_sessions:
            revocation_ids += ended.revocation_ids
        revoke_after_commit(revocation_ids)
        count = len(ended_sessions)
        message = ngettext("%(count)d session was ended.", "%(count)d sessions were ended.", count)
        self.message_user(request, message % {"count": count}, messages.SUCCESS)


class RevocationList(ReadOnlyAdmin):
    """Tokens to revoke at the provider. No token is read."""

    fields = ("id", "provider", "status", "created", "due", "attempts", "last_fault")
    list_display = ("created", "provider", "status", "due", "attempts")
    ordering = ("-id",)
    sortable_by = ()

    created = create_time_column("created_at", gettext_lazy("Since (UTC)"))
    due = create_time_column("due_at", gettext_lazy("Next attempt (UTC)"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[PendingRevocation]:
        return super().get_queryset(request).defer("token", "session_token")


class SubjectList(ReadOnlyAdmin):
    """The accounts at the providers that are linked to users. No digest is shown."""

    fields = ("uuid", "user", "issuer", "first_seen", "last_seen")
    list_display = ("first_seen", "user", "issuer", "last_seen")
    list_select_related = ("user",)
    ordering = ("-pk",)
    sortable_by = ()

    first_seen = create_time_column("first_seen_at", gettext_lazy("First seen (UTC)"))
    last_seen = create_time_column("last_seen_at", gettext_lazy("Last seen (UTC)"))


class StoredClaimList(ReadOnlyAdmin):
    """Which claims are stored. No value is read."""

    fields = ("name", "subject", "purpose", "obtained", "expires")
    list_display = ("obtained", "name", "subject", "purpose", "expires")
    list_select_related = ("subject",)
    ordering = ("-id",)
    sortable_by = ()

    obtained = create_time_column("obtained_at", gettext_lazy("Obtained (UTC)"))
    expires = create_time_column("expires_at", gettext_lazy("Expires (UTC)"))

    def get_queryset(self, request: HttpRequest) -> QuerySet[StoredClaim]:
        return super().get_queryset(request).defer("value")


PLAIN_LISTS: dict[type[Model], type[ReadOnlyAdmin]] = {
    OIDCSession: SessionList,
    PairwiseSubject: SubjectList,
    PendingRevocation: RevocationList,
    StoredClaim: StoredClaimList,
}


def register_plain_lists(site: admin.AdminSite) -> None:
    """Register the lists of models that have no page yet: the order of INSTALLED_APPS decides
    whether `contrib.officer_admin` registers its pages before or after.
    """
    for model, model_admin in PLAIN_LISTS.items():
        if not site.is_registered(model):
            site.register(model, model_admin)


# Here and not in ready(): only the admin looks people up, and the module imports it.
person_directories.register(ACCOUNT_DIRECTORY)
register_plain_lists(admin.site)
use_oidc_login(admin.site)
install_script_texts(admin.site)
install_theme_styles(admin.site)
