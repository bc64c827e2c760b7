"""Two admin sites for one audit log: that of django_phi_oidc, and one with a plain ModelAdmin."""

from typing import TYPE_CHECKING

from django.contrib import admin
from django.urls import path

from django_phi_oidc.audit.models import AuditEvent

if TYPE_CHECKING:
    EventAdmin = admin.ModelAdmin[AuditEvent]
else:
    EventAdmin = admin.ModelAdmin


class StockAdmin(EventAdmin):
    """A plain ModelAdmin."""

    change_list_template = "admin/change_list.html"
    """Not that of this app, which Django would find by its name."""
    list_display = (
        "occurred_at",
        "action",
        "outcome",
        "actor",
        "subject",
        "purpose",
        "resource",
        "reason",
        "client_ip",
    )
    list_filter = ("outcome",)
    search_fields = ("actor", "subject")
    date_hierarchy = "occurred_at"
    ordering = ("-id",)


stock = admin.AdminSite(name="stock")
stock.register(AuditEvent, StockAdmin)
urlpatterns = [path("admin/", admin.site.urls), path("stock/", stock.urls)]
