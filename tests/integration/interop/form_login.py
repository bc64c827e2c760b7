"""A user without a browser, who submits the provider's forms by HTTP. Ten times faster than a browser."""

import html
import re
from dataclasses import dataclass, field
from urllib.parse import urljoin

import requests

_CONSENT = re.compile(r'href="([^"]*[?;]replace=[^"]*)"')
_FORM = re.compile(r'<form method="post" action="([^"]+)">\s*<input type="hidden" name="csrf" value="([^"]+)">')
"""The form of a page of the mock provider."""
_CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@dataclass(slots=True)
class FormPerson:
    """One user's cookies at the portal and at the provider."""

    portal: str
    issuer: str
    ca_bundle: str
    web: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        # Otherwise environment variables could replace the CA bundle.
        self.web.trust_env = False
        self.web.verify = self.ca_bundle
        self.web.headers["Accept"] = "text/html"

    def get(self, path: str, **options: bool) -> requests.Response:
        """Request a page of the portal."""
        return self.web.get(f"{self.portal}{path}", timeout=20, **options)

    def post(self, path: str, page: str = "/portal/") -> requests.Response:
        """Post to the portal with the CSRF token of one of its pages, without following redirects."""
        match = _CSRF.search(self.get(page).text)
        fields = {"csrfmiddlewaretoken": match[1] if match else ""}
        headers = {"Referer": f"{self.portal}{page}"}
        return self.web.post(f"{self.portal}{path}", data=fields, headers=headers, allow_redirects=False, timeout=20)

    def sign_in(self, name: str = "amina") -> requests.Response:
        """Sign in and return the last page."""
        page = self.get("/oidc/authenticate/?next=/portal/")
        if link := _CONSENT.search(page.text):
            page = self.get(html.unescape(link[1]))
        for fields in ({"username": name, "step": "password"}, {"decision": "allow"}):
            if page.url.startswith(f"{self.issuer}/interaction/"):
                page = self.web.post(page.url, data=fields, timeout=20)
        return page

    def sign_out_at_the_provider(self) -> requests.Response:
        """Confirm the provider's sign-out page, and return the page after it."""
        page = self.web.get(f"{self.issuer}/session/end", timeout=20)
        xsrf = re.search(r'name="xsrf" value="([^"]+)"', page.text)
        fields = {"xsrf": xsrf[1] if xsrf else "", "logout": "yes"}
        return self.web.post(f"{self.issuer}/session/end/confirm", data=fields, timeout=20)

    @property
    def session_key(self) -> str:
        """The portal's session cookie."""
        return str(self.web.cookies.get("sessionid", domain="127.0.0.1") or "")


class MockProviderPerson(FormPerson):
    """A user at the mock provider."""

    def sign_in(self, name: str = "amina") -> requests.Response:
        page = self.get("/oidc/authenticate/?next=/portal/")
        if link := _CONSENT.search(page.text):
            page = self.get(html.unescape(link[1]))
        if page.url.startswith(f"{self.issuer}/authorize"):
            page = self._submit(page, decision="sign-in", username=name, password=f"{name}-demo")
        return page

    def sign_out_at_the_provider(self) -> requests.Response:
        return self._submit(self.web.get(f"{self.issuer}/end-session", timeout=20), decision="sign-out")

    def _submit(self, page: requests.Response, **fields: str) -> requests.Response:
        match = _FORM.search(page.text)
        action, csrf = match.groups() if match else ("", "")
        url = urljoin(page.url, html.unescape(action))
        return self.web.post(url, data={"csrf": html.unescape(csrf), **fields}, timeout=20)
