"""The how-to page about a user's own account: its link, its URLs and its script run in Chromium."""

import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
from django.contrib import admin
from django.template import engines
from django.urls import path

from django_phi_oidc._internal import clock
from django_phi_oidc.sessions.models import OIDCSession
from tests.browser.pages import Browse
from tests.support.manual_blocks import block
from tests.support.session_fixtures import SignedIn

pytestmark = [pytest.mark.browser, pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])]


@pytest.fixture(autouse=True)
def _urls(settings: Any) -> Iterator[None]:
    clinic = ModuleType("clinic")
    exec(block("your-access", "urls"), vars(clinic))
    # The content security policy of the example project reverses URLs of the admin.
    vars(clinic)["urlpatterns"].append(path("admin/", admin.site.urls))
    sys.modules["clinic"] = clinic
    settings.ROOT_URLCONF = "clinic"
    # As portals with this policy do: the default has an inline style.
    base = "<title>{% block title %}{% endblock %}</title>{% block content %}{% endblock %}"
    loaders = [
        ("django.template.loaders.locmem.Loader", {"django_phi_oidc/base.html": base}),
        "django.template.loaders.app_directories.Loader",
    ]
    options = {**settings.TEMPLATES[0]["OPTIONS"], "loaders": loaders}
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]
    yield
    del sys.modules["clinic"]


def test_documented_script_ends_the_other_sessions(op: Any, sign_in: Callable[..., SignedIn], browse: Browse) -> None:
    person = sign_in(auth_time=clock.now())
    sign_in(again=person)
    stranger = sign_in()
    page = browse(person.client())
    page.goto("/oidc/account/sessions/end/")
    token = page.input_value("[name=csrfmiddlewaretoken]")
    answer = page.evaluate(f"token => {{ {block('your-access', 'script')}; return signOutOthers(token) }}", token)
    assert answer == {"ended": 1}
    assert set(OIDCSession.objects.live().values_list("pk", flat=True)) == {person.session.pk, stranger.session.pk}


def test_documented_link_leads_to_the_page(op: Any, sign_in: Callable[..., SignedIn], browse: Browse) -> None:
    link = engines["django"].from_string(block("your-access", "link")).render()
    page = browse(sign_in().client())
    page.goto(link.partition('href="')[2].partition('"')[0])
    assert page.inner_text("h1") == "Your access"
