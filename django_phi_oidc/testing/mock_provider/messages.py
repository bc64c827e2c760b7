"""Requests and replies as plain values, and the exchange that a hook may change."""

import json
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any
from urllib.parse import urlencode, urlsplit

from .signing import SigningKey, parse_unverified

ParameterPairs = Sequence[tuple[str, str]]

NO_STORE_HEADERS = {"Cache-Control": "no-store", "Pragma": "no-cache"}
SECRET_PARAMETERS = frozenset({"client_secret", "client_assertion", "password", "csrf"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivedRequest:
    """A decoded HTTP request. Header names are lower-case."""

    method: str
    path: str
    query: ParameterPairs = field(default=(), repr=False)
    form: ParameterPairs = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    request_target: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """A request in the provider's log. `parameters` contains no secrets or passwords,
    `authorization` only the scheme.

    `auth_method`: the method of client authentication, valid or not; several names are separated by
    spaces.
    `assertion`: header and claims of a client assertion, unverified, without the signature.
    `request_target`: the unmodified request target, including the query string.
    """

    method: str
    path: str
    parameters: Mapping[str, str] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    authorization: str
    auth_method: str
    assertion: Mapping[str, Any] = field(repr=False)
    request_target: str = field(repr=False)


@dataclass(slots=True, kw_only=True)
class Reply:
    """A response that can still be changed.

    The first that is set is sent: `raw`, byte strings after which the connection is closed (empty:
    it is closed without a response); `json`; `body`. `redirect_to` sets the Location header. A list
    in `query` repeats the parameter.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None
    body: bytes = b""
    redirect_to: str = ""
    query: dict[str, Any] = field(default_factory=dict)
    raw: Iterable[bytes] | None = None

    def build_redirect_url(self) -> str:
        """Return the URL of the redirect, or an empty string."""
        if not self.redirect_to or not self.query:
            return self.redirect_to

        if urlsplit(self.redirect_to).query:
            separator = "&"
        else:
            separator = "?"

        return f"{self.redirect_to}{separator}{urlencode(self.query, doseq=True)}"

    def to_bytes(self, *, date: str = "", close: bool = False) -> bytes:
        """Return the HTTP/1.1 response. A Date or Content-Length that the hook has set is kept,
        even if wrong.

        date: in the format of RFC 9110 6.6.1.
        """
        if self.json is None:
            body = self.body
        else:
            body = json.dumps(self.json).encode()

        headers = {}
        for name, value in self.headers.items():
            headers[name.title()] = value
        if self.redirect_to:
            headers["Location"] = self.build_redirect_url()
        if self.json is not None:
            headers.setdefault("Content-Type", "application/json")
        headers.setdefault("Content-Length", str(len(body)))
        if date:
            headers.setdefault("Date", date)
        if close:
            headers["Connection"] = "close"

        if self.status in set(HTTPStatus):
            phrase = HTTPStatus(self.status).phrase
        else:
            phrase = "Unknown"

        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} {phrase}\r\n{head}\r\n".encode("latin-1") + body


@dataclass(slots=True, kw_only=True)
class MutableExchange:
    """The data that a hook reads and changes. At an endpoint, it changes `reply`.

    At the stages `id_token`, `access_token`, `logout_token`, `userinfo_jwt`, `security_event`,
    `entity_configuration`, `anchor_configuration` and `subordinate_statement`, before the
    signature, it changes `header`, `claims`, `key` (another SigningKey) or `token`, a string that
    is sent instead of the signed token. At `id_token_jwe`, `logout_token_jwe` and `userinfo_jwe`,
    before the encryption of `signed_token`, it changes `header` or `token`, a string that is sent
    instead.
    """

    method: str = ""
    path: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    reply: Reply = field(default_factory=Reply)
    header: dict[str, Any] = field(default_factory=dict)
    claims: dict[str, Any] = field(default_factory=dict, repr=False)
    key: SigningKey | None = None
    token: str = field(default="", repr=False)
    signed_token: str = field(default="", repr=False)


ProviderHook = Callable[[str, MutableExchange], Reply | None]


class OAuthError(Exception):
    """An OAuth error response: error code, description and HTTP status."""

    def __init__(
        self,
        error: str,
        description: str = "",
        *,
        status: int = 400,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers or {}

    def to_reply(self) -> Reply:
        """Return the error response. Spec: RFC 6749 5.2."""
        body = {"error": self.error, "error_description": self.description}
        return Reply(status=self.status, headers={**NO_STORE_HEADERS, **self.headers}, json=body)


def create_invalid_client_error(description: str) -> OAuthError:
    """Return the error for failed client authentication. Spec: RFC 6749 5.2."""
    challenge = {"WWW-Authenticate": 'Basic realm="demo provider"'}
    return OAuthError("invalid_client", description, status=401, headers=challenge)


def parse_unique_parameters(pairs: ParameterPairs) -> dict[str, str]:
    """Return the parameters by name.

    Raises: OAuthError invalid_request if one is repeated. Spec: RFC 6749 3.1, 3.2.
    """
    parameters = dict(pairs)
    if len(parameters) != len(pairs):
        raise OAuthError("invalid_request", "A parameter is repeated.")
    return parameters


def create_logged_request(request: ReceivedRequest) -> LoggedRequest:
    """Return the request without its secrets."""
    parameters = dict([*request.query, *request.form])
    form = dict(request.form)
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    methods = {
        "client_secret_basic": scheme.lower() == "basic",
        "client_secret_post": "client_secret" in form,
        "private_key_jwt": "client_assertion" in form,
    }
    return LoggedRequest(
        method=request.method,
        path=request.path,
        parameters=_exclude_names(parameters, SECRET_PARAMETERS),
        headers=_exclude_names(request.headers, {"authorization", "cookie"}),
        authorization=scheme,
        auth_method=" ".join(method for method, used in methods.items() if used),
        assertion=_parse_unverified_assertion(form.get("client_assertion", "")),
        request_target=request.request_target,
    )


def _exclude_names(values: Mapping[str, str], names: Collection[str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in names}


def _parse_unverified_assertion(assertion: str) -> dict[str, Any]:
    try:
        header, claims = parse_unverified(assertion)
    except ValueError:
        return {}
    return {**header, **claims}


def create_exchange(request: ReceivedRequest, reply: Reply | None = None) -> MutableExchange:
    """Return the exchange of a request and its reply for the hook."""
    return MutableExchange(
        method=request.method,
        path=request.path,
        parameters=dict([*request.query, *request.form]),
        headers=request.headers,
        reply=reply or Reply(),
    )


def stream_slowly(reply: Reply, *, pause_seconds: float, chunk_size: int = 1) -> Iterator[bytes]:
    """Yield the response, headers included, in chunks, with a pause before each."""
    data = reply.to_bytes(close=True)
    for start in range(0, len(data), chunk_size):
        time.sleep(pause_seconds)
        yield data[start : start + chunk_size]
