"""The base classes of admin pages. tests/unit/_internal/test_admin_pages.py runs these tests with django-unfold too."""

import os
from importlib import import_module

from django.contrib import admin
from django.contrib.auth.models import AnonymousUser
from django.test import RequestFactory

from django_phi_oidc._internal.admin_theme import HAS_UNFOLD
from tests.support import admin_rows

THEME = os.environ.get("PHI_TEST_THEME", "")
STYLE_SHEET = "django_phi_oidc/unfold.css"


def test_each_admin_has_the_base_class_of_the_theme() -> None:
    base = import_module(f"{THEME or 'django.contrib.admin'}{'.admin' if THEME else ''}").ModelAdmin
    admins = admin_rows.admins()
    assert admins
    assert [type(row) for row in admins if not isinstance(row, base)] == []
    assert bool(THEME) == HAS_UNFOLD


def test_style_sheet_of_the_theme_is_on_each_page_only_with_the_theme() -> None:
    request = RequestFactory().get("/admin/")
    request.user = AnonymousUser()
    styles = admin.site.each_context(request).get("styles") or []
    assert [style for style in styles if style.endswith(STYLE_SHEET)] == (["/static/" + STYLE_SHEET] if THEME else [])
