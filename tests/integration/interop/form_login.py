"""A person without a browser: fills in the provider's forms by HTTP, which takes a tenth of the time."""

import re
from dataclasses import dataclass, field

import requests

_CSRF = re.compile(r'name="csrfmiddlewaretoken" value="([^"]+)"')


@dataclass(slots=True)
class FormPerson:
    """Cookies of one browser, at the portal and at the provider."""

    portal: str
    issuer: str
    ca_bundle: str
    web: requests.Session = field(default_factory=requests.Session)

    def __post_init__(self) -> None:
        # Or a variable of the machine's would say which certificates are good.
        self.web.trust_env = False
        self.web.verify = self.ca_bundle
        self.web.headers["Accept"] = "text/html"

    def get(self, path: str, **options: bool) -> requests.Response:
        """Ask the portal for a page."""
        return self.web.get(f"{self.portal}{path}", timeout=20, **options)

    def post(self, path: str, page: str = "/portal/") -> requests.Response:
        """Send a form of the portal's, with the token of one of its pages; no redirect is followed."""
        found = _CSRF.search(self.get(page).text)
        fields = {"csrfmiddlewaretoken": found[1] if found else ""}
        headers = {"Referer": f"{self.portal}{page}"}
        return self.web.post(f"{self.portal}{path}", data=fields, headers=headers, allow_redirects=False, timeout=20)

    def sign_in(self, name: str = "amina") -> requests.Response:
        """Sign in all the way, and return the page that comes in the end."""
        page = self.get("/oidc/authenticate/?next=/portal/")
        for fields in ({"username": name, "step": "password"}, {"decision": "allow"}):
            if page.url.startswith(f"{self.issuer}/interaction/"):
                page = self.web.post(page.url, data=fields, timeout=20)
        return page

    @property
    def session_key(self) -> str:
        """The portal's session cookie."""
        return str(self.web.cookies.get("sessionid", domain="127.0.0.1") or "")
