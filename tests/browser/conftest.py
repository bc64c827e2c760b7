"""Fixtures of this folder: the admin in Chromium, under the content security policy of the example project."""

import os
import shutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any
from wsgiref.simple_server import make_server

import pytest
from django.conf import settings as django_settings
from django.contrib import admin as django_admin
from django.contrib.auth import get_user_model
from django.core.handlers.wsgi import WSGIHandler
from django.db import connections
from django.test import Client
from django.test.testcases import _StaticFilesHandler

from django_phi_oidc._internal.app_configs import list_installed_features
from tests.support.example_portal import EXAMPLE  # noqa: F401 -- makes the packages of the example importable
from tests.support.external_tools import CHROMIUM
from tests.support.http_server import serving
from tests.support.person_page_fixtures import officer, patient  # noqa: F401 -- fixtures
from tests.support.portal_process import Quiet, Server
from tests.support.session_fixtures import op, sign_in  # noqa: F401 -- fixtures

THEME = os.environ.get("PHI_TEST_THEME", "")


def _link_once(source: str, target: str) -> None:
    if not os.path.lexists(target):
        Path(target).symlink_to(source)


@pytest.fixture
def site(settings: Any, tmp_path: Path) -> Iterator[str]:
    """Serve the admin and its static files, and yield the base URL."""
    # The first app wins, as in INSTALLED_APPS.
    theme = [import_module(THEME)] if THEME else []
    packages = [Path(str(package.__file__)).parent for package in (*theme, django_admin)]
    for package in (*packages, *(Path(config.path) for config in list_installed_features())):
        if (package / "static").exists():
            shutil.copytree(package / "static", tmp_path / "static", copy_function=_link_once, dirs_exist_ok=True)
    settings.STATIC_ROOT = str(tmp_path / "static")
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    if THEME == "unfold":
        settings.MIDDLEWARE = ["tests.support.page_policies.content_security_policy", *settings.MIDDLEWARE]
    settings.MIDDLEWARE = ["portal.headers.content_security_policy", *settings.MIDDLEWARE]
    server = make_server("127.0.0.1", 0, _StaticFilesHandler(WSGIHandler()), Server, Quiet)  # type: ignore[arg-type]
    with serving(server) as url:
        yield url


@pytest.fixture
def allowed_console_text() -> str:
    """Return a text that console messages may contain. Tests that request refused pages override it."""
    return "/favicon.ico"


@pytest.fixture
def browse(
    site: str, allowed_console_text: str, chromium_path: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Client], Any]]:
    """Return a function that opens a narrow page with the session of a client. Console messages fail the test."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only installed where the marker permits the test

    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    console: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=list(CHROMIUM))

        def open_page(client: Client) -> Any:
            context = browser.new_context(viewport={"width": 320, "height": 640}, base_url=site)
            context.set_default_timeout(20_000)
            key = client.cookies[django_settings.SESSION_COOKIE_NAME].value
            context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": key, "url": site}])
            page = context.new_page()
            page.on("console", lambda message: console.append(f"{message.text} {message.location['url']}"))
            page.on("pageerror", lambda error: console.append(str(error)))
            return page

        yield open_page
        browser.close()
        # Django has separate connections inside playwright's event loop. They can only be closed here.
        connections.close_all()
    assert [message for message in console if allowed_console_text not in message] == []


@pytest.fixture
def superuser_page(browse: Callable[[Client], Any]) -> Any:
    """Return a page in which a superuser is signed in."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("officer"))
    return browse(client)
