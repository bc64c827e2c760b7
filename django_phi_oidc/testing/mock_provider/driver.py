"""Signs in at the login page over HTTP, without a browser."""

import ssl
from html.parser import HTMLParser
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urljoin, urlsplit

from .client_connections import build_request_target, create_connection

TIMEOUT_SECONDS = 30.0


class RedirectExpected(Exception):
    """The provider returned a page instead of a redirect to the client; `status` and `body` are
    those of the page.
    """

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"The provider returned {status} and no redirect.")
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
    """Sign in at the authorization request url and return the callback URL.

    Pass the same dict as cookies to reuse the session at the provider; then no form is submitted.
    Raises: RedirectExpected.
    """
    jar = {} if cookies is None else cookies
    status, location, page = _send_request("GET", url, b"", jar, ssl_context)
    if not location:
        form = _LoginFormParser()
        form.feed(page)
        if not form.action:
            raise RedirectExpected(status, page)
        fields = {
            **form.hidden_fields,
            "username": username,
            "password": password,
            "decision": decision,
        }
        body = urlencode(fields).encode()
        status, location, page = _send_request(
            "POST", urljoin(url, form.action), body, jar, ssl_context
        )
    if not location:
        raise RedirectExpected(status, page)
    return location


class _LoginFormParser(HTMLParser):
    """Reads the action and the hidden fields of the page's form."""

    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.hidden_fields: dict[str, str] = {}

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {}
        for name, value in attrs:
            attributes[name] = value or ""
        if tag == "form":
            self.action = attributes.get("action", "")
        elif tag == "input" and attributes.get("type") == "hidden":
            self.hidden_fields[attributes["name"]] = attributes.get("value", "")


def _send_request(
    method: str, url: str, body: bytes, cookies: dict[str, str], ssl_context: ssl.SSLContext | None
) -> tuple[int, str, str]:
    parts = urlsplit(url)
    connection = create_connection(parts, timeout_seconds=TIMEOUT_SECONDS, ssl_context=ssl_context)

    if cookies:
        headers = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
    else:
        headers = {}

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
