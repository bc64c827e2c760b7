"""Attack cases for encrypted ID Tokens. Spec: RFC 7516 5.2; RFC 7518 4, 5; OIDC Core 10.2."""

from ...config.client_keys import parse_client_keys
from ..mock_provider import (
    MutableExchange,
    corrupt_signature,
    create_signing_key,
    encrypt_jwt,
    sign_jwt,
)
from .cases import (
    CLIENT_KEY,
    CLIENT_KEY_PEM,
    PRIVATE_KEY_JWT_OPTIONS,
    CaseFields,
    create_case_factory,
)
from .tampering import OMITTED, replace_token, tamper_header
from .throwaway_ca import create_private_key_pem

ENCRYPTION_KEY_PEM = create_private_key_pem("EC")
(ENCRYPTION_KEY,) = parse_client_keys("client_keys", {"key": ENCRYPTION_KEY_PEM, "use": "enc"})
ENCRYPTION_FIELDS: CaseFields = {
    "options": {
        **PRIVATE_KEY_JWT_OPTIONS,
        "client_keys": [CLIENT_KEY_PEM, {"key": ENCRYPTION_KEY_PEM, "use": "enc"}],
        "id_token_encrypted_response_alg": ["ECDH-ES"],
        "id_token_encrypted_response_enc": ["A256GCM"],
    },
    "client_options": {
        "token_endpoint_auth_methods": ("private_key_jwt",),
        "jwks": {"keys": [CLIENT_KEY.build_public_jwk("ES256"), ENCRYPTION_KEY.build_public_jwk()]},
        "id_token_encrypted_response_alg": "ECDH-ES",
    },
    "sqlite_only": True,
}
"""ID Tokens are encrypted."""


def encrypt_without_declaration(exchange: MutableExchange) -> str:
    """Return the token signed, and encrypted to the portal."""
    header = {"alg": "ECDH-ES", "enc": "A256GCM", "cty": "JWT", "kid": ENCRYPTION_KEY.kid}
    token = sign_jwt(exchange.header, exchange.claims, exchange.key or create_signing_key("ES256"))
    return encrypt_jwt(header, token, ENCRYPTION_KEY.build_public_jwk())


def encrypt_to_foreign_key(exchange: MutableExchange) -> str:
    """Return the token encrypted to a foreign key, with the kid of the portal's key."""
    (foreign,) = parse_client_keys(
        "client_keys", {"key": create_private_key_pem("EC"), "use": "enc"}
    )
    return encrypt_jwt(exchange.header, exchange.signed_token, foreign.build_public_jwk())


def encrypt_with_corrupt_tag(exchange: MutableExchange) -> str:
    """Return the encrypted token with one bit of its authentication tag flipped."""
    return corrupt_signature(
        encrypt_jwt(exchange.header, exchange.signed_token, ENCRYPTION_KEY.build_public_jwk())
    )


_id_token_case = create_case_factory("id_token")
_encrypted_id_token_case = create_case_factory("id_token_jwe", **ENCRYPTION_FIELDS)

ENCRYPTED_TOKEN_CASES = [
    _id_token_case(
        "encryption_undeclared",
        replace_token,
        encrypt_without_declaration,
        None,
        options={**ENCRYPTION_FIELDS["options"], "id_token_encrypted_response_alg": []},
        client_options={
            **ENCRYPTION_FIELDS["client_options"],
            "id_token_encrypted_response_alg": "",
        },
        sqlite_only=True,
    ),
    _encrypted_id_token_case(
        "encryption_missing", replace_token, lambda exchange: exchange.signed_token, None
    ),
    _encrypted_id_token_case("token_malformed", tamper_header("zip"), "DEF", OMITTED, "compressed"),
    _encrypted_id_token_case("token_malformed", tamper_header("cty"), "json", "jwt", "cty"),
    _encrypted_id_token_case(
        "alg_not_allowed", tamper_header("alg"), "ECDH-ES+A128KW", OMITTED, "key management"
    ),
    _encrypted_id_token_case(
        "alg_not_allowed", tamper_header("enc"), "A128CBC-HS256", OMITTED, "content encryption"
    ),
    _encrypted_id_token_case(
        "decryption_failed", replace_token, encrypt_to_foreign_key, None, "foreign key"
    ),
    _encrypted_id_token_case(
        "decryption_failed", replace_token, encrypt_with_corrupt_tag, None, "tag"
    ),
    _encrypted_id_token_case("decryption_failed", tamper_header("kid"), "unknown", OMITTED, "kid"),
]
