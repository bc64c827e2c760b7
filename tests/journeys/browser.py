"""A browser without a screen: cookies, no redirect followed, one connection for each request."""

from dataclasses import dataclass, field
from http.client import HTTPConnection
from http.cookies import SimpleCookie
from urllib.parse import urlencode, urlsplit

from django.test import Client

from django_phi_oidc.attack.op import DemoProvider

SESSION_COOKIE = "sessionid"


@dataclass
class Page:
    """What came back."""

    status: int
    location: str
    body: str
    headers: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str:
        return ", ".join(value for key, value in self.headers if key.lower() == name.lower())


@dataclass
class Browser:
    """One person's browser on the portal at `base`."""

    base: str
    cookies: dict[str, str] = field(default_factory=dict)
    op_cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    urls: list[str] = field(default_factory=list)
    """All that it was at, and to which it was sent, in order."""
    session_keys: set[str] = field(default_factory=set, repr=False)
    """All that it was ever given."""

    def __post_init__(self) -> None:
        self._note_session_key()

    def get(self, url: str) -> Page:
        return self._ask("GET", url, None)

    def post(self, url: str, **fields: str) -> Page:
        token = self.cookies.get("csrftoken", "")
        return self._ask("POST", url, urlencode({"csrfmiddlewaretoken": token, **fields}).encode())

    def begin(self, *, next_url: str = "/portal/home/", path: str = "/oidc/authenticate/") -> Page:
        """Ask the portal for a sign-in; the page's location is the authorization request."""
        return self.get(f"{path}?{urlencode({'next': next_url})}")

    def callback(self, op: DemoProvider, username: str = "amina", *, next_url: str = "/portal/home/") -> str:
        """Sign in at the OP and return the callback URL, not yet visited."""
        begun = self.begin(next_url=next_url)
        assert begun.status == 302, begun
        return op.authorize(begun.location, username, cookies=self.op_cookies)

    def sign_in(self, op: DemoProvider, username: str = "amina", *, next_url: str = "/portal/home/") -> Page:
        """Sign in all the way and return what the callback answered."""
        return self.get(self.callback(op, username, next_url=next_url))

    def user(self) -> str:
        """Return the pk of who is signed in, or an empty string."""
        page = self.get("/portal/home/")
        return page.body.partition('data-user="')[2].partition('"')[0] if page.status == 200 else ""

    def _ask(self, method: str, url: str, body: bytes | None) -> Page:
        self.urls.append(url)
        page = self._exchange(method, url, body)
        self.urls.append(page.location)
        self._note_session_key()
        return page

    def _note_session_key(self) -> None:
        if SESSION_COOKIE in self.cookies:
            self.session_keys.add(self.cookies[SESSION_COOKIE])

    def _exchange(self, method: str, url: str, body: bytes | None) -> Page:
        parts = urlsplit(url)
        connection = HTTPConnection(urlsplit(self.base).netloc, timeout=60)
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"Cookie": cookies, "Connection": "close", **self.headers}
        if body is not None:
            headers |= {"Content-Type": "application/x-www-form-urlencoded", "Origin": self.base}
        try:
            target = parts._replace(scheme="", netloc="", fragment="").geturl()
            connection.request(method, target, body=body, headers=headers)
            assert connection.sock is not None
            rest = connection.sock.dup()
            response = connection.getresponse()
            page = Page(response.status, response.headers.get("Location", ""), "", response.getheaders())
            page.body = response.read().decode()
            # The server hangs up when it has finished the request, its connections to the database included.
            with rest:
                while rest.recv(4096):
                    pass
        finally:
            connection.close()
        self._keep(response.headers.get_all("Set-Cookie", []))
        return page

    def _keep(self, set_cookies: list[str]) -> None:
        for line in set_cookies:
            for name, morsel in SimpleCookie(line).items():
                if str(morsel["max-age"]) == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


class InProcessBrowser(Browser):
    """The same browser without a socket: each request meets the settings, the middleware's too, as they are then."""

    def _exchange(self, method: str, url: str, body: bytes | None) -> Page:
        parts = urlsplit(url)
        client = Client(raise_request_exception=False, headers={"host": urlsplit(self.base).netloc})
        client.cookies.load(self.cookies)
        response = client.generic(
            method,
            parts._replace(scheme="", netloc="", fragment="").geturl(),
            body or b"",
            content_type="application/x-www-form-urlencoded",
            secure=self.base.startswith("https:"),
        )
        self._keep([morsel.OutputString() for morsel in response.cookies.values()])
        return Page(
            response.status_code, response.get("Location", ""), response.content.decode(), list(response.items())
        )
