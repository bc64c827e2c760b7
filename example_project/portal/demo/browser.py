"""A tiny browser: cookies, forms, and redirects that it follows one by one, so that a step can stop before one."""

import base64
import http.client
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.message import Message
from html.parser import HTMLParser
from http.cookiejar import CookieJar
from typing import Any
from urllib.parse import quote_plus, urlencode, urljoin, urlsplit

MOST_REDIRECTS = 10
SECONDS = 30.0


class _AsItIs(urllib.request.HTTPErrorProcessor):
    """Hands over every answer, redirects and refusals too."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


@dataclass(slots=True)
class Form:
    """A form of a page: where it leads, and what it holds already."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.found.append(Form(given.get("action", "")))
        elif tag in {"input", "button", "select", "textarea"} and self.found and given.get("name"):
            self.found[-1].names.add(given["name"])
            if given.get("type") == "hidden":
                self.found[-1].fields[given["name"]] = given.get("value", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """An answer, and the address it came from. Neither is ever printed: both may hold what must not be."""

    url: str = field(repr=False)
    status: int
    headers: Message = field(repr=False)
    body: bytes = field(repr=False)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode("utf-8", "replace")

    @property
    def path(self) -> str:
        """The path of the address alone."""
        return urlsplit(self.url).path

    @property
    def location(self) -> str:
        """Where a redirect leads, or an empty string."""
        target = self.headers.get("Location", "")
        return urljoin(self.url, target) if 300 <= self.status < 400 and target else ""

    def form(self, names: Mapping[str, str], *, action: str = "") -> Form:
        """Return the page's form that has those fields and whose address contains action.

        Raises: LookupError.
        """
        forms = _Forms()
        forms.feed(self.text)
        for form in forms.found:
            if set(names) <= form.names and action in form.action:
                return form
        raise LookupError(f"{self.path} answered {self.status} and has no such form")


class Browser:
    """One person's browser."""

    def __init__(self) -> None:
        self.cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies), _AsItIs()
        )

    def open(self, url: str, *, until: Callable[[str], bool] = lambda url: False) -> Page:
        """Return the page at url, at the end of its redirects, or the redirect that leads to an address of `until`."""
        return self._follow(self._call_client(url), until)

    def submit(
        self,
        page: Page,
        fields: Mapping[str, str],
        *,
        action: str = "",
        until: Callable[[str], bool] = lambda url: False,
    ) -> Page:
        """Return the page to which the form of those fields leads; what it holds already is sent along."""
        form = page.form(fields, action=action)
        body = urlencode({**form.fields, **fields}).encode()
        return self._follow(self._call_client(urljoin(page.url, form.action), body=body, origin=page.url), until)

    def post(self, url: str, fields: Mapping[str, str], *, client: tuple[str, str]) -> Page:
        """Return the answer to a call by a client that names itself. Spec: RFC 6749 2.3.1."""
        basic = base64.b64encode(":".join(map(quote_plus, client)).encode()).decode()
        return self._call_client(url, body=urlencode(fields).encode(), authorization=f"Basic {basic}")

    def _follow(self, page: Page, until: Callable[[str], bool]) -> Page:
        for _ in range(MOST_REDIRECTS):
            if not page.location or until(page.location):
                return page
            page = self._call_client(page.location)
        raise http.client.HTTPException("too many redirects")

    def _call_client(self, url: str, *, body: bytes | None = None, origin: str = "", authorization: str = "") -> Page:
        headers = {"Accept": "text/html"}
        if origin:
            parts = urlsplit(origin)
            headers |= {"Origin": f"{parts.scheme}://{parts.netloc}", "Referer": f"{parts.scheme}://{parts.netloc}/"}
        if authorization:
            headers["Authorization"] = authorization
        request = urllib.request.Request(url, data=body, headers=headers)  # POST where there is a body
        with self._opener.open(request, timeout=SECONDS) as response:
            return Page(url=url, status=response.status, headers=response.headers, body=response.read())
