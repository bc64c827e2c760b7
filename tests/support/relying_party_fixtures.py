"""A running mock provider, and a relying party that sends it any request over HTTP."""

import base64
import datetime
import hashlib
import ipaddress
import json
import ssl
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote_plus, urlencode, urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from django_phi_oidc.testing.mock_provider import (
    Client,
    DemoProvider,
    SigningKey,
    TLSFiles,
    create_signing_keys,
    demo_accounts,
)

PORTAL = "https://portal.example/oidc/callback/"
VERIFIER = "a-verifier-of-forty-three-characters-or-more-0123456789"


class Clock:
    """A clock that tests can advance."""

    def __init__(self) -> None:
        self.ahead = datetime.timedelta()

    def __call__(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + self.ahead


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(urlsplit(self.headers["location"]).query, keep_blank_values=True))


@dataclass(kw_only=True)
class Relying:
    """A relying party with the browser of a user. It follows no redirects."""

    op: DemoProvider
    client_id: str = "portal"
    secret: str = "p:ss w+rd%ü"
    redirect_uri: str = PORTAL
    cookies: dict[str, str] = field(default_factory=dict)

    @property
    def basic(self) -> dict[str, str]:
        pair = f"{quote_plus(self.client_id)}:{quote_plus(self.secret)}"
        return {"Authorization": f"Basic {base64.b64encode(pair.encode()).decode()}"}

    def send(
        self, method: str, target: str, form: Any = None, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Answer:
        issuer = urlsplit(self.op.issuer)
        if issuer.scheme == "https":
            ssl_context = ssl.create_default_context(cafile=str(self.op.tls.certificate_path))
            connection: HTTPConnection = HTTPSConnection(issuer.netloc, timeout=10, context=ssl_context)
        else:
            connection = HTTPConnection(issuer.netloc, timeout=10)
        sent_headers = dict(headers or {})
        if form is not None:
            body = urlencode(form).encode()
            sent_headers.setdefault("Content-Type", "application/x-www-form-urlencoded")
        if self.cookies:
            sent_headers["Cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        try:
            connection.request(method, target, body=body or None, headers=sent_headers)
            response = connection.getresponse()
            answer = Answer(
                status=response.status,
                headers={name.lower(): value for name, value in response.getheaders()},
                body=response.read(),
            )
        finally:
            connection.close()
        if "set-cookie" in answer.headers:
            name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def parameters(self, **changes: Any) -> dict[str, Any]:
        challenge = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).rstrip(b"=").decode()
        parameters = {
            "response_type": "code",
            "client_id": self.client_id,
            "redirect_uri": self.redirect_uri,
            "scope": "openid",
            "state": "the-state",
            "nonce": "the-nonce",
            "code_challenge": challenge,
            "code_challenge_method": "S256",
            **changes,
        }
        return {name: value for name, value in parameters.items() if value is not None}

    def url(self, **changes: Any) -> str:
        return f"{self.op.issuer}/authorize?{urlencode(self.parameters(**changes), doseq=True)}"

    def ask(self, **changes: Any) -> Answer:
        return self.send("GET", f"/authorize?{urlencode(self.parameters(**changes), doseq=True)}")

    def callback(self, username: str = "amina", **changes: Any) -> dict[str, str]:
        location = self.op.authorize(self.url(**changes), username, cookies=self.cookies)
        return dict(parse_qsl(urlsplit(location).query))

    def code_form(self, code: str, /, **changes: Any) -> dict[str, str]:
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": self.redirect_uri,
            "code_verifier": VERIFIER,
            **changes,
        }
        return {name: value for name, value in form.items() if value is not None}

    def redeem(self, code: str, /, **changes: Any) -> Answer:
        return self.send("POST", "/token", self.code_form(code, **changes), self.basic)

    def tokens(self, username: str = "amina", **changes: Any) -> dict[str, Any]:
        answer = self.redeem(self.callback(username, **changes)["code"])
        assert answer.status == 200, answer.body
        return answer.json

    def push(self, headers: Mapping[str, str] | None = None, **changes: Any) -> Answer:
        return self.send("POST", "/par", self.parameters(**changes), self.basic if headers is None else headers)

    def pushed_url(self, request_uri: str) -> str:
        query = urlencode({"client_id": self.client_id, "request_uri": request_uri})
        return f"{self.op.issuer}/authorize?{query}"

    def refresh(self, refresh_token: str, **parameters: str) -> Answer:
        form = {"grant_type": "refresh_token", "refresh_token": refresh_token, **parameters}
        return self.send("POST", "/token", form, self.basic)


def portal() -> Client:
    return Client(
        "portal",
        "p:ss w+rd%ü",
        [PORTAL, "https://portal.example/second/?of=two"],
        client_name="Portal <of> Tests",
        post_logout_redirect_uris=["https://portal.example/out/"],
    )


def lab() -> Client:
    return Client("lab", "lab-secret", ["https://lab.example/cb"])


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture(scope="session")
def keys() -> dict[str, SigningKey]:
    """Create keys only once, because RSA keys are slow."""
    return create_signing_keys()


@pytest.fixture
def op(clock: Clock, keys: dict[str, SigningKey]) -> Iterator[DemoProvider]:
    provider = DemoProvider([portal(), lab()], demo_accounts(), clock=clock, keys=keys)
    with provider.running():
        yield provider


@pytest.fixture
def rp(op: DemoProvider) -> Relying:
    return Relying(op=op)


@pytest.fixture
def rp_of() -> Callable[..., Relying]:
    return Relying


@pytest.fixture
def other_rp(op: DemoProvider) -> Relying:
    return Relying(op=op, client_id="lab", secret="lab-secret", redirect_uri="https://lab.example/cb")


@pytest.fixture(scope="session")
def tls_files(tmp_path_factory: pytest.TempPathFactory) -> TLSFiles:
    """Return a self-signed certificate for 127.0.0.1 and localhost."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "demo provider")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.IPAddress(ipaddress.ip_address("127.0.0.1")), x509.DNSName("localhost")]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    directory: Path = tmp_path_factory.mktemp("tls")
    (directory / "cert.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return TLSFiles(directory / "cert.pem", directory / "key.pem")
