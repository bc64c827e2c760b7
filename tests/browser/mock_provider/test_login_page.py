"""The login page of the mock provider in Chromium: accessible and 320 px wide, and its form redirects to the client."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from django_phi_oidc.testing.mock_provider import Client
from tests.support.accessibility import AXE
from tests.support.external_tools import CHROMIUM
from tests.support.http_server import served_by

pytestmark = [pytest.mark.browser, pytest.mark.node]


class RedirectURI(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>back</title>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Log nothing."""


@pytest.fixture
def client_url() -> Iterator[str]:
    """Serve a redirect URI, and yield it."""
    with served_by(RedirectURI) as url:
        yield f"{url}/callback"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_login_page_is_accessible_and_redirects_to_the_client(op, rp, client_url, chromium_path, scheme):
    sync_api = pytest.importorskip("playwright.sync_api")
    op.register_client(Client("portal", rp.secret, [client_url], client_name="Portal"))
    url = rp.url(redirect_uri=client_url, scope="openid profile address", claims='{"userinfo": {"email": null}}')
    console = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=[*CHROMIUM])
        # The content security policy of the page forbids the script of axe-core.
        context = browser.new_context(viewport={"width": 320, "height": 640}, color_scheme=scheme, bypass_csp=True)
        page = context.new_page()
        page.goto(url)
        assert "postal address, email" in page.inner_text("main")
        page.fill("#username", "amina")
        page.fill("#password", "wrong")
        page.keyboard.press("Enter")
        page.wait_for_selector("[role=alert]")
        page.add_script_tag(path=str(AXE))
        found = page.evaluate("axe.run()")
        assert [(rule["id"], rule["nodes"][0]["html"]) for rule in found["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        context.close()
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: console.append(message.text))
        page.goto(url)
        page.fill("#username", "amina")
        page.fill("#password", "amina-demo")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{client_url}?*")
        browser.close()
    assert [line for line in console if "Content Security Policy" in line] == []
    assert op.last_grant.account.username == "amina"
