"""The attack kit's browser, on a socket: one connection for each request. The portal's page tells who is signed in."""

from http.client import HTTPConnection
from urllib.parse import urlsplit

from django_phi_oidc.testing.attack import browser
from django_phi_oidc.testing.attack.browser import PortalResponse

__all__ = ["Browser", "InProcessBrowser", "PortalResponse"]
HOME = "/portal/home/"


class InProcessBrowser(browser.Browser):
    """The browser without a socket: each request meets the settings, the middleware's too, as they are then."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.default_next_url = HOME

    def user(self) -> str:
        """Return the pk of who is signed in, or an empty string."""
        page = self.get(self.default_next_url)
        return page.body.partition('data-user="')[2].partition('"')[0] if page.status == 200 else ""


class Browser(InProcessBrowser):
    """One person's browser on the portal at `base`."""

    def _dispatch(self, method: str, url: str, body: bytes | None) -> PortalResponse:
        parts = urlsplit(url)
        connection = HTTPConnection(urlsplit(self.base_url).netloc, timeout=60)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Cookie": cookies, "Connection": "close", **self.headers}
        if body is not None:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.base_url}
        try:
            target = parts._replace(scheme="", netloc="", fragment="").geturl()
            connection.request(method, target, body=body, headers=headers)
            assert connection.sock is not None
            rest = connection.sock.dup()
            response = connection.getresponse()
            page = PortalResponse(response.status, response.headers.get("Location", ""), "", response.getheaders())
            page.body = response.read().decode()
            # The server hangs up when it has finished the request, its connections to the database included.
            with rest:
                while rest.recv(4096):
                    pass
        finally:
            connection.close()
        self._store_cookies(response.headers.get_all("Set-Cookie", []))
        return page
