"""The attack kit's browser for the test portal, in this process or over a socket with one connection per request."""

import re
from http.client import HTTPConnection
from ssl import SSLSocket
from urllib.parse import urlsplit

from django_phi_oidc.testing.attack import browser
from django_phi_oidc.testing.attack.browser import PortalResponse

__all__ = ["Browser", "InProcessBrowser", "PortalResponse", "state_cookies"]
HOME = "/portal/home/"


class InProcessBrowser(browser.Browser):
    """A browser without a socket: each request uses the current settings, including MIDDLEWARE."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.default_next_url = HOME

    def user(self) -> str:
        """Return the primary key of the signed-in user, or an empty string."""
        page = self.get(self.default_next_url)
        return page.body.partition('data-user="')[2].partition('"')[0] if page.status == 200 else ""


class Browser(InProcessBrowser):
    """A browser for the portal at `base_url`, over a socket."""

    def _dispatch(self, method: str, url: str, body: bytes | None) -> PortalResponse:
        parts = urlsplit(url)
        connection = self._connect()
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Cookie": cookies, "Connection": "close", **self.headers}
        if body is not None:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.base_url}
        try:
            target = parts._replace(scheme="", netloc="", fragment="").geturl()
            connection.request(method, target, body=body, headers=headers)
            assert connection.sock is not None
            # Only a proxy uses TLS here, and it does not wait for the end of the request.
            sock = None if isinstance(connection.sock, SSLSocket) else connection.sock.dup()
            response = connection.getresponse()
            page = PortalResponse(response.status, response.headers.get("Location", ""), "", response.getheaders())
            page.body = response.read().decode()
            # The server closes the connection after the request is finished and its database connections are closed.
            if sock is not None:
                with sock:
                    while sock.recv(4096):
                        pass
        finally:
            connection.close()
        self._store_cookies(response.headers.get_all("Set-Cookie", []))
        return page

    def _connect(self) -> HTTPConnection:
        return HTTPConnection(urlsplit(self.base_url).netloc, timeout=60)


def state_cookies(browser: InProcessBrowser) -> list[str]:
    """Return the names of the cookies of pending sign-ins."""
    pattern = re.compile(r"(__Host-)?phi_oidc_[0-9a-f]{32}")
    return [name for name in browser.cookies if pattern.fullmatch(name)]
