"""The demo provider as one object: what tests and the demo hold in their hands."""

import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Literal

from ..._internal import clock as system_clock
from ..._internal.randomness import token_bytes
from . import driver
from .backchannel import BackchannelLogoutResponse, send_logout_token
from .messages import LoggedRequest, ProviderHook
from .registrations import Account, Client, Resource, TLSFiles
from .server import ProviderServer, parse_loopback_address
from .signing import SigningKey, create_signing_keys
from .state import Grant, PARMode, ProviderState, Token


class DemoProvider:
    """An OpenID Provider on loopback that is honest until told otherwise. Never for production.

    Its memory outlives `running()`: stop and start it again to play an outage, on the same port. With the same keys (by
    algorithm) and salt another provider gives the same people the same subjects: a restart.
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
        """The issuer identifier. Known once it runs, or when a port was given."""
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"

    @property
    def mutate(self) -> ProviderHook | None:
        """The hook that every answer passes; may be set while it runs."""
        return self.state.mutate

    @mutate.setter
    def mutate(self, hook: ProviderHook | None) -> None:
        self.state.mutate = hook

    @property
    def intercept(self) -> ProviderHook | None:
        """The hook asked before an endpoint acts: a Reply of it is sent, and nothing was done."""
        return self.state.intercept

    @intercept.setter
    def intercept(self, hook: ProviderHook | None) -> None:
        self.state.intercept = hook

    @property
    def signing_alg(self) -> str:
        """The algorithm of ID and logout tokens; may be set while it runs."""
        return self.state.signing_alg

    @signing_alg.setter
    def signing_alg(self, alg: str) -> None:
        if alg not in self.state.keys:
            raise ValueError(f"No key signs with {alg}.")
        self.state.signing_alg = alg

    @property
    def par(self) -> PARMode:
        """Whether authorization requests can or must be pushed; may be set while it runs. Spec: RFC 9126."""
        return self.state.par

    @par.setter
    def par(self, par: PARMode) -> None:
        self.state.par = par

    @property
    def requests(self) -> list[LoggedRequest]:
        """Every request so far, without secrets but those that stood in its URL, in order of arrival."""
        return self.state.requests

    @property
    def tokens(self) -> list[Token]:
        """Every access and refresh token issued so far, in order."""
        with self.state.lock:
            return list(self.state.tokens.values())

    @property
    def active_tokens(self) -> list[Token]:
        """Those of them that are still honoured."""
        now = self.state.clock()
        return [token for token in self.tokens if token.is_active(now=now)]

    @property
    def id_tokens(self) -> list[str]:
        """Every ID token issued so far, in order, as the hook left it."""
        return list(self.state.id_tokens)

    @property
    def last_grant(self) -> Grant:
        """The grant of the latest authorization.

        Raises: LookupError when there was none.
        """
        with self.state.lock:
            if not self.state.grants:
                raise LookupError("Nobody has signed in yet.")
            return list(self.state.grants.values())[-1]

    def is_token_active(self, token: str) -> bool:
        """Return whether the token of that value is still honoured."""
        found = self.state.find_token(token)
        return found is not None and found.is_active(now=self.state.clock())

    def get_subject(self, username: str, client_id: str) -> str:
        """Return the `sub` that this client gets for this person."""
        return self.state.get_subject(self.state.accounts[username], self.state.clients[client_id])

    def register_client(self, client: Client) -> None:
        """Know one more client, or another registration of one."""
        client.get_sector_identifier()
        with self.state.lock:
            self.state.clients[client.client_id] = client

    def register_resource(self, resource: Resource) -> None:
        """Know an API that takes this provider's access tokens, or another registration of one."""
        with self.state.lock:
            self.state.resources[resource.identifier] = resource

    def rotate_keys(self, *, withdraw_old_keys: bool = False) -> None:
        """Sign with new keys from now on. The old ones stay in the key set unless withdrawn."""
        self.state.rotate_keys(withdraw_old_keys=withdraw_old_keys)

    def authorize(
        self, url: str, username: str, *, cookies: dict[str, str] | None = None, decision: str = "sign-in"
    ) -> str:
        """Return the callback URL to which signing in at the authorization request url leads.

        Raises: driver.NotRedirected when a page was shown instead.
        """
        password = self.state.accounts[username].password
        trust = None
        if self.tls is not None:
            trust = ssl.create_default_context(cafile=str(self.tls.certificate_path))
            # The provider's own certificate is trusted as it is, whoever signed it.
            trust.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        return driver.sign_in(
            url, username=username, password=password, cookies=cookies, ssl_context=trust, decision=decision
        )

    def send_backchannel_logout(
        self, client_id: str, *, sub: str = "", sid: str = "", jti: str = "", ssl_context: ssl.SSLContext | None = None
    ) -> BackchannelLogoutResponse:
        """Return the client's answer to a logout token about sub, sid or both; trust is for a client on https.

        Raises: OSError when there was no answer; ValueError when there is nobody or no address to send it to.
        """
        return send_logout_token(
            self.state, self.state.clients[client_id], sub=sub, sid=sid, jti=jti, ssl_context=ssl_context
        )

    def start(self) -> None:
        """Serve, in threads of its own, from when this returns."""
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
        """Stop serving; all sockets are closed when this returns, and what it knows it keeps."""
        if self._server is None or self._thread is None:
            return
        self._server.close()
        self._thread.join()
        self._server = self._thread = None

    @contextmanager
    def running(self) -> Iterator["DemoProvider"]:
        """Serve for the length of the block."""
        self.start()
        try:
            yield self
        finally:
            self.stop()
