"""Base classes of admin pages: those of django-unfold if the project uses that theme, otherwise Django's.

The choice is made when the admin is loaded, because a class has its base for the life of the process.
"""

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.forms import FileInput
from django.templatetags.static import static
from django.utils.translation import gettext_noop

DJANGO_TEXTS = (
    gettext_noop("- Select an option -"),
    gettext_noop("Run"),
    gettext_noop(
        "Are you sure you want to delete the %(object_name)s “%(escaped_object)s”? All of the following related items"
        " will be deleted:"
    ),
)
"""Texts on pages of Django 6.1 that it has not translated into every language of this app: our catalogues have them."""
HAS_UNFOLD = apps.is_installed("unfold")

if TYPE_CHECKING:
    ThemedModelAdmin = admin.ModelAdmin[Any]
    ThemedSplitDateTime = AdminSplitDateTime
    ThemedFileInput = FileInput
elif HAS_UNFOLD:
    from unfold.admin import ModelAdmin as ThemedModelAdmin
    from unfold.widgets import UnfoldAdminFileFieldWidget as ThemedFileInput
    from unfold.widgets import UnfoldAdminSplitDateTimeWidget as ThemedSplitDateTime
else:
    ThemedModelAdmin, ThemedSplitDateTime, ThemedFileInput = admin.ModelAdmin, AdminSplitDateTime, FileInput


def install_theme_styles(site: admin.AdminSite) -> None:
    """Add the style sheet for django-unfold to each page of the site, before that of the theme, and `phi_theme`.

    Templates read `phi_theme` where the markup of the themes differs.
    """
    if not HAS_UNFOLD:
        return
    each_context = site.each_context

    def each_context_with_styles(request: Any) -> dict[str, Any]:
        context = each_context(request)
        styles = [static("django_phi_oidc/unfold.css"), *(context.get("styles") or ())]
        return {**context, "styles": styles, "phi_theme": "unfold"}

    site.each_context = each_context_with_styles  # type: ignore[method-assign]  # only on this site
