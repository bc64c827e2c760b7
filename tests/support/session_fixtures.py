"""A provider with scripted responses on a real socket, and a user who is signed in."""

import contextlib
import json
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from typing import Any
from urllib.parse import parse_qs

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, get_user_model
from django.contrib.auth import SESSION_KEY as USER_KEY
from django.contrib.auth.base_user import AbstractBaseUser
from django.test import Client

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox
from django_phi_oidc.audit.request_context import ASSURANCE_KEY, SESSION_KEY, build_assurance_entry
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.oidc.jose import encode_b64url, parse_compact_jws
from django_phi_oidc.oidc.token import TokenResponse
from django_phi_oidc.sessions.activity import TIMES_KEY, create_times_entry
from django_phi_oidc.sessions.kept_id_token import KeptIDToken, reduce_id_token
from django_phi_oidc.sessions.lifecycle import start_session
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.sessions.sign_in_places import SignInPlace
from django_phi_oidc.subjects.models import PairwiseSubject

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ACCESS_TOKEN, REFRESH_TOKEN = "access-token-canary", "refresh-token-canary"
BACKEND = "django_phi_oidc.backends.OIDCAuthenticationBackend"

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class ScriptedOP:
    """Answers discovery, and each revocation with `answer`; stores the requests."""

    port: int = 0
    answer: Answer = field(default=lambda handler: send(handler, 200))
    metadata: dict[str, Any] = field(default_factory=dict)
    discovery: Answer | None = None
    asked: list[dict[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def document(self) -> dict[str, Any]:
        return {
            "issuer": self.issuer,
            "authorization_endpoint": f"{self.issuer}/authorize",
            "token_endpoint": f"{self.issuer}/token",
            "jwks_uri": f"{self.issuer}/jwks",
            "revocation_endpoint": f"{self.issuer}/revoke",
            "end_session_endpoint": f"{self.issuer}/end-session",
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["ES256"],
            **self.metadata,
        }

    def hang(self, handler: BaseHTTPRequestHandler) -> None:
        """Send no response until the test ends."""
        self.released.wait(30)


def send(handler: BaseHTTPRequestHandler, status: int, body: Any = None, **headers: str) -> None:
    """Respond with status, a JSON body if any, and headers (`_` for `-`)."""
    content = b"" if body is None else json.dumps(body).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(content)))
    handler.end_headers()
    handler.wfile.write(content)


def answering(status: int, body: Any = None, **headers: str) -> Answer:
    """Return an answer that is always the same."""
    return lambda handler: send(handler, status, body, **headers)


def make_handler(op: ScriptedOP) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            (op.discovery or answering(200, {k: v for k, v in op.document().items() if v is not None}))(self)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            op.headers.append(dict(self.headers))
            op.asked.append({name: values[0] for name, values in parse_qs(body).items()})
            op.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            """Log nothing."""

    return Handler


@contextlib.contextmanager
def serving() -> Iterator[ScriptedOP]:
    """Run a provider, which revokes every token, for the length of the block."""
    op = ScriptedOP()
    server = ThreadingHTTPServer(("127.0.0.1", 0), make_handler(op))
    op.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield op
    finally:
        op.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def op(settings: Any) -> Iterator[ScriptedOP]:
    """Yield the default provider."""
    with serving() as op:
        declare(settings, op)
        yield op


@pytest.fixture
def unused_port() -> int:
    """Return a port of loopback that refuses connections."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def declare(settings: Any, op: ScriptedOP, *, others: Mapping[str, ScriptedOP] | None = None, **options: Any) -> None:
    """Declare op as the default provider, with additional options, and others by their names."""
    providers = {name: declaration(other) for name, other in (others or {}).items()}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options), **providers}}


def declaration(op: ScriptedOP, **options: Any) -> dict[str, Any]:
    """Return the options of op, with additional ones."""
    return {
        "issuer": op.issuer,
        "client_id": "portal",
        "client_secret": "a secret for tests only",
        "allow_loopback_http": True,
        **options,
    }


class SecureClient(Client):
    """A test client that uses https."""

    def generic(self, *args: Any, **kwargs: Any) -> Any:
        return super().generic(*args, **{**kwargs, "secure": True})


@dataclass
class SignedIn:
    """A user with an OIDC session and a Django session, as after a sign-in."""

    user: AbstractBaseUser
    subject: PairwiseSubject
    session: OIDCSession
    django_key: str = field(repr=False)

    def client(self) -> Client:
        """Return a client with the session cookie, over https."""
        client = SecureClient()
        client.cookies[django_settings.SESSION_COOKIE_NAME] = self.django_key
        return client


def id_token(**claims: Any) -> str:
    """Return a token with that payload; its signature is not verified here."""
    parts = ({"alg": "ES256", "typ": "JWT"}, {"iss": "https://op", "sub": "s", "aud": "portal", **claims})
    return ".".join([*(encode_b64url(json.dumps(part).encode()) for part in parts), encode_b64url(b"signature")])


def keep(token: str) -> KeptIDToken:
    """Return what a session keeps of the token, by the declaration of the provider."""
    provider = conf.providers().get("default")
    policy = provider.id_token_hint if provider else "minimal"
    return reduce_id_token(token, parse_compact_jws(token).payload, policy=policy)


@pytest.fixture
def sign_in() -> Callable[..., SignedIn]:
    """Return a function that signs a new user in, or that of `again`; the test needs the marker django_db."""

    def make(
        *,
        refresh_token: str = REFRESH_TOKEN,
        claims: dict[str, Any] | None = None,
        again: SignedIn | None = None,
        place: SignInPlace = SignInPlace(),  # noqa: B008 -- immutable
        auth_time: datetime | None = None,
    ) -> SignedIn:
        user = again.user if again else get_user_model()._default_manager.create_user(username=uuid.uuid4().hex)
        subject = (
            again.subject
            if again
            else PairwiseSubject.objects.create(
                uuid=uuid.uuid4(), user=user, issuer="https://op", first_seen_at=NOW, last_seen_at=NOW
            )
        )
        session_id = uuid.uuid4()
        store = import_module(django_settings.SESSION_ENGINE).SessionStore()
        store[USER_KEY] = str(user.pk)
        store[BACKEND_SESSION_KEY] = BACKEND
        store[HASH_SESSION_KEY] = user.get_session_auth_hash()
        store[SESSION_KEY] = str(session_id)
        store[TIMES_KEY] = create_times_entry(clock.now())
        if auth_time:
            store[ASSURANCE_KEY] = build_assurance_entry(acr="", auth_time=auth_time)
        store.create()
        store.save()
        session = start_session(
            session_id=session_id,
            user=user,
            subject=subject,
            provider="default",
            issuer="https://op",
            sid="sid-1",
            tokens=TokenResponse(
                access_token=ACCESS_TOKEN,
                refresh_token=refresh_token,
                id_token=id_token(**(claims or {})),
                expires_in=timedelta(minutes=5),
                lifetime_alert=False,
            ),
            id_token=keep(id_token(**(claims or {}))),
            django_session_key=store.session_key,
            auth_time=NOW,
            acr="",
            now=clock.now(),
            place=place,
        )
        for name, retention in () if again else (("birthdate", None), ("address", NOW + timedelta(days=1))):
            StoredClaim.objects.create(
                subject=subject,
                name=name,
                value='"a value"',
                purpose="TREAT",
                obtained_at=NOW,
                expires_at=retention,
                **({} if retention else {"session": session_id}),
            )
        return SignedIn(user=user, subject=subject, session=session, django_key=store.session_key)

    return make


def events(action: str) -> list[AuditEvent]:
    """Return the events of that action, oldest first."""
    return list(AuditEvent.objects.filter(action=action).order_by("id"))


def waiting() -> int:
    """Return how many events wait in the outbox."""
    return AuditOutbox.objects.count()


def django_session_exists(key: str) -> bool:
    """Say whether the session engine knows that key."""
    return bool(import_module(django_settings.SESSION_ENGINE).SessionStore().exists(key))


def wait_for(condition: Callable[[], bool], *, seconds: float = 5.0) -> None:
    """Return as soon as condition is true. Raises: AssertionError when it is not in time."""
    ends_at = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < ends_at, "It did not happen in time."
        time.sleep(0.01)
