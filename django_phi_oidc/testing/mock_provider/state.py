"""The state of the demo provider, in memory only: sessions, grants, tokens, keys. One lock protects
it.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from hmac import compare_digest
from typing import Any, Literal

from ..._internal.randomness import token_b64url
from .claims import compute_session_id, compute_subject
from .client_jwks import encrypt_jwt, get_encryption_key
from .messages import LoggedRequest, ProviderHook, ReceivedRequest, Reply, create_exchange
from .registrations import Account, Client, Resource
from .signing import SigningKey, create_signing_key, create_signing_keys, sign_jwt

TokenKind = Literal["access_token", "refresh_token"]
PARMode = Literal["off", "offered", "required"]
DPoPSupport = Literal["off", "offered", "required"]


@dataclass(slots=True, kw_only=True)
class OPSession:
    """A user's session at the provider, shared by all clients."""

    id: str
    cookie_value: str = field(repr=False)
    account: Account
    auth_time: datetime
    acr: str
    vot: str = ""
    client_ids: set[str] = field(default_factory=set)


@dataclass(slots=True, kw_only=True)
class Grant:
    """The authorization of one client by one user. Revoking it revokes all its tokens."""

    client: Client
    account: Account
    sub: str = field(repr=False)
    sid: str = field(repr=False)
    scope: Sequence[str]
    claims: Mapping[str, Mapping[str, Any]]
    nonce: str = field(repr=False)
    auth_time: datetime
    acr: str
    vot: str = ""
    resource: str = ""
    """The API that all access tokens are for; empty: the token request chooses."""
    redirect_uri: str
    code_challenge: str = field(repr=False)
    code: str = field(repr=False)
    code_expires_at: datetime
    dpop_jkt: str = ""
    """The thumbprint of the key that code and tokens are bound to; empty: any, or Bearer tokens."""
    code_used: bool = False
    revoked: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class PushedAuthorizationRequest:
    """A pushed authorization request that was not used yet. Spec: RFC 9126."""

    client_id: str
    parameters: Mapping[str, str] = field(repr=False)
    expires_at: datetime


@dataclass(slots=True, kw_only=True)
class Token:
    """An access or refresh token. `used`: a refresh token that was exchanged for the next one."""

    value: str = field(repr=False)
    kind: TokenKind
    grant: Grant = field(repr=False)
    scope: Sequence[str]
    issued_at: datetime
    expires_at: datetime
    revoked: bool = False
    used: bool = False
    resource: str = ""
    """The API that an access token is for; empty: the UserInfo endpoint."""
    dpop_jkt: str = ""

    def is_active(self, *, now: datetime) -> bool:
        """Return whether the provider accepts the token."""
        return not (self.revoked or self.used or self.grant.revoked) and now < self.expires_at


@dataclass(slots=True, kw_only=True)
class TransmitterStream:
    """A stream of security events to one client. Spec: SSF 1.0 8.1.1."""

    stream_id: str
    client_id: str
    method: str
    """The URI of the delivery method."""
    endpoint_url: str
    authorization_header: str = field(default="", repr=False)
    events_requested: list[str] = field(default_factory=list)
    status: str = "enabled"
    subjects: list[Any] = field(default_factory=list, repr=False)
    queue: dict[str, str] = field(default_factory=dict, repr=False)
    """Events that were not acknowledged, by their jti."""
    acknowledged: list[str] = field(default_factory=list)
    errors: dict[str, Any] = field(default_factory=dict)
    """What the receiver reported by `setErrs`."""
    push_responses: list[Any] = field(default_factory=list)


def _create_federation_keys() -> tuple[SigningKey, SigningKey]:
    return create_signing_key("ES256"), create_signing_key("ES256")


@dataclass(kw_only=True)
class ProviderState:
    """The data that endpoints read and change. Compound changes hold `lock`; hooks run without
    it.
    """

    clients: dict[str, Client]
    accounts: dict[str, Account]
    clock: Callable[[], datetime]
    signing_alg: str
    subject_type: Literal["pairwise", "public"]
    salt: bytes = field(repr=False)
    access_token_lifetime: timedelta
    refresh_token_lifetime: timedelta = timedelta(hours=12)
    id_token_lifetime: timedelta = timedelta(minutes=10)
    code_lifetime: timedelta = timedelta(minutes=1)
    pushed_request_lifetime: timedelta = timedelta(minutes=1)
    scope_claims_in_id_token: bool = False
    heart_claims: bool = False
    par: PARMode = "off"
    dpop: DPoPSupport = "off"
    dpop_nonce: str = ""
    """The nonce that each proof must have; empty: none is required."""
    resources: dict[str, Resource] = field(default_factory=dict)
    trust_mark: str = "https://op.example/trust-mark"
    """The `vtm` of ID Tokens that have a `vot`."""
    assertion_audiences: Sequence[str] = (
        "issuer",
        "token_endpoint",
        "pushed_authorization_request_endpoint",
    )
    issuer: str = ""
    mutate: ProviderHook | None = None
    intercept: ProviderHook | None = None
    lock: threading.RLock = field(default_factory=threading.RLock, repr=False)
    keys: dict[str, SigningKey] = field(default_factory=create_signing_keys)
    federation_keys: tuple[SigningKey, SigningKey] = field(default_factory=_create_federation_keys)
    """Of the provider, and of the trust anchor."""
    published_keys: list[SigningKey] = field(default_factory=list)
    retired_keys: list[SigningKey] = field(default_factory=list)
    sessions: dict[str, OPSession] = field(default_factory=dict, repr=False)
    grants: dict[str, Grant] = field(default_factory=dict, repr=False)
    tokens: dict[str, Token] = field(default_factory=dict, repr=False)
    id_tokens: list[str] = field(default_factory=list, repr=False)
    pushed_requests: dict[str, PushedAuthorizationRequest] = field(default_factory=dict, repr=False)
    used_assertion_jtis: set[tuple[str, str]] = field(default_factory=set, repr=False)
    used_proof_jtis: set[tuple[str, str]] = field(default_factory=set, repr=False)
    client_tokens: dict[str, tuple[str, datetime]] = field(default_factory=dict, repr=False)
    """Access tokens of clients for themselves: the client and the end of each."""
    event_streams: dict[str, TransmitterStream] = field(default_factory=dict, repr=False)
    requests: list[LoggedRequest] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self.published_keys = self.published_keys or list(self.keys.values())
        for client in self.clients.values():
            client.get_sector_identifier()
        if self.signing_alg not in self.keys:
            raise ValueError(f"No key signs with {self.signing_alg}.")

    @property
    def trust_anchor(self) -> str:
        """The entity identifier of the trust anchor of this provider's federation."""
        return f"{self.issuer}/trust-anchor"

    def list_assertion_audiences(self) -> set[str]:
        """Return the values that `aud` of a client assertion may have. Spec: RFC 7523 3, RFC 9126
        2.
        """
        audiences = {
            "issuer": self.issuer,
            "token_endpoint": f"{self.issuer}/token",
            "pushed_authorization_request_endpoint": f"{self.issuer}/par",
        }
        assertion_audiences = set()
        for name in self.assertion_audiences:
            assertion_audiences.add(audiences[name])
        return assertion_audiences

    def get_cookie_name(self, purpose: str) -> str:
        """Return a cookie name that contains the port, because browsers send the cookies of a host
        to all its ports.
        """
        return f"demo_op_{purpose}_{self.issuer.rpartition(':')[2]}"

    def build_cookie(self, purpose: str, value: str) -> str:
        """Return a Set-Cookie value."""
        if self.issuer.startswith("https:"):
            secure = "; Secure"
        else:
            secure = ""
        return f"{self.get_cookie_name(purpose)}={value}; Path=/; HttpOnly; SameSite=Lax{secure}"

    def find_csrf_token(self, request: ReceivedRequest) -> str:
        """Return the CSRF token in the request's cookie, or an empty string."""
        return request.cookies.get(self.get_cookie_name("csrf"), "")

    def is_csrf_valid(self, request: ReceivedRequest, form: Mapping[str, str]) -> bool:
        """Return whether the form contains the CSRF token of the cookie."""
        token = self.find_csrf_token(request)
        return bool(token) and compare_digest(token.encode(), form.get("csrf", "").encode())

    def apply_hook(self, endpoint: str, request: ReceivedRequest, reply: Reply) -> Reply:
        """Pass the reply through the hook and return the result."""
        if self.mutate is None:
            return reply
        exchange = create_exchange(request, reply)
        return self.mutate(endpoint, exchange) or exchange.reply

    def sign_claims(
        self,
        stage: str,
        request: ReceivedRequest,
        claims: dict[str, Any],
        *,
        typ: str = "JWT",
        alg: str = "",
        key: SigningKey | None = None,
    ) -> str:
        """Return a signed token. Before the signature, the hook of that stage may change every part
        of it.
        """
        key = key or self.keys[alg or self.signing_alg]
        exchange = create_exchange(request)
        exchange.header = {"alg": key.alg, "kid": key.kid, "typ": typ}
        exchange.claims = claims
        exchange.key = key
        if self.mutate is not None and self.mutate(stage, exchange) is not None:
            raise TypeError(
                f"At stage {stage} the hook changes the exchange; it does not return a reply."
            )
        if exchange.token:
            return exchange.token
        return sign_jwt(exchange.header, exchange.claims, exchange.key)

    def encrypt_token(
        self, stage: str, request: ReceivedRequest, token: str, client: Client
    ) -> str:
        """Return the token, encrypted if the client registered that. Before, the hook of that stage
        may change it.
        """
        if stage.startswith("userinfo"):
            prefix = "userinfo"
        else:
            prefix = "id_token"

        alg = getattr(client, f"{prefix}_encrypted_response_alg")
        if not alg:
            return token
        key = get_encryption_key(client, alg)
        exchange = create_exchange(request)
        exchange.header = {
            "alg": alg,
            "enc": getattr(client, f"{prefix}_encrypted_response_enc"),
            "cty": "JWT",
        }

        if "kid" in key:
            exchange.header |= {"kid": key["kid"]}
        else:
            exchange.header |= {}

        exchange.signed_token = token
        if self.mutate is not None and self.mutate(stage, exchange) is not None:
            raise TypeError(
                f"At stage {stage} the hook changes the exchange; it does not return a reply."
            )
        return exchange.token or encrypt_jwt(exchange.header, token, key)

    def rotate_keys(self, *, withdraw_old_keys: bool) -> None:
        """Sign with new keys from now on."""
        new_keys = create_signing_keys()
        with self.lock:
            self.retired_keys += self.keys.values()
            self.keys = new_keys
            self.published_keys = [
                *new_keys.values(),
                *([] if withdraw_old_keys else self.published_keys),
            ]

    def get_subject(self, account: Account, client: Client) -> str:
        """Return the `sub` of the account for the client."""
        return compute_subject(
            account, client, salt=self.salt, is_pairwise=self.subject_type == "pairwise"
        )

    def get_sid(self, session: OPSession, client: Client) -> str:
        """Return the `sid` of the session for the client."""
        return compute_session_id(session.id, client, salt=self.salt)

    def find_session(self, request: ReceivedRequest) -> OPSession | None:
        """Return the session of the request's cookie."""
        return self.sessions.get(request.cookies.get(self.get_cookie_name("session"), ""))

    def create_session(
        self,
        account: Account,
        *,
        acr: str,
        vot: str,
        previous_session: OPSession | None,
        now: datetime,
    ) -> OPSession:
        """Create a session with a new cookie. It replaces the previous one, and keeps its id for
        the same user.
        """
        with self.lock:
            is_same_user = (
                previous_session is not None
                and previous_session.account.username == account.username
            )
            renewed = None
            if is_same_user:
                renewed = previous_session

            session = OPSession(
                id=renewed.id if renewed else token_b64url(16),
                cookie_value=token_b64url(32),
                account=account,
                auth_time=now,
                acr=acr,
                vot=vot,
                client_ids=renewed.client_ids if renewed else set(),
            )
            if previous_session is not None:
                self.sessions.pop(previous_session.cookie_value, None)
            self.sessions[session.cookie_value] = session
            return session

    def end_session(self, session: OPSession) -> None:
        """Delete the session. Its tokens stay valid: clients must revoke them, and tests check that
        they do.
        """
        with self.lock:
            self.sessions.pop(session.cookie_value, None)

    def find_grant(self, code: str) -> Grant | None:
        """Return the grant of an authorization code, used or not."""
        return self.grants.get(code)

    def find_token(self, value: str) -> Token | None:
        """Return a token by value, active or not."""
        return self.tokens.get(value)

    def list_resource_scopes(self) -> list[str]:
        """Return the scopes of all APIs."""
        resource_scopes = []
        for resource in self.resources.values():
            for scope in resource.scopes:
                resource_scopes.append(scope)
        return resource_scopes

    def issue_token(
        self,
        grant: Grant,
        kind: TokenKind,
        *,
        scope: Sequence[str],
        now: datetime,
        value: str = "",
        resource: str = "",
    ) -> Token:
        """Store and return a new token; without `value`, an opaque one."""
        if kind == "access_token":
            lifetime = self.access_token_lifetime
        else:
            lifetime = self.refresh_token_lifetime

        token = Token(
            value=value or f"{kind[0]}t_{token_b64url(32)}",
            kind=kind,
            grant=grant,
            scope=scope,
            issued_at=now,
            expires_at=now + lifetime,
            resource=resource,
            dpop_jkt=grant.dpop_jkt,
        )
        with self.lock:
            self.tokens[token.value] = token
        return token
