"""The trail's pages as somebody at a browser has them, under the example's content security policy."""

import json
import uuid
from collections.abc import Callable, Iterator
from datetime import timedelta
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

import django_phi_oidc
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.log.bundle import verify_inclusion_bundle
from django_phi_oidc.audit.models import AuditEvent
from tests.support.audit_log import KEY, NOW, events, sealed
from tests.support.example_portal import EXAMPLE  # noqa: F401 -- the example's packages can be imported
from tests.support.external_tools import CHROMIUM
from tests.support.http_server import serving
from tests.support.portal_process import Quiet, Server

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
Browse = Callable[[Client], Any]
SUBJECT = str(uuid.UUID(int=7))


@pytest.fixture
def site(settings: Any, tmp_path: Path) -> Iterator[str]:
    """Serve the admin with its static files, as they are installed, and give its address."""
    for package in (django_admin, django_phi_oidc):
        folder = Path(str(package.__file__)).parent / "static"
        for each in folder.iterdir():
            (tmp_path / each.name).symlink_to(each)
    settings.STATIC_ROOT = str(tmp_path)
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    settings.MIDDLEWARE = ["portal.headers.content_security_policy", *settings.MIDDLEWARE]
    server = make_server("127.0.0.1", 0, _StaticFilesHandler(WSGIHandler()), Server, Quiet)  # type: ignore[arg-type]
    with serving(server) as address:
        yield address


@pytest.fixture
def expected() -> str:
    """Return what a complaint of the browser may hold; a test that asks for what is refused has another."""
    return "/favicon.ico"


@pytest.fixture
def browse(site: str, expected: str, chromium_path: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Browse]:
    """Return what opens a narrow page for a client who is signed in; nothing may be broken on it."""
    from playwright.sync_api import sync_playwright  # noqa: PLC0415 -- only where the marker let the test through

    monkeypatch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=list(CHROMIUM))

        def open_for(client: Client) -> Any:
            context = browser.new_context(viewport={"width": 320, "height": 640}, base_url=site)
            context.set_default_timeout(20_000)
            key = client.cookies[django_settings.SESSION_COOKIE_NAME].value
            context.add_cookies([{"name": django_settings.SESSION_COOKIE_NAME, "value": key, "url": site}])
            page = context.new_page()
            page.on("console", lambda message: complaints.append(f"{message.text} {message.location['url']}"))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            return page

        yield open_for
        browser.close()
        # Inside of playwright's event loop Django has connections of their own, which nobody sees from outside.
        connections.close_all()
    assert [each for each in complaints if expected not in each] == []


@pytest.fixture
def officer(browse: Browse) -> Any:
    """Return a page in which a superuser is signed in."""
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("officer"))
    return browse(client)


def is_as_wide_as_the_screen(page: Any) -> bool:
    return bool(page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth"))


@pytest.mark.browser
def test_officer_finds_an_event_and_takes_its_proof_away(officer: Any, tmp_path: Path) -> None:
    sealed(150, origin=Origin(actor="8"), subject=SUBJECT, reason="<script>document.title = 'gone'</script>")
    sealed(5, at=NOW + timedelta(hours=1))
    events(1, action=Action.AUDIT_VERIFIED, detail={"tree_size": 155, "findings": 0}, at=NOW + timedelta(hours=2))
    officer.goto("/admin/")
    officer.click("#content a:text-is('Audit events')")
    assert "155" in officer.inner_text(".trail-verified")
    assert is_as_wide_as_the_screen(officer)

    officer.get_by_label("Actor").fill("8")
    officer.get_by_label("From (UTC)").fill("2026-11-24T16:00")
    officer.keyboard.press("Enter")
    officer.wait_for_url("**actor=8**")
    assert officer.locator(".trail tbody tr").count() == 100
    assert officer.get_by_label("From (UTC)").input_value() == "2026-11-24T16:00"
    officer.click("text=Older >> nth=0")
    officer.wait_for_url("**before=**")
    assert officer.locator(".trail tbody tr").count() == 50
    assert officer.get_by_label("Actor").input_value() == "8"
    assert is_as_wide_as_the_screen(officer)

    officer.click(".trail tbody tr:last-child a")
    assert "<script>" in officer.inner_text(".trail-fields")
    assert is_as_wide_as_the_screen(officer)
    with officer.expect_download() as download:
        officer.click("text=Download the proof")
    download.value.save_as(tmp_path / "taken")
    proven = verify_inclusion_bundle((tmp_path / "taken").read_text(), [KEY.public_key()])
    assert download.value.suggested_filename == f"proof-{proven.event['id']}.json"
    assert (proven.leaf_index, proven.event["actor"]) == (0, "8")

    officer.click("text=150 events")
    assert officer.inner_text("pre").startswith("phi-oidc-audit\n150\n")
    officer.click("nav >> text=Checkpoints of the audit log")
    assert officer.locator(".trail tbody tr").count() == 2
    assert is_as_wide_as_the_screen(officer)
    looked = [json.loads(each.detail)["page"] for each in AuditEvent.objects.filter(action="audit.viewed")]
    assert looked == ["events", "events", "events", "event", "proof", "checkpoint", "checkpoints"]
