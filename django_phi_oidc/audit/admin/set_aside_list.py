"""The list of the events that readers of the audit log have set aside, in the admin.

It shows no contents of an event, so viewing it is not recorded. Operators retry and drop them by
`phi_oidc audit set-aside`.
"""

from django.contrib import admin
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy

from ..admin_base import ReadOnlyAdmin
from ..models import AuditEvent, SetAsideEvent


@admin.register(SetAsideEvent)
class SetAsideEventAdmin(ReadOnlyAdmin):
    """The events that were set aside, newest first."""

    list_display = ("event_link", "reader_code", "error_code", "set_aside_at", "tried_at")
    fields = list_display
    list_display_links = None
    ordering = ("-set_aside_at", "-pk")
    search_fields = ("reader__startswith",)
    search_help_text = gettext_lazy("The beginning of a reader, such as “sink:”.")

    @admin.display(description=gettext_lazy("event"))
    def event_link(self, row: SetAsideEvent) -> SafeString:
        """Return the id with a link to the page of the event, which may not be in the log."""
        url = reverse(f"admin:{AuditEvent._meta.app_label}_auditevent_change", args=[row.event_id])
        return format_html('<a href="{}">{}</a>', url, row.event_id)

    @admin.display(description=gettext_lazy("reader"), ordering="reader")
    def reader_code(self, row: SetAsideEvent) -> SafeString:
        """Return the name of the reader as code."""
        return format_html("<code>{}</code>", row.reader)

    @admin.display(description=gettext_lazy("error"))
    def error_code(self, row: SetAsideEvent) -> SafeString:
        """Return the class of the exception, or the code."""
        return format_html("<code>{}</code>", row.error)
