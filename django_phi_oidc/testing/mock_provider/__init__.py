"""An OpenID Provider of our own that can lie: for tests and for the demo, NEVER FOR PRODUCTION.

Its passwords are printed on its login page, everything it knows is in memory, and whoever holds the object makes it
sign what they like. It listens on loopback alone and refuses every other address. It knows no Django.

    op = DemoProvider(clients=[demo_client("http://127.0.0.1:8000")], accounts=demo_accounts())
    with op.running():
        callback_url = op.authorize(authorization_url, "amina")
        assert [request.path for request in op.requests].count("/token") == 0

Every answer passes `op.mutate(endpoint, exchange)`, which may change `exchange` or return a Reply in its place.
Endpoints: discovery, jwks, par, authorize, token, userinfo, revocation, introspection, end_session; `unknown` and
`malformed` for what is no request to any of them. Four stages come before a signature, `id_token`, `access_token` (of
an API), `logout_token` and `userinfo_jwt`: there `exchange.header`, `exchange.claims`, `exchange.key` and
`exchange.token` count instead of `exchange.reply`.

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

What an honest provider may do one way or the other is set, on the provider or on the client's registration:

    op.par = "required"                                                # or "offered"; "off" at first
    op.state.assertion_audiences = ("issuer",)                         # what `aud` of a client assertion may name
    op.state.heart_claims = True                                       # ID Tokens with jti and nbf, for 5 minutes
    Client("portal", "", [...], token_endpoint_auth_methods=["private_key_jwt"], jwks_uri="http://127.0.0.1:8000/jwks")
    Client("portal", "s", [...], require_pkce=False)                   # a request without PKCE is taken as well
    Client("portal", "s", [...], userinfo_signed_response_alg="ES256")  # UserInfo is a signed JWT
    op.register_resource(Resource("https://api.example", ["read"]))    # `resource=` at the token endpoint: a JWT for it
    op.requests[-1].auth_method, op.requests[-1].assertion["jti"]      # what a client said of itself
"""

from .driver import RedirectExpected, sign_in
from .messages import LoggedRequest, MutableExchange, ProviderHook, Reply, stream_slowly
from .provider import DemoProvider
from .registrations import Account, Client, Resource, TLSFiles, demo_accounts, demo_client, demo_staff
from .signing import (
    SigningKey,
    compute_half_hash,
    corrupt_signature,
    create_signing_key,
    create_signing_keys,
    sign_bytes,
    sign_jwt,
)
from .state import Grant, Token

__all__ = [
    "Account",
    "Client",
    "DemoProvider",
    "Grant",
    "LoggedRequest",
    "MutableExchange",
    "ProviderHook",
    "RedirectExpected",
    "Reply",
    "Resource",
    "SigningKey",
    "TLSFiles",
    "Token",
    "compute_half_hash",
    "corrupt_signature",
    "create_signing_key",
    "create_signing_keys",
    "demo_accounts",
    "demo_client",
    "demo_staff",
    "sign_bytes",
    "sign_in",
    "sign_jwt",
    "stream_slowly",
]
