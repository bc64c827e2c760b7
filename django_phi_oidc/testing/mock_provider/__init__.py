"""A mock OpenID Provider that can send wrong responses: for tests and the demo, NEVER FOR
PRODUCTION.

The login page shows all passwords, the state is in memory, and code that has the object can sign
anything. It listens only on loopback and rejects every other address. It does not import Django.

    op = DemoProvider(clients=[demo_client("http://127.0.0.1:8000")], accounts=demo_accounts())
    with op.running():
        callback_url = op.authorize(authorization_url, "amina")
        assert [request.path for request in op.requests].count("/token") == 0

Every reply passes `op.mutate(endpoint, exchange)`, which may change `exchange` or return a Reply
instead.
Endpoints: discovery, jwks, par, authorize, token, userinfo, revocation, introspection, end_session;
as a transmitter of security events ssf_configuration, ssf_streams, ssf_status, ssf_add_subject,
ssf_remove_subject, ssf_verify, ssf_poll; `unknown` and `malformed` for all other requests. Five
stages precede a signature: `id_token`, `access_token` (of an API), `logout_token`, `userinfo_jwt`
and `security_event`. There the hook changes `exchange.header`, `exchange.claims`, `exchange.key` or
`exchange.token` instead of `exchange.reply`. Three stages precede the encryption of
`exchange.signed_token`: `id_token_jwe`, `logout_token_jwe` and `userinfo_jwe`. There it changes
`exchange.header` or `exchange.token`.

    def other_issuer(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "id_token":
            exchange.claims["iss"] = "https://elsewhere.example"       # still signed

    exchange.header["alg"] = "none"                                    # no signature
    exchange.header["alg"] = "HS256"                                   # HMAC, with the public key as the secret
    exchange.key = create_signing_key("RS256", kid=exchange.header["kid"])  # a foreign key with a known kid
    exchange.token = corrupt_signature(sign_jwt(exchange.header, exchange.claims, exchange.key))

    exchange.reply.json["expires_in"] = "soon"                         # at "token"
    exchange.reply.query["iss"] = ["https://a.example"] * 2            # at "authorize": a repeated parameter
    time.sleep(0.3)                                                    # delays the reply, holds no lock
    exchange.reply.raw = ()                                            # the connection is dropped
    exchange.reply.raw = stream_slowly(exchange.reply, pause_seconds=0.2)  # a byte at a time

    op.mutate = other_issuer                                           # may be set while it runs; None: no change

`mutate` runs after the endpoint: a revocation that `mutate` answers with 503 has revoked the token.
To simulate an outage, set `op.intercept`, which has the same form and runs before the endpoint, or
stop and start the provider.

If a hook raises, the connection is dropped and the traceback is logged.

Optional behaviour of a correct provider is set on the provider or on the client's registration:

    op.par = "required"                                                # or "offered"; default: "off"
    op.state.dpop = "required"                                         # or "offered"; default: "off"
    op.state.dpop_nonce = "n-1"                                        # each DPoP proof must have this nonce
    op.state.assertion_audiences = ("issuer",)                         # allowed `aud` of a client assertion
    op.state.heart_claims = True                                       # ID Tokens with jti and nbf, valid for 5 minutes
    Client("portal", "", [...], token_endpoint_auth_methods=["private_key_jwt"], jwks_uri="http://127.0.0.1:8000/jwks")
    Client("portal", "s", [...], require_pkce=False)                   # also accepts requests without PKCE
    Client("portal", "s", [...], userinfo_signed_response_alg="ES256")  # UserInfo is a signed JWT
    Client("portal", "s", [...], id_token_encrypted_response_alg="ECDH-ES", jwks_uri="http://127.0.0.1:8000/jwks")
    op.register_resource(Resource("https://api.example", ["read"]))    # `resource=` at the token endpoint: a JWT
    op.create_security_event("portal", event_type, sub_id={"format": "iss_sub", "iss": op.issuer, "sub": sub})
    op.requests[-1].auth_method, op.requests[-1].assertion["jti"]      # how a client authenticated
"""  # noqa: E501

from .client_jwks import encrypt_jwt
from .driver import RedirectExpected, sign_in
from .messages import LoggedRequest, MutableExchange, ProviderHook, Reply, stream_slowly
from .provider import DemoProvider
from .registrations import (
    Account,
    Client,
    Resource,
    TLSFiles,
    demo_accounts,
    demo_client,
    demo_staff,
)
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
    "encrypt_jwt",
    "sign_bytes",
    "sign_in",
    "sign_jwt",
    "stream_slowly",
]
