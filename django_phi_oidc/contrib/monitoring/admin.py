"""Security alerts in the admin: alerts, which are acknowledged with a note, and mutes."""

from collections.abc import Iterable, Sequence
from operator import itemgetter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..._internal import clock
from ..._internal.admin_columns import create_time_column
from ...audit.admin_actions import RowActionsAdmin, confirmed_action
from ...audit.admin_base import ErrorMessageAdmin
from ...audit.descriptions import get_alert_explanation, get_alert_label, get_reason_label
from ...audit.descriptions.alert_labels import ALERT_LABELS
from ...audit.request_context import Actor
from ...subjects.models import PairwiseSubject
from ..common.admin_fields import build_technical_fieldset, create_code_column
from ..common.admin_filters import create_state_filter
from ..common.people_admin import PeopleAdmin
from .alerts import (
    MAX_MUTE_DURATION,
    acknowledge_alert,
    active_mute_filter,
    create_mute,
    end_mute,
)
from .models import AlertMute, SecurityAlert
from .tasks import get_declared_rules

ACCOUNT_PREFIX = "user/"
"""Of a key that is the resource of an event: an account."""

if TYPE_CHECKING:
    AlertModelForm = forms.ModelForm[SecurityAlert]
    AlertMuteModelForm = forms.ModelForm[AlertMute]
else:
    AlertModelForm = AlertMuteModelForm = forms.ModelForm


AlertStateFilter = create_state_filter(
    gettext_lazy("state"),
    "state",
    {
        "open": (gettext_lazy("Open"), lambda rows: rows.filter(acknowledged_at=None)),
        "acknowledged": (
            gettext_lazy("Acknowledged"),
            lambda rows: rows.exclude(acknowledged_at=None),
        ),
    },
)


class AcknowledgeAlertForm(AlertModelForm):
    class Meta:
        model = SecurityAlert
        fields = ("note",)
        labels = {"key": gettext_lazy("Concerns")}  # noqa: RUF012 -- as below
        help_texts = {  # noqa: RUF012 -- Django's own form of it
            "note": gettext_lazy(
                "The outcome. Saving acknowledges the alert. The note is not in the audit log."
            ),
        }

    def clean_note(self) -> str:
        note: str = self.cleaned_data["note"].strip()
        if not note:
            raise forms.ValidationError(_("Enter the outcome."))
        return note


class AlertPeopleAdmin(PeopleAdmin, RowActionsAdmin):
    """Rows with a kind and a key, which may be a person as the audit log has it."""

    search_help_text = gettext_lazy(
        "The beginning of a name or user name, or a complete account or subject ID, address, "
        "provider, record or kind."
    )

    kind_code = create_code_column("kind", gettext_lazy("Kind"))
    key_code = create_code_column("key", gettext_lazy("Key"))

    def list_actors(self, row: Any) -> Iterable[str]:
        return (row.key.removeprefix(ACCOUNT_PREFIX),)

    def list_subjects(self, row: Any) -> Iterable[str]:
        return (row.key,)

    def list_exact_matches(self, queryset: QuerySet[Any], term: str) -> Iterable[QuerySet[Any]]:
        """Compare whole values, by index."""
        return (queryset.filter(Q(kind=term) | Q(key=term)),)

    def filter_by_accounts(self, queryset: QuerySet[Any], accounts: Sequence[Any]) -> QuerySet[Any]:
        subjects = PairwiseSubject.objects.filter(user__in=accounts).values_list("uuid", flat=True)
        keys = []
        for account in accounts:
            keys.append(str(account))
            keys.append(f"{ACCOUNT_PREFIX}{account}")
        for subject in subjects:
            keys.append(str(subject))
        return queryset.filter(key__in=keys)

    @admin.display(description=gettext_lazy("Concerns"))
    def concerns(self, row: Any) -> str:
        """Return the person by name, or the key as the audit log has it."""
        if row.people.find_subject(row.key) is not None:
            return self.show_subject(row, row.key)
        account = row.key.removeprefix(ACCOUNT_PREFIX)
        if row.people.find_actor(account):
            return self.show_actor(row, account)
        return self.describe_key(row)

    def describe_key(self, row: Any) -> str:
        """Return the key of a row without a person."""
        if row.kind == "refusal_burst":
            return get_reason_label(row.key)
        return row.key or str(self.get_empty_value_display())


@admin.register(SecurityAlert)
class SecurityAlertAdmin(AlertPeopleAdmin):
    """Alerts. Saving the note acknowledges one; nothing else can be changed, and none can be
    deleted.
    """

    form = AcknowledgeAlertForm
    list_display = ("label", "concerns", "severity", "count", "last_seen_utc", "state")
    list_filter = (AlertStateFilter, "severity")
    sortable_by = ("last_seen_utc",)
    ordering = ("-last_seen",)
    operation_permissions = (("change", "acknowledge_securityalert"),)
    readonly_fields = (
        *(
            "label",
            "explanation",
            "concerns",
            "severity",
            "count",
            "first_seen_utc",
            "last_seen_utc",
            "notified",
        ),
        *(
            "state",
            "acknowledged",
            "acknowledged_by_person",
            "mute_link",
            "kind_code",
            "key_code",
            "event_link",
        ),
    )

    first_seen_utc = create_time_column("first_seen", gettext_lazy("First seen (UTC)"))
    last_seen_utc = create_time_column("last_seen", gettext_lazy("Last seen (UTC)"))
    notified = create_time_column("notified_at", gettext_lazy("Notified (UTC)"))
    acknowledged = create_time_column("acknowledged_at", gettext_lazy("Acknowledged (UTC)"))

    def get_fieldsets(self, request: HttpRequest, obj: SecurityAlert | None = None) -> Any:
        can_mute = request.user.has_perm("phi_oidc_monitoring.add_alertmute")
        happened = (
            "label",
            "explanation",
            "concerns",
            "severity",
            "count",
            "first_seen_utc",
            "last_seen_utc",
        )

        answered: tuple[str, ...]
        if obj and obj.acknowledged_at:
            answered = ("state", "acknowledged", "acknowledged_by_person")
        else:
            answered = ("state",)

        mute: tuple[str, ...]
        if can_mute:
            mute = ("mute_link",)
        else:
            mute = ()

        return [
            (None, {"fields": (*happened, "notified")}),
            (gettext_lazy("Acknowledgement"), {"fields": (*answered, *mute, "note")}),
            build_technical_fieldset("kind_code", "key_code", "event_link"),
        ]

    def list_actors(self, row: SecurityAlert) -> Iterable[str]:
        return *super().list_actors(row), row.acknowledged_by

    @admin.display(description=gettext_lazy("Alert"))
    def label(self, row: SecurityAlert) -> str:
        return get_alert_label(row.kind)

    def describe_row(self, row: SecurityAlert) -> str:
        """Return the label."""
        return self.label(row)

    @admin.display(description=gettext_lazy("Explanation"))
    def explanation(self, row: SecurityAlert) -> str:
        return get_alert_explanation(row.kind) or str(self.get_empty_value_display())

    @admin.display(description=gettext_lazy("State"))
    def state(self, row: SecurityAlert) -> str:
        if row.acknowledged_at is None:
            return _("Open")
        return _("Acknowledged")

    @admin.display(description=gettext_lazy("Acknowledged by"))
    def acknowledged_by_person(self, row: SecurityAlert) -> str:
        return self.show_actor(row, row.acknowledged_by)

    @admin.display(description=gettext_lazy("Event"))
    def event_link(self, row: Any) -> str:
        if row.event is None or not row.has_event_link:
            return str(row.event or self.get_empty_value_display())
        url = reverse(
            "admin:phi_oidc_audit_auditevent_change",
            args=[row.event],
            current_app=self.admin_site.name,
        )
        return format_html('<a href="{}">{}</a>', url, row.event)

    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """Offer one button: saving acknowledges, and nothing can be changed afterwards."""
        context["show_save_and_continue"] = False
        kwargs["obj"].has_event_link = request.user.has_perm("phi_oidc_audit.view_auditevent")
        return super().render_change_form(request, context, *args, **kwargs)

    def has_change_permission(self, request: HttpRequest, obj: SecurityAlert | None = None) -> bool:
        is_open = obj is None or obj.acknowledged_at is None
        return is_open and request.user.has_perm("phi_oidc_monitoring.acknowledge_securityalert")

    @admin.display(description=gettext_lazy("Mute"))
    def mute_link(self, alert: SecurityAlert) -> str:
        url = reverse("admin:phi_oidc_monitoring_alertmute_add", current_app=self.admin_site.name)
        query = urlencode({"kind": alert.kind, "key": alert.key})
        return format_html('<a href="{}?{}">{}</a>', url, query, _("Mute alerts like this one"))

    def save_model(self, request: HttpRequest, obj: SecurityAlert, form: Any, change: bool) -> None:
        """Acknowledge the alert, in the transaction of the form, unless another person already
        has.
        """
        origin = Actor.from_request(request).origin
        if not acknowledge_alert(obj.pk, note=obj.note, origin=origin, now=clock.now()):
            self.message_user(
                request, _("Another person has already acknowledged it."), messages.WARNING
            )

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Write no admin log entry: the audit log has the event."""


def list_alert_kinds() -> list[tuple[str, str]]:
    """Return the kinds of alerts with their labels, also those of the project's rules."""
    kinds = set(ALERT_LABELS)
    for rule in get_declared_rules():
        kinds.add(rule.kind)
    labelled = [(kind, get_alert_label(kind)) for kind in kinds]
    return sorted(labelled, key=itemgetter(1))


class AlertMuteForm(AlertMuteModelForm):
    kind = forms.ChoiceField(label=gettext_lazy("Alerts"), choices=list_alert_kinds)

    class Meta:
        model = AlertMute
        fields = ("kind", "key", "until", "note")
        labels = {"key": gettext_lazy("Concerns")}  # noqa: RUF012 -- as below
        help_texts = {  # noqa: RUF012 -- Django's own form of it
            "key": gettext_lazy("Empty: all alerts of that kind."),
            "note": gettext_lazy("The reason. It is not in the audit log."),
        }

    def clean_until(self) -> Any:
        """Refuse a time in the past, or too far in the future."""
        until = self.cleaned_data["until"]
        if not clock.now() < until <= clock.now() + MAX_MUTE_DURATION:
            message = _("Enter a time within the next %(days)d days.")
            raise forms.ValidationError(message, params={"days": MAX_MUTE_DURATION.days})
        return until


def _is_active(mute: AlertMute) -> bool:
    return mute.lifted_at is None and mute.until > clock.now()


AlertMuteStateFilter = create_state_filter(
    gettext_lazy("state"),
    "state",
    {
        "active": (
            gettext_lazy("Active"),
            lambda rows: rows.filter(active_mute_filter(now=clock.now())),
        ),
        "over": (
            gettext_lazy("Ended"),
            lambda rows: rows.exclude(active_mute_filter(now=clock.now())),
        ),
    },
)


@admin.register(AlertMute)
class AlertMuteAdmin(ErrorMessageAdmin, AlertPeopleAdmin):
    """Mutes. One is ended by an action; none can be changed or deleted."""

    form = AlertMuteForm
    list_display = ("label", "concerns", "state", "ends", "note", "muted_by_person")
    list_filter = (AlertMuteStateFilter,)
    sortable_by = ("ends",)
    ordering = ("-until",)
    actions = ("end",)
    operation_permissions = (("end", "change_alertmute"),)

    ends = create_time_column("until", gettext_lazy("Until (UTC)"))
    muted = create_time_column("muted_at", gettext_lazy("Muted (UTC)"))
    lifted = create_time_column("lifted_at", gettext_lazy("Ended early (UTC)"))

    def get_fieldsets(self, request: HttpRequest, obj: AlertMute | None = None) -> Any:
        if obj is None:
            return [(None, {"fields": AlertMuteForm.Meta.fields})]
        return [
            (
                None,
                {
                    "fields": (
                        "label",
                        "concerns",
                        "state",
                        "ends",
                        "note",
                        "muted",
                        "muted_by_person",
                        "lifted",
                    )
                },
            ),
            build_technical_fieldset("kind_code", "key_code"),
        ]

    def list_actors(self, row: AlertMute) -> Iterable[str]:
        return *super().list_actors(row), row.muted_by

    @admin.display(description=gettext_lazy("Alerts"))
    def label(self, row: AlertMute) -> str:
        return get_alert_label(row.kind)

    @admin.display(description=gettext_lazy("State"))
    def state(self, row: AlertMute) -> str:
        if _is_active(row):
            return _("Active")
        return _("Ended")

    @admin.display(description=gettext_lazy("Muted by"))
    def muted_by_person(self, row: AlertMute) -> str:
        return self.show_actor(row, row.muted_by)

    def describe_key(self, row: AlertMute) -> str:
        return row.key or _("All")

    def describe_row(self, row: AlertMute) -> str:
        """Return the label and the reason."""
        return f"{self.label(row)}: {row.note}"

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("phi_oidc_monitoring.add_alertmute")

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("phi_oidc_monitoring.change_alertmute")

    def save_model(self, request: HttpRequest, obj: AlertMute, form: Any, change: bool) -> None:
        origin = Actor.from_request(request).origin
        now = clock.now()
        obj.pk = create_mute(
            kind=obj.kind, key=obj.key, until=obj.until, note=obj.note, origin=origin, now=now
        ).pk
        obj.refresh_from_db()

    @confirmed_action(
        description=gettext_lazy("End now"),
        permissions=["end"],
        can_apply=_is_active,
        ask=lambda count: (
            ngettext("End %(count)d mute now?", "End %(count)d mutes now?", count)
            % {"count": count}
        ),
        consequence=gettext_lazy("Such alerts are sent again."),
        describe_skipped=lambda count: (
            ngettext(
                "%(count)d mute had already ended and was skipped.",
                "%(count)d mutes had already ended and were skipped.",
                count,
            )
            % {"count": count}
        ),
    )
    def end(self, request: HttpRequest, rows: Sequence[AlertMute]) -> None:
        """End the selected mutes."""
        origin = Actor.from_request(request).origin
        ended = sum(end_mute(row.pk, origin=origin, now=clock.now()) for row in rows)
        message = ngettext("%(count)d mute was ended.", "%(count)d mutes were ended.", ended)
        self.message_user(request, message % {"count": ended}, messages.SUCCESS)
