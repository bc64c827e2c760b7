"""Base classes of admin pages: those of django-unfold if the project uses that theme, otherwise
Django's.

The choice is made when the admin is loaded, because a class has its base for the life of the
process.

Also translations of texts that Django and the theme show on these pages, and have not translated.
"""

from typing import TYPE_CHECKING, Any

from django.apps import apps
from django.contrib import admin
from django.contrib.admin.widgets import AdminSplitDateTime
from django.forms import FileInput
from django.templatetags.static import static
from django.utils.translation import gettext_noop
from django.views.i18n import JavaScriptCatalog

DJANGO_TEXTS = (
    gettext_noop("- Select an option -"),
    gettext_noop("Run"),
    gettext_noop(
        "Are you sure you want to delete the %(object_name)s “%(escaped_object)s”? All of the "
        "following related items will be deleted:"
    ),
    gettext_noop("Apply Filters"),
    gettext_noop("Choose file to upload"),
    gettext_noop("No results found"),
    gettext_noop("Reset filters"),
    gettext_noop("Select action"),
    gettext_noop("Select action to run"),
    gettext_noop("Select record"),
    gettext_noop("This page yielded into no results."),
)
"""Texts of Django 6.1 and of django-unfold on our pages that these have not translated: our
catalogues have them.
"""
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
    ThemedModelAdmin = admin.ModelAdmin
    ThemedSplitDateTime = AdminSplitDateTime
    ThemedFileInput = FileInput


def install_script_texts(site: admin.AdminSite) -> None:
    """Add the catalogue `djangojs` of this app to the texts of the site's scripts.

    Django 6.1 has not translated the labels of its date fields, such as `Today (%(date)s)`, into
    German and Spanish. Its view reads only the catalogues of the packages that it names.
    """
    show_catalogue = JavaScriptCatalog.as_view(packages=["django.contrib.admin", "django_phi_oidc"])

    def i18n_javascript(request: Any, extra_context: Any = None) -> Any:
        return show_catalogue(request)

    site.i18n_javascript = i18n_javascript  # type: ignore[method-assign]  # only on this site


def install_theme_styles(site: admin.AdminSite) -> None:
    """Add the style sheet for django-unfold to each page of the site, before that of the theme, and
    `phi_theme`.

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
