"""What goes over the wire as plain values, and the one hook that may change it before it goes."""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
    """One HTTP request, decoded. Header names are lower-case."""

    method: str
    path: str
    query: ParameterPairs = field(default=(), repr=False)
    form: ParameterPairs = field(default=(), repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    cookies: Mapping[str, str] = field(default_factory=dict, repr=False)
    request_target: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedRequest:
    """What tests count: `parameters` hold neither secret nor password, `authorization` the scheme alone.

    `auth_method` is how the client says who it is, right or wrong; several names, with a space between, when it does so
    in several ways. `assertion` has header and claims of a client assertion, nothing of it verified, and no signature.
    `target` is the request's, as it came: what stood in the URL, whatever that was.
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
    """An answer that can still be changed.

    What is sent, the first that is set: `raw`, byte strings as they come, after which the connection is closed (an
    empty one drops it without a word); `json`; `body`. With `redirect_to` goes a Location; a list as a value of `query`
    repeats the parameter.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    json: Any = None
    body: bytes = b""
    redirect_to: str = ""
    query: dict[str, Any] = field(default_factory=dict)
    raw: Iterable[bytes] | None = None

    def build_redirect_url(self) -> str:
        """Return the address of the redirect, or an empty string."""
        if not self.redirect_to or not self.query:
            return self.redirect_to
        separator = "&" if urlsplit(self.redirect_to).query else "?"
        return f"{self.redirect_to}{separator}{urlencode(self.query, doseq=True)}"

    def to_bytes(self, *, date: str = "", close: bool = False) -> bytes:
        """Return the whole HTTP/1.1 response. A Date or Content-Length that the hook has set is kept, right or wrong.

        date: as RFC 9110 6.6.1 has it.
        """
        body = self.body if self.json is None else json.dumps(self.json).encode()
        headers = {name.title(): value for name, value in self.headers.items()}
        if self.redirect_to:
            headers["Location"] = self.build_redirect_url()
        if self.json is not None:
            headers.setdefault("Content-Type", "application/json")
        headers.setdefault("Content-Length", str(len(body)))
        if date:
            headers.setdefault("Date", date)
        if close:
            headers["Connection"] = "close"
        phrase = HTTPStatus(self.status).phrase if self.status in set(HTTPStatus) else "Unknown"
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        return f"HTTP/1.1 {self.status} {phrase}\r\n{head}\r\n".encode("latin-1") + body


@dataclass(slots=True, kw_only=True)
class MutableExchange:
    """What the hook sees and may change. At an endpoint that is `reply`.

    At the stages `id_token`, `access_token`, `logout_token` and `userinfo_jwt`, before the signature, it is `header`,
    `claims`, `key` (another SigningKey: a foreign signature) and `token`: a string that is sent instead of all that.
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


ProviderHook = Callable[[str, MutableExchange], Reply | None]


class OAuthError(Exception):
    """A refusal in OAuth's own words: the error code, for people a description, and the HTTP status."""

    def __init__(
        self, error: str, description: str = "", *, status: int = 400, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(error)
        self.error = error
        self.description = description
        self.status = status
        self.headers = headers or {}

    def to_reply(self) -> Reply:
        """Return the refusal as OAuth writes it. Spec: RFC 6749 5.2."""
        body = {"error": self.error, "error_description": self.description}
        return Reply(status=self.status, headers={**NO_STORE_HEADERS, **self.headers}, json=body)


def create_invalid_client_error(description: str) -> OAuthError:
    """Return the refusal of a client that did not prove itself. Spec: RFC 6749 5.2."""
    challenge = {"WWW-Authenticate": 'Basic realm="demo provider"'}
    return OAuthError("invalid_client", description, status=401, headers=challenge)


def parse_unique_parameters(pairs: ParameterPairs) -> dict[str, str]:
    """Return the parameters by name.

    Raises: OAuthError invalid_request when one comes more than once. Spec: RFC 6749 3.1, 3.2.
    """
    found: dict[str, str] = {}
    for name, value in pairs:
        if name in found:
            raise OAuthError("invalid_request", "A parameter is repeated.")
        found[name] = value
    return found


def create_logged_request(request: ReceivedRequest) -> LoggedRequest:
    """Return what may be kept of a request."""
    parameters, form = dict([*request.query, *request.form]), dict(request.form)
    scheme = request.headers.get("authorization", "").partition(" ")[0]
    methods = {
        "client_secret_basic": scheme.lower() == "basic",
        "client_secret_post": "client_secret" in form,
        "private_key_jwt": "client_assertion" in form,
    }
    return LoggedRequest(
        method=request.method,
        path=request.path,
        parameters={name: value for name, value in parameters.items() if name not in SECRET_PARAMETERS},
        headers={name: value for name, value in request.headers.items() if name not in {"authorization", "cookie"}},
        authorization=scheme,
        auth_method=" ".join(method for method, used in methods.items() if used),
        assertion=_parse_unverified_assertion(form.get("client_assertion", "")),
        request_target=request.request_target,
    )


def _parse_unverified_assertion(assertion: str) -> dict[str, Any]:
    try:
        header, claims = parse_unverified(assertion)
    except ValueError:
        return {}
    return {**header, **claims}


def create_exchange(request: ReceivedRequest, reply: Reply | None = None) -> MutableExchange:
    """Return what the hook gets to see of a request and of the answer to it."""
    return MutableExchange(
        method=request.method,
        path=request.path,
        parameters=dict([*request.query, *request.form]),
        headers=request.headers,
        reply=reply or Reply(),
    )


def stream_slowly(reply: Reply, *, pause_seconds: float, chunk_size: int = 1) -> Iterator[bytes]:
    """Yield the whole response, headers included, in pieces of size bytes, pause seconds before each."""
    data = reply.to_bytes(close=True)
    for start in range(0, len(data), chunk_size):
        time.sleep(pause_seconds)
        yield data[start : start + chunk_size]
