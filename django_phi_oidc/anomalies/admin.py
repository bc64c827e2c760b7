"""Security alerts in the admin: what came, acknowledged with a note; and what nobody is told of for a time."""

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
from ..audit.admin_base import ErrorMessageAdmin, ReadOnlyAdmin
from ..audit.request_context import Actor
from .alerts import MAX_MUTE_DURATION, acknowledge_alert, active_mute_filter, create_mute, end_mute
from .models import AlertMute, SecurityAlert

if TYPE_CHECKING:
    AlertModelForm = forms.ModelForm[SecurityAlert]
    AlertMuteModelForm = forms.ModelForm[AlertMute]
else:
    AlertModelForm = AlertMuteModelForm = forms.ModelForm


class AlertStateFilter(admin.SimpleListFilter):
    """Those that are open, unless all are asked for."""

    title = gettext_lazy("state")
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("open", _("open")), ("acknowledged", _("acknowledged"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any]:
        match self.value():
            case "open":
                return queryset.filter(acknowledged_at=None)
            case "acknowledged":
                return queryset.exclude(acknowledged_at=None)
        return queryset


class AcknowledgeAlertForm(AlertModelForm):
    """Asks what came of an alert."""

    class Meta:
        model = SecurityAlert
        fields = ("note",)
        help_texts = {  # noqa: RUF012 -- Django's own form of it
            "note": gettext_lazy("What came of it. Saving acknowledges the alert; the note is not in the trail."),
        }

    def clean_note(self) -> str:
        """Refuse to close an alert without a word."""
        note: str = self.cleaned_data["note"].strip()
        if not note:
            raise forms.ValidationError(_("Say what came of it."))
        return note


@admin.register(SecurityAlert)
class SecurityAlertAdmin(ReadOnlyAdmin):
    """What somebody should look at. Saving the note acknowledges it; nothing else is changed, and none is deleted."""

    form = AcknowledgeAlertForm
    list_display = ("kind", "severity", "key", "count", "first_seen", "last_seen", "acknowledged_at")
    list_filter = (AlertStateFilter, "severity")
    search_fields = ("kind", "key")
    search_help_text = gettext_lazy("A kind or a key, in full.")
    ordering = ("-last_seen",)
    readonly_fields = (*list_display, "event", "told_at", "acknowledged_by", "mute_link")

    def get_fields(self, request: HttpRequest, obj: SecurityAlert | None = None) -> Any:
        may_mute = request.user.has_perm("django_phi_oidc.add_alertmute")
        return [*(each for each in self.readonly_fields if may_mute or each != "mute_link"), "note"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find whole words: Django's own search would look inside of each."""
        term = search_term.strip()
        return (queryset.filter(Q(kind=term) | Q(key=term)) if term else queryset), False

    def has_change_permission(self, request: HttpRequest, obj: SecurityAlert | None = None) -> bool:
        is_open = obj is None or obj.acknowledged_at is None
        return is_open and request.user.has_perm("django_phi_oidc.acknowledge_securityalert")

    @admin.display(description=gettext_lazy("mute"))
    def mute_link(self, alert: SecurityAlert) -> str:
        """Return the way to the form that mutes alerts like it."""
        url = reverse("admin:django_phi_oidc_alertmute_add", current_app=self.admin_site.name)
        asked = urlencode({"kind": alert.kind, "key": alert.key})
        return format_html('<a href="{}?{}">{}</a>', url, asked, _("Tell nobody of such alerts for a time"))

    def save_model(self, request: HttpRequest, obj: SecurityAlert, form: Any, change: bool) -> None:
        """Acknowledge it, in the transaction of the form, unless somebody else just did."""
        origin = Actor.from_request(request).origin
        if not acknowledge_alert(obj.pk, note=obj.note, origin=origin, now=clock.now()):
            self.message_user(request, _("Somebody else has acknowledged it."), messages.WARNING)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Leave it to the trail."""


class AlertMuteForm(AlertMuteModelForm):
    """Asks what to mute, until when, and why."""

    class Meta:
        model = AlertMute
        fields = ("kind", "key", "until", "note")
        help_texts = {  # noqa: RUF012 -- Django's own form of it
            "key": gettext_lazy("Empty: all alerts of that kind."),
            "note": gettext_lazy("Why. It is not in the trail."),
        }

    def clean_until(self) -> Any:
        """Refuse what would be over, or last too long."""
        until = self.cleaned_data["until"]
        if not clock.now() < until <= clock.now() + MAX_MUTE_DURATION:
            raise forms.ValidationError(
                _("A mute ends, within %(days)d days."), params={"days": MAX_MUTE_DURATION.days}
            )
        return until


@admin.register(AlertMute)
class AlertMuteAdmin(ErrorMessageAdmin, ReadOnlyAdmin):
    """Of what nobody is told for a time. A mute is made, and ended by an action; none is changed or deleted."""

    form = AlertMuteForm
    list_display = ("kind", "key", "is_active", "until", "note", "muted_at", "muted_by", "lifted_at")
    ordering = ("-until",)
    actions = ("end",)

    def get_fields(self, request: HttpRequest, obj: AlertMute | None = None) -> Any:
        return self.list_display if obj else AlertMuteForm.Meta.fields

    def has_add_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("django_phi_oidc.add_alertmute")

    def has_end_permission(self, request: HttpRequest) -> bool:
        """Say whether this person may end mutes."""
        return request.user.has_perm("django_phi_oidc.change_alertmute")

    @admin.display(boolean=True, description=gettext_lazy("is_active"))
    def is_active(self, mute: AlertMute) -> bool:
        """Say whether it keeps anybody from being told now."""
        return AlertMute.objects.filter(active_mute_filter(now=clock.now()), pk=mute.pk).exists()

    def save_model(self, request: HttpRequest, obj: AlertMute, form: Any, change: bool) -> None:
        """Mute, in the transaction of the form."""
        origin = Actor.from_request(request).origin
        made = create_mute(kind=obj.kind, key=obj.key, until=obj.until, note=obj.note, origin=origin, now=clock.now())
        obj.pk = made.pk
        obj.refresh_from_db()

    @admin.action(description=gettext_lazy("End now"), permissions=["end"])
    def end(self, request: HttpRequest, queryset: QuerySet[AlertMute]) -> None:
        """End the chosen mutes."""
        origin = Actor.from_request(request).origin
        ended = sum(end_mute(pk, origin=origin, now=clock.now()) for pk in queryset.values_list("pk", flat=True))
        told = ngettext("%(count)d mute was ended.", "%(count)d mutes were ended.", ended)
        self.message_user(request, told % {"count": ended}, messages.SUCCESS)
