"""Metadata as the known providers publish it, by the name of each for `phi_oidc init`: the members that are checked.

Written from the documentation of the providers in November 2026. The documents of GesundheitsID and of SPID and CIE are
the part `openid_provider` of an entity statement.
"""

from typing import Any

S256 = {"code_challenge_methods_supported": ["plain", "S256"]}
BACKCHANNEL = {"backchannel_logout_supported": True, "backchannel_logout_session_supported": True}
RESPONSE_ISSUER = {"authorization_response_iss_parameter_supported": True}
AUTH_TIME = {"claims_supported": ["iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "email"]}
MANY = ["PS384", "ES384", "HS256", "ES256", "RS256", "PS256"]
SECRETS = ["client_secret_post", "client_secret_basic"]


def build_metadata(issuer: str, *subject_types: str, without: tuple[str, ...] = (), **members: Any) -> dict[str, Any]:
    """Return metadata with endpoints below the issuer. without: endpoints that the provider does not have."""
    names = ("authorization", "token", "userinfo", "revocation", "end_session")
    endpoints = {f"{name}_endpoint": f"{issuer.rstrip('/')}/{name}" for name in names if name not in without}
    return {
        "issuer": issuer,
        "jwks_uri": f"{issuer.rstrip('/')}/keys",
        "response_types_supported": ["code"],
        "subject_types_supported": list(subject_types),
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": [*SECRETS, "private_key_jwt"],
        **endpoints,
        **members,
    }


REALM = "https://id.example.org/realms/patients"
OPENID_CONNECT = f"{REALM}/protocol/openid-connect"
CLEAR = "https://verified.clearme.com/integrations"
IDME = "https://api.id.me"
LOGIN_GOV = "https://secure.login.gov"
CIS2 = "https://am.nhsidentity.spineservices.nhs.uk:443/openam/oauth2/realms/root/realms/NHSIdentity/realms/Healthcare"
FRANCECONNECT = "https://oidc.franceconnect.gouv.fr/api/v2"
PUBLISHED: dict[str, dict[str, Any]] = {
    "keycloak": build_metadata(
        REALM,
        *("public", "pairwise"),
        authorization_endpoint=f"{OPENID_CONNECT}/auth",
        token_endpoint=f"{OPENID_CONNECT}/token",
        end_session_endpoint=f"{OPENID_CONNECT}/logout",
        pushed_authorization_request_endpoint=f"{OPENID_CONNECT}/ext/par/request",
        id_token_signing_alg_values_supported=MANY,
        **S256,
        **BACKCHANNEL,
        **RESPONSE_ISSUER,
        **AUTH_TIME,
    ),
    "entra": build_metadata(
        "https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
        "pairwise",
        without=("revocation",),
        frontchannel_logout_supported=True,
        **AUTH_TIME,
    ),
    "okta": build_metadata(
        "https://example.okta.com",
        "public",
        pushed_authorization_request_endpoint="https://example.okta.com/oauth2/v1/par",
        **S256,
        **AUTH_TIME,
    ),
    "auth0": build_metadata(
        "https://example.eu.auth0.com/",
        "public",
        id_token_signing_alg_values_supported=["HS256", "RS256"],
        **S256,
        **BACKCHANNEL,
        **AUTH_TIME,
    ),
    "google": build_metadata(
        "https://accounts.google.com",
        "public",
        without=("end_session",),
        claims_supported=["aud", "email", "email_verified", "exp", "family_name", "given_name", "iat", "iss", "sub"],
        **S256,
        **RESPONSE_ISSUER,
    ),
    "cognito": build_metadata("https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE", "public"),
    "id-me": build_metadata(
        f"{IDME}/oidc",
        "public",
        authorization_endpoint=f"{IDME}/oauth/authorize",
        token_endpoint=f"{IDME}/oauth/token",
        userinfo_endpoint=f"{IDME}/api/public/v3/userinfo",
        jwks_uri=f"{IDME}/oidc/.well-known/jwks",
        without=("revocation", "end_session"),
        scopes_supported=["openid"],
        id_token_signing_alg_values_supported=["RS256", "ES256"],
        id_token_encryption_alg_values_supported=["RSA-OAEP"],
        id_token_encryption_enc_values_supported=["A256CBC-HS512"],
        token_endpoint_auth_methods_supported=SECRETS,
    ),
    "clear": build_metadata(
        CLEAR,
        "public",
        authorization_endpoint=f"{CLEAR}/oauth2/auth",
        token_endpoint=f"{CLEAR}/oauth2/token",
        revocation_endpoint=f"{CLEAR}/oauth2/revoke",
        end_session_endpoint=f"{CLEAR}/oauth2/sessions/logout",
        jwks_uri=f"{CLEAR}/.well-known/jwks.json",
        scopes_supported=["offline_access", "offline", "openid"],
        claims_supported=["sub", "iss", "exp", "iat", "verification_id", "email", "birthdate", "address", "amr"],
        **S256,
        **BACKCHANNEL,
    ),
    "franceconnect": build_metadata(
        FRANCECONNECT,
        "pairwise",
        authorization_endpoint=f"{FRANCECONNECT}/authorize",
        end_session_endpoint=f"{FRANCECONNECT}/session/end",
        without=("revocation",),
        acr_values_supported=["eidas1"],
        id_token_signing_alg_values_supported=["ES256"],
        userinfo_signing_alg_values_supported=["ES256"],
        token_endpoint_auth_methods_supported=["client_secret_post"],
        claims_supported=["sub", "acr", "auth_time", "given_name", "family_name", "birthdate", "gender", "email"],
    ),
    "login-gov": build_metadata(
        f"{LOGIN_GOV}/",
        "pairwise",
        authorization_endpoint=f"{LOGIN_GOV}/openid_connect/authorize",
        token_endpoint=f"{LOGIN_GOV}/api/openid_connect/token",
        userinfo_endpoint=f"{LOGIN_GOV}/api/openid_connect/userinfo",
        end_session_endpoint=f"{LOGIN_GOV}/openid_connect/logout",
        without=("revocation",),
        acr_values_supported=["urn:acr.login.gov:auth-only", "urn:acr.login.gov:verified"],
        token_endpoint_auth_methods_supported=["private_key_jwt"],
        token_endpoint_auth_signing_alg_values_supported=["RS256"],
    ),
    "cis2": build_metadata(
        CIS2,
        *("public", "pairwise"),
        authorization_endpoint=f"{CIS2}/authorize",
        token_endpoint=f"{CIS2}/access_token",
        revocation_endpoint=f"{CIS2}/token/revoke",
        end_session_endpoint=f"{CIS2}/connect/endSession",
        jwks_uri=f"{CIS2}/connect/jwk_uri",
        acr_values_supported=["AAL1_USERPASS", "AAL2_OR_AAL3_ANY", "AAL2_ANY", "AAL3_ANY"],
        **S256,
        **BACKCHANNEL,
    ),
    "gesundheitsid": build_metadata(
        "https://idp.krankenkasse.example",
        "pairwise",
        without=("userinfo", "revocation", "end_session"),
        pushed_authorization_request_endpoint="https://idp.krankenkasse.example/par",
        require_pushed_authorization_requests=True,
        acr_values_supported=["gematik-ehealth-loa-high", "gematik-ehealth-loa-substantial"],
        client_registration_types_supported=["automatic"],
        id_token_signing_alg_values_supported=["ES256"],
        id_token_encryption_alg_values_supported=["ECDH-ES"],
        id_token_encryption_enc_values_supported=["A256GCM"],
        token_endpoint_auth_methods_supported=["self_signed_tls_client_auth"],
        user_type_supported=["IP"],
    ),
    "spid-cie": build_metadata(
        "https://oidc.idserver.servizicie.interno.gov.it",
        "pairwise",
        without=("end_session",),
        acr_values_supported=[f"https://www.spid.gov.it/SpidL{level}" for level in (1, 2, 3)],
        client_registration_types_supported=["automatic"],
        id_token_signing_alg_values_supported=["RS256", "ES256"],
        userinfo_signing_alg_values_supported=["RS256", "ES256"],
        userinfo_encryption_alg_values_supported=["RSA-OAEP", "RSA-OAEP-256"],
        userinfo_encryption_enc_values_supported=["A128CBC-HS256", "A256CBC-HS512"],
        request_object_signing_alg_values_supported=["RS256", "ES256"],
        code_challenge_methods_supported=["S256"],
        token_endpoint_auth_methods_supported=["private_key_jwt"],
        request_parameter_supported=True,
        claims_parameter_supported=True,
    ),
}
NHS_LOGIN = "https://auth.login.nhs.uk"
PSC = "https://auth.esw.esante.gouv.fr/auth/realms/esante-wallet"
EPIC = "https://fhir.epic.com/interconnect-fhir-oauth"
TENANT = "https://authorization.cerner.com/tenants/ec2458f2-1e24-41c8-b71b-0e701af7583d"
OAUTH2 = f"{TENANT}/protocols/oauth2/profiles/smart-v1"
SINGPASS = "https://id.singpass.gov.sg/fapi"
PUBLISHED |= {
    "nhs-login": build_metadata(
        NHS_LOGIN,
        "public",
        without=("revocation", "end_session"),
        jwks_uri=f"{NHS_LOGIN}/.well-known/jwks.json",
        scopes_supported=["openid", "profile", "email", "phone", "gp_registration_details"],
        claims_supported=["sub", "iss", "aud", "exp", "iat", "auth_time", "nonce", "vot", "vtm", "nhs_number"],
        id_token_signing_alg_values_supported=["RS512"],
        token_endpoint_auth_methods_supported=["private_key_jwt"],
        token_endpoint_auth_signing_alg_values_supported=["RS512"],
    ),
    "psc": build_metadata(
        PSC,
        *("public", "pairwise"),
        authorization_endpoint="https://wallet.esw.esante.gouv.fr/auth",
        token_endpoint=f"{PSC}/protocol/openid-connect/token",
        userinfo_endpoint=f"{PSC}/protocol/openid-connect/userinfo",
        end_session_endpoint=f"{PSC}/protocol/openid-connect/logout",
        jwks_uri=f"{PSC}/protocol/openid-connect/certs",
        without=("revocation",),
        id_token_signing_alg_values_supported=MANY,
        acr_values_supported=["eidas1"],
        **S256,
        **AUTH_TIME,
    ),
    "epic": build_metadata(
        f"{EPIC}/oauth2",
        "public",
        authorization_endpoint=f"{EPIC}/oauth2/authorize",
        jwks_uri=f"{EPIC}/api/epic/2019/Security/Open/PublicKeys/530005/OIDC",
        without=("userinfo", "revocation", "end_session"),
        token_endpoint_auth_signing_alg_values_supported=["RS384", "ES384"],
        scopes_supported=["openid", "fhirUser", "launch", "offline_access"],
        **S256,
    ),
    # Its smart-configuration, which is no document of OpenID Connect Discovery.
    "oracle-health": {
        "issuer": TENANT,
        "authorization_endpoint": f"{OAUTH2}/personas/patient/authorize",
        "token_endpoint": f"{TENANT}/hosts/fhir-myrecord.cerner.com/protocols/oauth2/profiles/smart-v1/token",
        "revocation_endpoint": f"{OAUTH2}/token/revoke",
        "introspection_endpoint": "https://authorization.cerner.com/tokeninfo",
        "jwks_uri": "https://authorization.cerner.com/jwk",
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "private_key_jwt"],
        "token_endpoint_auth_signing_alg_values_supported": ["RS384", "ES384"],
        "grant_types_supported": ["authorization_code", "client_credentials"],
        "scopes_supported": ["fhirUser", "launch", "launch/patient", "offline_access", "online_access", "openid"],
        "capabilities": ["launch-standalone", "client-confidential-asymmetric", "sso-openid-connect"],
        "code_challenge_methods_supported": ["S256"],
    },
    "singpass": build_metadata(
        SINGPASS,
        "public",
        authorization_endpoint=f"{SINGPASS}/auth",
        pushed_authorization_request_endpoint=f"{SINGPASS}/par",
        jwks_uri=f"{SINGPASS}/.well-known/keys",
        without=("revocation", "end_session"),
        require_pushed_authorization_requests=True,
        id_token_signing_alg_values_supported=["ES256"],
        id_token_encryption_alg_values_supported=["ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW"],
        id_token_encryption_enc_values_supported=["A256CBC-HS512", "A256GCM"],
        userinfo_signing_alg_values_supported=["ES256"],
        userinfo_encryption_alg_values_supported=["ECDH-ES+A128KW", "ECDH-ES+A192KW", "ECDH-ES+A256KW"],
        userinfo_encryption_enc_values_supported=["A256CBC-HS512", "A256GCM"],
        token_endpoint_auth_methods_supported=["private_key_jwt"],
        token_endpoint_auth_signing_alg_values_supported=["ES256", "ES384", "ES512"],
        dpop_signing_alg_values_supported=["ES256"],
        acr_values_supported=[f"urn:singpass:authentication:loa:{level}" for level in (1, 2, 3)],
        code_challenge_methods_supported=["S256"],
        **RESPONSE_ISSUER,
    ),
    "udap": build_metadata(
        "https://udap.example.org",
        "public",
        without=("revocation", "end_session"),
        token_endpoint_auth_methods_supported=["private_key_jwt"],
        token_endpoint_auth_signing_alg_values_supported=["RS256", "ES256"],
        udap_versions_supported=["1"],
        udap_profiles_supported=["udap_dcr", "udap_authn", "udap_authz"],
        **S256,
    ),
}
