"""A headless browser in the portal's process, with cookies. It does not follow redirects.

Each request passes the project's middleware, URLs and views, as with a web server.
"""

import html
import re
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.http.response import HttpResponseBase
from django.test import Client

from ..mock_provider import DemoProvider

_CONSENT_LINK = re.compile(r'href="([^"]*[?;]replace=[^"]*)"')


class SignInNotStarted(LookupError):
    """The portal did not start a sign-in."""


@dataclass
class PortalResponse:
    """A response of the portal."""

    status: int
    location: str
    body: str
    headers: list[tuple[str, str]] = field(default_factory=list)

    def join_header_values(self, name: str) -> str:
        """Return the values of all headers of that name, joined by commas."""
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())


@dataclass
class Browser:
    """The browser of one user of the portal at `base_url`."""

    base_url: str
    cookies: dict[str, str] = field(default_factory=dict)
    provider_cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    visited_urls: list[str] = field(default_factory=list)
    """All requested URLs and redirect targets, in order."""
    responses: list[PortalResponse] = field(default_factory=list, repr=False)
    """All responses, in order."""
    session_keys: set[str] = field(default_factory=set, repr=False)
    """All session keys that the portal has set."""
    client_address: str = "127.0.0.1"
    """The address from which the requests come."""
    default_next_url: str = "/"
    """The `next` URL of a sign-in."""
    sign_in_url: str = "/oidc/authenticate/"
    """The URL that starts a sign-in."""
    session_cookie_name: str = "sessionid"

    def __post_init__(self) -> None:
        self._record_session_key()

    def get(self, url: str) -> PortalResponse:
        """Send a GET request. url: absolute, or only the path."""
        return self._request("GET", url, None)

    def post(self, url: str, **fields: str) -> PortalResponse:
        """Submit a form with the CSRF token."""
        fields = {"csrfmiddlewaretoken": self.csrf_token(), **fields}
        return self._request("POST", url, urlencode(fields).encode())

    def csrf_token(self) -> str:
        """Return the token that a form of the portal would contain."""
        return self.cookies.get("csrftoken", "")

    def start_sign_in(self, *, next_url: str | None = None, path: str = "") -> PortalResponse:
        """Start a sign-in; the location of the response is the authorization request.

        If a user is signed in, follow the link of the page that asks for consent.
        """
        query = urlencode({"next": self.default_next_url if next_url is None else next_url})
        page = self.get(f"{path or self.sign_in_url}?{query}")
        consent_url = find_consent_url(page)
        if consent_url:
            return self.get(consent_url)
        return page

    def get_callback_url(
        self, op: DemoProvider, username: str = "amina", *, next_url: str | None = None
    ) -> str:
        """Sign in at the provider and return the callback URL without visiting it. Raises:
        SignInNotStarted.
        """
        response = self.start_sign_in(next_url=next_url)
        if response.status != 302:
            raise SignInNotStarted(
                f"The portal returned status {response.status} and did not start a sign-in."
            )
        return op.authorize(response.location, username, cookies=self.provider_cookies)

    def sign_in(
        self, op: DemoProvider, username: str = "amina", *, next_url: str | None = None
    ) -> PortalResponse:
        """Sign in and return the response of the callback."""
        return self.get(self.get_callback_url(op, username, next_url=next_url))

    def _request(self, method: str, url: str, body: bytes | None) -> PortalResponse:
        self.visited_urls.append(url)
        page = self._dispatch(method, url, body)
        self.visited_urls.append(page.location)
        self.responses.append(page)
        self._record_session_key()
        return page

    def _record_session_key(self) -> None:
        if self.session_cookie_name in self.cookies:
            self.session_keys.add(self.cookies[self.session_cookie_name])

    def _dispatch(self, method: str, url: str, body: bytes | None) -> PortalResponse:
        client = Client(enforce_csrf_checks=True, raise_request_exception=False)
        return self._parse_response(self._call_client(method, url, body or b"", client=client))

    def _call_client(
        self, method: str, url: str, body: bytes, *, client: Client, **environ: Any
    ) -> Any:
        parts = urlsplit(url)
        client.cookies.load(self.cookies)

        if method == "POST":
            origin = {"origin": self.base_url}
        else:
            origin = {}

        return client.generic(
            method,
            # With the host, because a path may begin with two slashes.
            parts._replace(scheme="", fragment="").geturl(),
            body,
            content_type="application/x-www-form-urlencoded",
            secure=self.base_url.startswith("https:"),
            headers={"host": urlsplit(self.base_url).netloc, **origin, **self.headers},
            REMOTE_ADDR=self.client_address,
            **environ,
        )

    def _parse_response(self, response: Any) -> PortalResponse:
        cookies = []
        for morsel in response.cookies.values():
            cookies.append(morsel.OutputString())
        self._store_cookies(cookies)
        headers = [*response.items(), *(("Set-Cookie", cookie) for cookie in cookies)]
        return PortalResponse(
            response.status_code, response.get("Location", ""), _read_body(response), headers
        )

    def _store_cookies(self, set_cookie_headers: list[str]) -> None:
        for line in set_cookie_headers:
            for name, morsel in SimpleCookie(line).items():
                if str(morsel["max-age"]) == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


def find_consent_url(page: PortalResponse) -> str:
    """Return the link of the page that asks whether to replace the session; empty if it is another
    page.
    """
    link = None
    if page.status == 200:
        link = _CONSENT_LINK.search(page.body)
    if link:
        return html.unescape(link[1])
    return ""


def _read_body(response: HttpResponseBase) -> str:
    content: bytes
    if response.streaming:
        content = b"".join(response)
    else:
        content = response.content  # type: ignore[attr-defined]
    return content.decode("utf-8", "replace")
