"""An OpenID Provider of our own that can lie: for tests and for the demo, NEVER FOR PRODUCTION.

Its passwords are printed on its login page, everything it knows is in memory, and whoever holds the object makes it
sign what they like. It listens on loopback alone and refuses every other address. It knows no Django.

    op = DemoProvider(clients=[demo_client("http://127.0.0.1:8000")], accounts=demo_accounts())
    with op.running():
        callback_url = op.authorize(authorization_url, "amina")
        assert [request.path for request in op.requests].count("/token") == 0

Every answer passes `op.mutate(endpoint, exchange)`, which may change `exchange` or return a Reply in its place.
Endpoints: discovery, jwks, authorize, token, userinfo, revocation, introspection, end_session; `unknown` and
`malformed` for what is no request to any of them. Two stages come before a signature, `id_token` and `logout_token`:
there `exchange.header`, `exchange.claims`, `exchange.key` and `exchange.token` count instead of `exchange.reply`.

    def other_issuer(endpoint: str, exchange: Exchange) -> None:
        if endpoint == "id_token":
            exchange.claims["iss"] = "https://elsewhere.example"       # signed all the same

    exchange.header["alg"] = "none"                                    # no signature
    exchange.header["alg"] = "HS256"                                   # HMAC, with the public key as the secret
    exchange.key = make_key("RS256", kid=exchange.header["kid"])       # a foreign key under a known name
    exchange.token = garbled(sign(exchange.header, exchange.claims, exchange.key))

    exchange.reply.json["expires_in"] = "soon"                         # at "token"
    exchange.reply.query["iss"] = ["https://a.example"] * 2            # at "authorize": a repeated parameter
    time.sleep(0.3)                                                    # the answer is held, no lock is
    exchange.reply.raw = ()                                            # the connection is dropped
    exchange.reply.raw = dripping(exchange.reply, pause=0.2)           # a byte at a time

    op.mutate = other_issuer                                           # may be set while it runs; None: honest again

At that point the endpoint has done its work: a revocation answered 503 by `mutate` has revoked. For a provider that
is out of order set `op.intercept`, of the same form, which is asked before anything is done; or stop and start it.

A hook that raises drops the connection, and its traceback is logged.
"""

from .driver import NotRedirected, sign_in
from .messages import Exchange, LoggedRequest, Mutate, Reply, dripping
from .provider import DemoProvider
from .registrations import Account, Client, TLSFiles, demo_accounts, demo_client
from .signing import SigningKey, garbled, half_hash, make_key, make_keys, sign, sign_bytes
from .state import Grant, Token

__all__ = [
    "Account",
    "Client",
    "DemoProvider",
    "Exchange",
    "Grant",
    "LoggedRequest",
    "Mutate",
    "NotRedirected",
    "Reply",
    "SigningKey",
    "TLSFiles",
    "Token",
    "demo_accounts",
    "demo_client",
    "dripping",
    "garbled",
    "half_hash",
    "make_key",
    "make_keys",
    "sign",
    "sign_bytes",
    "sign_in",
]
