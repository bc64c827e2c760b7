"""The public interface of the demo provider."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Literal

from ..._internal import clock as system_clock
from ..._internal.randomness import token_bytes
from . import driver
from .backchannel import BackchannelLogoutResponse, send_logout_token
from .event_streams import create_security_event, push_security_event
from .messages import LoggedRequest, ProviderHook
from .registrations import Account, Client, Resource, TLSFiles
from .server import ProviderServer, parse_loopback_address
from .signing import SigningKey, create_signing_keys
from .state import Grant, PARMode, ProviderState, Token
from .token_endpoints import create_client_token


class DemoProvider:
    """An OpenID Provider on loopback that follows the specification unless a hook changes it. Never
    for production.

    The state survives `stop()`: stop and start it again, on the same port, to simulate an outage. A
    second provider with the same keys (by algorithm) and salt simulates a restart: each `sub` is
    the same.
    """

    def __init__(
        self,
        clients: Sequence[Client] = (),
        accounts: Sequence[Account] = (),
        *,
        tls: TLSFiles | None = None,
        signing_alg: str = "RS256",
        subject_type: Literal["pairwise", "public"] = "pairwise",
        clock: Callable[[], datetime] = system_clock.now,
        mutate: ProviderHook | None = None,
        intercept: ProviderHook | None = None,
        access_token_lifetime: timedelta = timedelta(minutes=10),
        scope_claims_in_id_token: bool = False,
        heart_claims: bool = False,
        par: PARMode = "off",
        pairwise_salt: bytes = b"",
        keys: Mapping[str, SigningKey] | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        parse_loopback_address(host)
        self.state = ProviderState(
            clients={client.client_id: client for client in clients},
            accounts={account.username: account for account in accounts},
            clock=clock,
            signing_alg=signing_alg,
            subject_type=subject_type,
            salt=pairwise_salt or token_bytes(32),
            access_token_lifetime=access_token_lifetime,
            keys=dict(keys or create_signing_keys()),
            scope_claims_in_id_token=scope_claims_in_id_token,
            heart_claims=heart_claims,
            par=par,
            mutate=mutate,
            intercept=intercept,
        )
        self.host = host
        self.port = port
        self.tls = tls
        self._server: ProviderServer | None = None
        self._thread: threading.Thread | None = None

    @property
    def issuer(self) -> str:
        """The issuer identifier. Final once the provider runs, or if a port was passed."""
        if self.tls is None:
            scheme = "http"
        else:
            scheme = "https"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def mutate(self) -> ProviderHook | None:
        """The hook for every reply; may be set while it runs."""
        return self.state.mutate

    @mutate.setter
    def mutate(self, hook: ProviderHook | None) -> None:
        self.state.mutate = hook

    @property
    def intercept(self) -> ProviderHook | None:
        """The hook that runs before an endpoint. If it returns a Reply, the endpoint does not
        run.
        """
        return self.state.intercept

    @intercept.setter
    def intercept(self, hook: ProviderHook | None) -> None:
        self.state.intercept = hook

    @property
    def trust_anchor(self) -> str:
        """The entity identifier of the trust anchor of its federation, which has only this
        provider.
        """
        return self.state.trust_anchor

    @property
    def trust_anchor_keys(self) -> dict[str, Any]:
        """The public keys of the trust anchor, a JWKS."""
        return {"keys": [self.state.federation_keys[1].public_jwk()]}

    @property
    def signing_alg(self) -> str:
        """The algorithm of ID Tokens and logout tokens; may be set while it runs."""
        return self.state.signing_alg

    @signing_alg.setter
    def signing_alg(self, alg: str) -> None:
        if alg not in self.state.keys:
            raise ValueError(f"No key signs with {alg}.")
        self.state.signing_alg = alg

    @property
    def par(self) -> PARMode:
        """Whether clients can or must push authorization requests; may be set while it runs. Spec:
        RFC 9126.
        """
        return self.state.par

    @par.setter
    def par(self, par: PARMode) -> None:
        self.state.par = par

    @property
    def requests(self) -> list[LoggedRequest]:
        """All requests so far, in order of arrival. They contain no secrets, except those that were
        in the URL.
        """
        return self.state.requests

    @property
    def tokens(self) -> list[Token]:
        """All issued access and refresh tokens, in order."""
        with self.state.lock:
            return list(self.state.tokens.values())

    @property
    def active_tokens(self) -> list[Token]:
        """The issued tokens that the provider still accepts."""
        now = self.state.clock()
        tokens = []
        for token in self.tokens:
            if token.is_active(now=now):
                tokens.append(token)
        return tokens

    @property
    def id_tokens(self) -> list[str]:
        """All issued ID Tokens, in order, as the hook left them."""
        return list(self.state.id_tokens)

    @property
    def last_grant(self) -> Grant:
        """The grant of the latest authorization.

        Raises: LookupError if there was none.
        """
        with self.state.lock:
            if not self.state.grants:
                raise LookupError("No user has signed in yet.")
            return list(self.state.grants.values())[-1]

    def is_token_active(self, token: str) -> bool:
        """Return whether the provider still accepts the token."""
        issued = self.state.find_token(token)
        return issued is not None and issued.is_active(now=self.state.clock())

    def get_subject(self, username: str, client_id: str) -> str:
        """Return the `sub` of the user for the client."""
        return self.state.get_subject(self.state.accounts[username], self.state.clients[client_id])

    def register_client(self, client: Client) -> None:
        """Add or replace the registration of a client."""
        client.get_sector_identifier()
        with self.state.lock:
            self.state.clients[client.client_id] = client

    def register_resource(self, resource: Resource) -> None:
        """Add or replace the registration of an API that accepts this provider's access tokens."""
        with self.state.lock:
            self.state.resources[resource.identifier] = resource

    def rotate_keys(self, *, withdraw_old_keys: bool = False) -> None:
        """Sign with new keys from now on. The old keys stay in the key set unless withdraw_old_keys
        is true.
        """
        self.state.rotate_keys(withdraw_old_keys=withdraw_old_keys)

    def authorize(
        self,
        url: str,
        username: str,
        *,
        cookies: dict[str, str] | None = None,
        decision: str = "sign-in",
    ) -> str:
        """Sign in at the authorization request url and return the callback URL.

        Raises: RedirectExpected if the provider shows a page instead.
        """
        password = self.state.accounts[username].password
        ssl_context = None
        if self.tls is not None:
            ssl_context = ssl.create_default_context(cafile=str(self.tls.certificate_path))
            # Trust the provider's certificate itself, regardless of its issuer.
            ssl_context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return driver.sign_in(
            url,
            username=username,
            password=password,
            cookies=cookies,
            ssl_context=ssl_context,
            decision=decision,
        )

    def send_backchannel_logout(
        self,
        client_id: str,
        *,
        sub: str = "",
        sid: str = "",
        jti: str = "",
        ssl_context: ssl.SSLContext | None = None,
    ) -> BackchannelLogoutResponse:
        """Send the client a logout token with sub, sid or both; return the response. ssl_context:
        for https.

        Raises: OSError without a response; ValueError without sub and sid or without a logout URI.
        """
        return send_logout_token(
            self.state,
            self.state.clients[client_id],
            sub=sub,
            sid=sid,
            jti=jti,
            ssl_context=ssl_context,
        )

    def create_security_event(self, client_id: str, event_type: str, **members: Any) -> str:
        """Return a signed security event for the client. members: `event`, `sub_id`, `jti`,
        `now`.
        """
        return create_security_event(
            self.state, audience=client_id, event_type=event_type, **members
        )

    def create_client_token(
        self, client_id: str, /, *, audience: str, scope: str = "", **claims: Any
    ) -> str:
        """Return a signed access token that the client got for itself. claims: others, or in place
        of those.
        """
        return create_client_token(
            self.state, client_id, audience=audience, scope=scope, claims=claims
        )

    def push_security_event(
        self, token: str, *, url: str, authorization: str = ""
    ) -> BackchannelLogoutResponse:
        """Post the security event to the receiver; return the response. Raises: OSError without a
        response.
        """
        return push_security_event(token, url=url, authorization=authorization)

    def start(self) -> None:
        """Start serving in background threads."""
        if self._server is not None:
            raise RuntimeError("The provider is running already.")
        self._server = ProviderServer(self.state, host=self.host, port=self.port, tls=self.tls)
        self.port = self._server.server_port
        self.state.issuer = self.issuer
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.02},
            name=f"demo-provider:{self.port}",
            daemon=True,
        )
        self._thread.start()

    def stop(self) -> None:
        """Stop serving and close all sockets. The state is kept."""
        if self._server is None or self._thread is None:
            return
        self._server.close()
        self._thread.join()
        self._server = self._thread = None

    @contextmanager
    def running(self) -> Iterator["DemoProvider"]:
        """Serve for the duration of the block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()
