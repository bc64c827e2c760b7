"""The plain lists of the core, which the pages of `contrib.officer_admin` replace."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from django.contrib.admin import AdminSite
from django.urls import clear_url_caches, include, path

from django_phi_oidc.admin import PLAIN_LISTS, register_plain_lists
from django_phi_oidc.login.admin_site import use_oidc_login
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from tests.support.officers import sign_in_officer
from tests.support.session_fixtures import ACCESS_TOKEN, REFRESH_TOKEN, ScriptedOP, SignedIn, op, sign_in  # noqa: F401

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
OFFICER_ADMIN = "django_phi_oidc.contrib.officer_admin"
PRINT_PAGES = """
import json, os
import tests.settings
tests.settings.INSTALLED_APPS = json.loads(os.environ["APPS"])
import django
django.setup()
from django.contrib import admin
print(json.dumps({
    model._meta.model_name: type(page).__name__
    for model, page in admin.site._registry.items()
    if model._meta.app_label == "django_phi_oidc"
}))
"""


@pytest.fixture
def plain_site(settings: Any) -> Iterator[None]:
    """The admin of the project with the lists of the core only."""
    site = AdminSite(name="admin")
    register_plain_lists(site)
    use_oidc_login(site)
    urls: Any = ModuleType("plain_admin_urls")
    urls.urlpatterns = [
        path("oidc/", include("django_phi_oidc.urls")),
        path("admin/", site.urls),
    ]
    sys.modules[urls.__name__] = urls
    settings.ROOT_URLCONF = urls.__name__
    clear_url_caches()
    yield
    del sys.modules[urls.__name__]
    clear_url_caches()


def list_registered(apps: list[str]) -> dict[str, str]:
    """Return the classes of the pages of the core's models in a process with these apps."""
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "APPS": json.dumps(apps)}
    command = [sys.executable, "-c", PRINT_PAGES]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    pages: dict[str, str] = json.loads(output)
    return pages


def test_pages_of_officers_replace_plain_lists_in_any_order_of_apps(settings: Any) -> None:
    others = [app for app in settings.INSTALLED_APPS if app != OFFICER_ADMIN]
    expected = {f"{model.__name__}Admin" for model in PLAIN_LISTS}
    for apps in ([OFFICER_ADMIN, *others], [*others, OFFICER_ADMIN]):
        assert set(list_registered(apps).values()) == expected
    plain = {model._meta.model_name: page.__name__ for model, page in PLAIN_LISTS.items()}
    assert list_registered(others) == plain


def test_plain_lists_reveal_no_secret(
    plain_site: None,
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
) -> None:
    signed_in = sign_in(claims={"iss": op.issuer})
    session = OIDCSession.objects.get()
    client = sign_in_officer(is_superuser=True)
    for model in PLAIN_LISTS:
        response = client.get(f"/admin/django_phi_oidc/{model._meta.model_name}/")
        assert response.status_code == 200
    page = client.get(f"/admin/django_phi_oidc/oidcsession/{session.pk}/change/").content.decode()
    assert signed_in.user.get_username() in page
    for secret in (ACCESS_TOKEN, REFRESH_TOKEN, signed_in.django_key, session.sid_digest or "-"):
        assert secret == "-" or secret not in page


@pytest.mark.parametrize(("permissions", "is_ended"), [(["end_oidcsession"], True), ([], False)])
def test_session_is_ended_with_the_permission(
    plain_site: None,
    op: ScriptedOP,
    sign_in: Callable[..., SignedIn],
    permissions: list[str],
    is_ended: bool,
) -> None:
    sign_in(claims={"iss": op.issuer})
    session = OIDCSession.objects.get()
    client = sign_in_officer("view_oidcsession", *permissions)
    data = {"action": "end_now", "_selected_action": str(session.pk), "post": "yes"}
    response = client.post("/admin/django_phi_oidc/oidcsession/", data)
    assert response.status_code == (302 if is_ended else 403)
    session.refresh_from_db()
    assert (session.end_reason == "administrator") is is_ended
    assert PendingRevocation.objects.exists() is is_ended
