"""Security alerts in the admin: alerts, which are acknowledged with a note, and mutes."""

from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from django import forms
from django.contrib import admin, messages
from django.db.models import Q, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .._internal import clock
from .._internal.admin_filters import create_state_filter
from ..audit.admin_base import ErrorMessageAdmin, ReadOnlyAdmin
from ..audit.request_context import Actor
from .alerts import MAX_MUTE_DURATION, acknowledge_alert, active_mute_filter, create_mute, end_mute
from .models import AlertMute, SecurityAlert

if TYPE_CHECKING:
    AlertModelForm = forms.ModelForm[SecurityAlert]
    AlertMuteModelForm = forms.ModelForm[AlertMute]
else:
    AlertModelForm = AlertMuteModelForm = forms.ModelForm


AlertStateFilter = create_state_filter(
    gettext_lazy("state"),
    "state",
    {
        "open": (gettext_lazy("open"), lambda rows: rows.filter(acknowledged_at=None)),
        "acknowledged": (gettext_lazy("acknowledged"), lambda rows: rows.exclude(acknowledged_at=None)),
    },
)


class AcknowledgeAlertForm(AlertModelForm):
    class Meta:
        model = SecurityAlert
        fields = ("note",)
        help_texts = {  # noqa: RUF012 -- Django's own form of it
            "note": gettext_lazy("The outcome. Saving acknowledges the alert. The note is not in the audit log."),
        }

    def clean_note(self) -> str:
        note: str = self.cleaned_data["note"].strip()
        if not note:
            raise forms.ValidationError(_("Enter the outcome."))
        return note


@admin.register(SecurityAlert)
class SecurityAlertAdmin(ReadOnlyAdmin):
    """Alerts. Saving the note acknowledges one; nothing else can be changed, and none can be deleted."""

    form = AcknowledgeAlertForm
    list_display = ("kind", "severity", "key", "count", "first_seen", "last_seen", "acknowledged_at")
    list_filter = (AlertStateFilter, "severity")
    search_fields = ("kind", "key")
    search_help_text = gettext_lazy("A complete kind or key.")
    ordering = ("-last_seen",)
    readonly_fields = (*list_display, "event", "notified_at", "acknowledged_by", "mute_link")

    def get_fields(self, request: HttpRequest, obj: SecurityAlert | None = None) -> Any:
        may_mute = request.user.has_perm("django_phi_oidc.add_alertmute")
        return [*(name for name in self.readonly_fields if may_mute or name != "mute_link"), "note"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Compare whole values, by index: Django's own search matches substrings."""
        term = search_term.strip()
        return (queryset.filter(Q(kind=term) | Q(key=term)) if term else queryset), False

    def has_change_permission(self, request: HttpRequest, obj: SecurityAlert | None = None) -> bool:
        is_open = obj is None or obj.acknowledged_at is None
        return is_open and request.user.has_perm("django_phi_oidc.acknowledge_securityalert")

    @admin.display(description=gettext_lazy("mute"))
    def mute_link(self, alert: SecurityAlert) -> str:
        url = reverse("admin:django_phi_oidc_alertmute_add", current_app=self.admin_site.name)
        query = urlencode({"kind": alert.kind, "key": alert.key})
        return format_html('<a href="{}?{}">{}</a>', url, query, _("Mute such alerts for a time"))

    def save_model(self, request: HttpRequest, obj: SecurityAlert, form: Any, change: bool) -> None:
        """Acknowledge the alert, in the transaction of the form, unless another person already has."""
        origin = Actor.from_request(request).origin
        if not acknowledge_alert(obj.pk, note=obj.note, origin=origin, now=clock.now()):
            self.message_user(request, _("Another person has already acknowledged it."), messages.WARNING)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Write no admin log entry: the audit log has the event."""


class AlertMuteForm(AlertMuteModelForm):
    class Meta:
        model = AlertMute
        fields = ("kind", "key", "until", "note")
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


@admin.register(AlertMute)
class AlertMuteAdmin(ErrorMessageAdmin, ReadOnlyAdmin):
    """Mutes. One is ended by an action; none can be changed or deleted."""

    form = AlertMuteForm
    list_display = ("kind", "key", "is_active", "until", "note", "muted_at", "muted_by", "lifted_at")
    ordering = ("-until",)
    actions = ("end",)

    def get_fields(self, request: HttpRequest, obj: AlertMute | None = None) -> Any:
        return self.list_display if obj else AlertMuteForm.Meta.fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.add_alertmute")

    def has_end_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.change_alertmute")

    @admin.display(boolean=True, description=gettext_lazy("active"))
    def is_active(self, mute: AlertMute) -> bool:
        return AlertMute.objects.filter(active_mute_filter(now=clock.now()), pk=mute.pk).exists()

    def save_model(self, request: HttpRequest, obj: AlertMute, form: Any, change: bool) -> None:
        origin, now = Actor.from_request(request).origin, clock.now()
        obj.pk = create_mute(kind=obj.kind, key=obj.key, until=obj.until, note=obj.note, origin=origin, now=now).pk
        obj.refresh_from_db()

    @admin.action(description=gettext_lazy("End now"), permissions=["end"])
    def end(self, request: HttpRequest, queryset: QuerySet[AlertMute]) -> None:
        origin = Actor.from_request(request).origin
        ended = sum(end_mute(pk, origin=origin, now=clock.now()) for pk in queryset.values_list("pk", flat=True))
        message = ngettext("%(count)d mute was ended.", "%(count)d mutes were ended.", ended)
        self.message_user(request, message % {"count": ended}, messages.SUCCESS)
