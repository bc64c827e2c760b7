"""A minimal HTTP browser with cookies and forms. It follows redirects one by one, so a step can stop before one."""

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

MAX_REDIRECTS = 10
TIMEOUT_SECONDS = 30.0


class _UnprocessedResponses(urllib.request.HTTPErrorProcessor):
    """Returns redirects and errors like other responses."""

    def http_response(self, request: urllib.request.Request, response: Any) -> Any:
        return response

    https_response = http_response


@dataclass(slots=True)
class Form:
    """A form of a page: its action, its hidden fields, and the names of all fields."""

    action: str
    fields: dict[str, str] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


class _FormParser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[Form] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append(Form(attributes.get("action", "")))
        elif tag in {"input", "button", "select", "textarea"} and self.forms and attributes.get("name"):
            self.forms[-1].names.add(attributes["name"])
            if attributes.get("type") == "hidden":
                self.forms[-1].fields[attributes["name"]] = attributes.get("value", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A response and its URL. Never print them, because both may contain secrets."""

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
        """The path of the URL."""
        return urlsplit(self.url).path

    @property
    def location(self) -> str:
        """The target of a redirect, or an empty string."""
        target = self.headers.get("Location", "")
        return urljoin(self.url, target) if 300 <= self.status < 400 and target else ""

    def get_form(self, names: Mapping[str, str], *, action: str = "") -> Form:
        """Return the form that has those fields and whose action contains `action`.

        Raises: LookupError.
        """
        parser = _FormParser()
        parser.feed(self.text)
        for form in parser.forms:
            if set(names) <= form.names and action in form.action:
                return form
        raise LookupError(f"{self.path} returned {self.status} without such a form")


class Browser:
    """The browser of one user."""

    def __init__(self) -> None:
        self.cookies = CookieJar()
        self._opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor(self.cookies), _UnprocessedResponses()
        )

    def open(self, url: str, *, until: Callable[[str], bool] = lambda url: False) -> Page:
        """Return the page at url after all redirects, or the first redirect whose target fulfils `until`."""
        return self._follow(self._send(url), until)

    def submit(
        self,
        page: Page,
        fields: Mapping[str, str],
        *,
        action: str = "",
        until: Callable[[str], bool] = lambda url: False,
    ) -> Page:
        """Submit the form that has those fields, with its hidden fields, and return the resulting page."""
        form = page.get_form(fields, action=action)
        body = urlencode({**form.fields, **fields}).encode()
        return self._follow(self._send(urljoin(page.url, form.action), body=body, origin=page.url), until)

    def post(self, url: str, fields: Mapping[str, str], *, client: tuple[str, str]) -> Page:
        """Send a request with client authentication. Spec: RFC 6749 2.3.1."""
        basic = base64.b64encode(":".join(map(quote_plus, client)).encode()).decode()
        return self._send(url, body=urlencode(fields).encode(), authorization=f"Basic {basic}")

    def _follow(self, page: Page, until: Callable[[str], bool]) -> Page:
        for _ in range(MAX_REDIRECTS):
            if not page.location or until(page.location):
                return page
            page = self._send(page.location)
        raise http.client.HTTPException("too many redirects")

    def _send(self, url: str, *, body: bytes | None = None, origin: str = "", authorization: str = "") -> Page:
        headers = {"Accept": "text/html"}
        if origin:
            parts = urlsplit(origin)
            headers |= {"Origin": f"{parts.scheme}://{parts.netloc}", "Referer": f"{parts.scheme}://{parts.netloc}/"}
        if authorization:
            headers["Authorization"] = authorization
        request = urllib.request.Request(url, data=body, headers=headers)  # POST if there is a body
        with self._opener.open(request, timeout=TIMEOUT_SECONDS) as response:
            return Page(url=url, status=response.status, headers=response.headers, body=response.read())
