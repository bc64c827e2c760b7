"""A browser without a screen, in the portal's process: cookies, and no redirect followed.

Each request passes the project's own middleware, URLs and views, as a server would hand it over.
"""

from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any
from urllib.parse import urlencode, urlsplit

from django.http.response import HttpResponseBase
from django.test import Client

from .op import DemoProvider


class NotBegun(LookupError):
    """The portal began no sign-in."""


@dataclass
class Page:
    """What came back."""

    status: int
    location: str
    body: str
    headers: list[tuple[str, str]] = field(default_factory=list)

    def header(self, name: str) -> str:
        """Return what that header says, however often it is there."""
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
    pages: list[Page] = field(default_factory=list, repr=False)
    """All that came back, in order."""
    session_keys: set[str] = field(default_factory=set, repr=False)
    """All that it was ever given."""
    home: str = "/"
    """Where a sign-in leads."""
    door: str = "/oidc/authenticate/"
    """Where it begins."""
    session_cookie: str = "sessionid"

    def __post_init__(self) -> None:
        self._note_session_key()

    def get(self, url: str) -> Page:
        """Return what the portal answers. url: a path, or whole."""
        return self._ask("GET", url, None)

    def post(self, url: str, **fields: str) -> Page:
        """Return what the portal answers to a form of its own."""
        fields = {"csrfmiddlewaretoken": self.csrf_token(), **fields}
        return self._ask("POST", url, urlencode(fields).encode())

    def csrf_token(self) -> str:
        """Return what a form of the portal's would hold."""
        return self.cookies.get("csrftoken", "")

    def begin(self, *, next_url: str | None = None, path: str = "") -> Page:
        """Ask the portal for a sign-in; the page's location is the authorization request."""
        return self.get(f"{path or self.door}?{urlencode({'next': self.home if next_url is None else next_url})}")

    def callback(self, op: DemoProvider, username: str = "amina", *, next_url: str | None = None) -> str:
        """Sign in at the OP and return the callback URL, not yet visited. Raises: NotBegun."""
        begun = self.begin(next_url=next_url)
        if begun.status != 302:
            raise NotBegun(f"The portal answered {begun.status}, and no sign-in began.")
        return op.authorize(begun.location, username, cookies=self.op_cookies)

    def sign_in(self, op: DemoProvider, username: str = "amina", *, next_url: str | None = None) -> Page:
        """Sign in all the way and return what the callback answered."""
        return self.get(self.callback(op, username, next_url=next_url))

    def _ask(self, method: str, url: str, body: bytes | None) -> Page:
        self.urls.append(url)
        page = self._exchange(method, url, body)
        self.urls.append(page.location)
        self.pages.append(page)
        self._note_session_key()
        return page

    def _note_session_key(self) -> None:
        if self.session_cookie in self.cookies:
            self.session_keys.add(self.cookies[self.session_cookie])

    def _exchange(self, method: str, url: str, body: bytes | None) -> Page:
        return self._page(
            self._send(method, url, body or b"", client=Client(enforce_csrf_checks=True, raise_request_exception=False))
        )

    def _send(self, method: str, url: str, body: bytes, *, client: Client, **environ: Any) -> Any:
        parts = urlsplit(url)
        client.cookies.load(self.cookies)
        origin = {"origin": self.base} if method == "POST" else {}
        return client.generic(
            method,
            parts._replace(scheme="", netloc="", fragment="").geturl(),
            body,
            content_type="application/x-www-form-urlencoded",
            secure=self.base.startswith("https:"),
            headers={"host": urlsplit(self.base).netloc, **origin, **self.headers},
            **environ,
        )

    def _page(self, response: Any) -> Page:
        self._keep([morsel.OutputString() for morsel in response.cookies.values()])
        cookies = [("Set-Cookie", morsel.OutputString()) for morsel in response.cookies.values()]
        headers = [*response.items(), *cookies]
        return Page(response.status_code, response.get("Location", ""), _body(response), headers)

    def _keep(self, set_cookies: list[str]) -> None:
        for line in set_cookies:
            for name, morsel in SimpleCookie(line).items():
                if str(morsel["max-age"]) == "0":
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value


def _body(response: HttpResponseBase) -> str:
    content: bytes = b"".join(response) if response.streaming else response.content  # type: ignore[attr-defined]
    return content.decode("utf-8", "replace")
