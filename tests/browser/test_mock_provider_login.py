"""The login page in a browser: readable by all, at 320 px, light and dark; its form leads back to the client."""

from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler

import pytest

from django_phi_oidc.testing.mock_provider import Client
from tests.support.accessibility import AXE
from tests.support.external_tools import CHROMIUM
from tests.support.http_server import served_by
from tests.support.relying_party_fixtures import clock, keys, op, rp  # noqa: F401 -- fixtures

pytestmark = [pytest.mark.browser, pytest.mark.node]


class Back(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        body = b"<!doctype html><title>back</title>"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def client_url() -> Iterator[str]:
    """Return the redirect URI of a client that is there."""
    with served_by(Back) as address:
        yield f"{address}/callback"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_login_page_is_accessible_narrow_and_leads_back(op, rp, client_url, chromium_path, scheme):
    sync_api = pytest.importorskip("playwright.sync_api")
    op.register_client(Client("portal", rp.secret, [client_url], client_name="Portal"))
    url = rp.url(redirect_uri=client_url, scope="openid profile address", claims='{"userinfo": {"email": null}}')
    said = []
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=[*CHROMIUM])
        # The page's own policy forbids the script that judges it.
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
        assert [(one["id"], one["nodes"][0]["html"]) for one in found["violations"]] == []
        assert page.evaluate("document.documentElement.scrollWidth") == 320
        context.close()
        context = browser.new_context(color_scheme=scheme)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.goto(url)
        page.fill("#username", "amina")
        page.fill("#password", "amina-demo")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{client_url}?*")
        browser.close()
    assert [line for line in said if "Content Security Policy" in line] == []
    assert op.last_grant.account.username == "amina"
