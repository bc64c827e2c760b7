"""A person at the login page, without a browser: signs in over the real socket and says where they were sent."""

import ssl
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

from .backchannel import build_request_target, create_connection

TIMEOUT_SECONDS = 30.0


class RedirectExpected(Exception):
    """The provider showed a page instead of sending the person back; `status` and `body` are that page's."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"The provider answered {status} and no redirect.")
        self.status = status
        self.body = body


def sign_in(
    url: str,
    *,
    username: str,
    password: str,
    cookies: dict[str, str] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    decision: str = "sign-in",
) -> str:
    """Return the callback URL that the authorization request at url leads to.

    Pass one dict as cookies to keep the session at the provider over several sign-ins; there, no form is filled in.
    Raises: NotRedirected.
    """
    jar = {} if cookies is None else cookies
    status, location, page = _send_request("GET", url, b"", jar, ssl_context)
    if not location:
        form = _LoginFormParser()
        form.feed(page)
        if not form.action:
            raise RedirectExpected(status, page)
        fields = {**form.hidden_fields, "username": username, "password": password, "decision": decision}
        status, location, page = _send_request(
            "POST", urljoin(url, form.action), urlencode(fields).encode(), jar, ssl_context
        )
    if not location:
        raise RedirectExpected(status, page)
    return location


class _LoginFormParser(HTMLParser):
    """The one form of the page: where it goes, and its hidden fields."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.hidden_fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note what a browser would send."""
        found = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.action = found.get("action", "")
        elif tag == "input" and found.get("type") == "hidden":
            self.hidden_fields[found["name"]] = found.get("value", "")


def _send_request(
    method: str, url: str, body: bytes, cookies: dict[str, str], ssl_context: ssl.SSLContext | None
) -> tuple[int, str, str]:
    parts = urlsplit(url)
    connection = create_connection(parts, timeout_seconds=TIMEOUT_SECONDS, ssl_context=ssl_context)
    headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())} if cookies else {}
    if body:
        headers["Content-Type"] = "application/x-www-form-urlencoded"
    try:
        connection.request(method, build_request_target(parts), body=body or None, headers=headers)
        response = connection.getresponse()
        page = response.read().decode()
        for line in response.headers.get_all("Set-Cookie", []):
            for name, morsel in SimpleCookie(line).items():
                cookies[name] = morsel.value
        return response.status, response.headers.get("Location", ""), page
    finally:
        connection.close()
