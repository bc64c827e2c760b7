"""Identity services of countries and health systems, and of companies that verify identities."""

from ....errors import Code
from .definitions import (
    NO_REAUTHENTICATION,
    NO_REVOCATION,
    PUBLIC_SUBJECTS,
    UNVERIFIED_REAUTHENTICATION,
    KnownFault,
    KnownProvider,
    Recipe,
    RecipeOption,
)

SPID_LEVELS = ("https://www.spid.gov.it/SpidL2", "https://www.spid.gov.it/SpidL3")

NATIONAL_SERVICES = (
    KnownProvider(
        name="CLEAR",
        slug="clear",
        marks=(("issuer", r"^https://verified\.clearme\.com/"),),
        recipe=Recipe(
            issuer="https://verified.clearme.com/integrations",
            options=(
                PUBLIC_SUBJECTS,
                UNVERIFIED_REAUTHENTICATION,
            ),
        ),
    ),
    KnownProvider(
        name="FranceConnect",
        slug="franceconnect",
        marks=(
            (
                "issuer",
                r"^https://([a-z0-9-]+\.)+(franceconnect\.gouv|dev-franceconnect)\.fr/api/v2$",
            ),
        ),
        requires_id_token_hint=True,
        recipe=Recipe(
            issuer="https://oidc.franceconnect.gouv.fr/api/v2",
            issuer_note="Production. The sandbox is "
            "https://fcp-low.sbx.dev-franceconnect.fr/api/v2.",
            options=(
                RecipeOption(
                    name="token_endpoint_auth_method",
                    value="client_secret_post",
                    need="required",
                    reason="The client secret is sent in the body.",
                ),
                RecipeOption(
                    name="id_token_signed_response_alg",
                    value=["ES256"],
                    need="required",
                    reason="As registered in the partner space.",
                ),
                RecipeOption(
                    name="userinfo_signed_response_alg",
                    value=["ES256"],
                    reason="UserInfo is a signed JWT. An unsigned response is refused.",
                ),
                RecipeOption(
                    name="acr_values",
                    value=["eidas1"],
                    need="example",
                    reason="It requires a level: eidas1, or with FranceConnect+ eidas2 or eidas3.",
                ),
                NO_REVOCATION,
            ),
        ),
    ),
    KnownProvider(
        name="GesundheitsID",
        slug="gesundheitsid",
        marks=(("user_type_supported", "^(IP|HP|HCI|HCP)$"),),
        recipe=Recipe(
            issuer="https://idp.krankenkasse.example",
            issuer_note="The identity provider of one health insurance. "
            "The Federation Master lists them.",
            client_key_type="P-256",
            key_auth_method="self_signed_tls_client_auth",
            needs_certificate=True,
            decryption_key_type="P-256",
            trust_anchor="https://app.federationmaster.de",
            options=(
                RecipeOption(
                    name="par",
                    value="require",
                    need="required",
                    reason="It accepts pushed requests only.",
                ),
                RecipeOption(
                    name="id_token_signed_response_alg",
                    value=["ES256"],
                    need="required",
                    reason="ID Tokens are signed with ES256.",
                ),
                RecipeOption(
                    name="id_token_encrypted_response_alg",
                    value=["ECDH-ES"],
                    need="required",
                    reason="ID Tokens are encrypted for the decryption key.",
                ),
                RecipeOption(
                    name="id_token_encrypted_response_enc",
                    value=["A256GCM"],
                    need="visible",
                    reason="Their content is encrypted with A256GCM.",
                ),
                RecipeOption(
                    name="acr_values",
                    value=["gematik-ehealth-loa-high"],
                    need="example",
                    reason="It requires a level: this one for health data, or "
                    "gematik-ehealth-loa-substantial.",
                ),
                RecipeOption(
                    name="resource_scopes",
                    value={
                        "urn:telematik:versicherter": {
                            "purpose": "TREAT",
                            "basis": "identity of the patient",
                        }
                    },
                    need="example",
                    reason="Claims are requested by scopes. This one has the insurance number.",
                ),
                UNVERIFIED_REAUTHENTICATION,
                NO_REVOCATION,
            ),
        ),
    ),
    KnownProvider(
        name="ID.me",
        slug="id-me",
        marks=(("issuer", r"^https://api\.(id\.me|idmelabs\.com)/oidc$"),),
        recipe=Recipe(
            issuer="https://api.id.me/oidc",
            issuer_note="Production. The sandbox is https://api.idmelabs.com/oidc.",
            options=(
                RecipeOption(
                    name="resource_scopes",
                    value={
                        "http://idmanagement.gov/ns/assurance/ial/2/aal/2": {
                            "purpose": "HOPERAT",
                            "basis": "identity verification before an account is linked",
                        }
                    },
                    need="example",
                    reason="The policy scope of your application. ID.me has "
                    "no scopes such as profile and email.",
                ),
                PUBLIC_SUBJECTS,
                UNVERIFIED_REAUTHENTICATION,
                NO_REVOCATION,
            ),
        ),
    ),
    KnownProvider(
        name="login.gov",
        slug="login-gov",
        marks=(("issuer", r"^https://(secure\.login|idp\.int\.identitysandbox)\.gov/"),),
        recipe=Recipe(
            issuer="https://secure.login.gov/",
            issuer_note="Production, with a slash at the end. The sandbox is "
            "https://idp.int.identitysandbox.gov/.",
            client_key_type="RSA",
            options=(
                RecipeOption(
                    name="token_endpoint_auth_signing_alg",
                    value="RS256",
                    need="required",
                    reason="It accepts RS256 only in client assertions (W011).",
                ),
                RecipeOption(
                    name="client_assertion_audience",
                    value="token_endpoint",
                    need="required",
                    reason="The audience of client assertions is its token endpoint (W012).",
                ),
                RecipeOption(
                    name="acr_values",
                    value=["urn:acr.login.gov:auth-only"],
                    need="example",
                    reason="It requires a level: auth-only, verified, or "
                    "verified-facial-match-required.",
                ),
                RecipeOption(
                    name="authorization_parameters",
                    value={"prompt": "select_account"},
                    need="required",
                    reason="It accepts no other prompt.",
                ),
                NO_REAUTHENTICATION,
                RecipeOption(
                    name="id_token_hint",
                    value="never",
                    reason="It refuses a logout request with an ID Token.",
                ),
                NO_REVOCATION,
            ),
        ),
        faults=(
            KnownFault(
                check="assurance",
                code=Code.ACR_INSUFFICIENT,
                text="login.gov may answer another acr than a "
                "requested one that ends with -preferred",
                remedy="Declare acr_accepted with each answer that is sufficient.",
                applies=lambda declaration: (
                    not declaration.acr_accepted
                    and any(value.endswith("-preferred") for value in declaration.acr_values)
                ),
            ),
        ),
    ),
    KnownProvider(
        name="NHS CIS2",
        slug="cis2",
        marks=(
            ("issuer", r"^https://am\.[a-z0-9.-]*spineservices\.nhs\.uk(:443)?/openam/oauth2/"),
        ),
        recipe=Recipe(
            issuer="https://am.nhsidentity.spineservices.nhs.uk:443/openam/oauth2/realms/root/realms/NHSIdentity"
            "/realms/Healthcare",
            issuer_note="Production, with :443 as in its metadata. Integration has the host"
            " am.nhsint.auth-ptl.cis2.spineservices.nhs.uk.",
            options=(
                RecipeOption(
                    name="token_endpoint_auth_method",
                    value="client_secret_post",
                    need="visible",
                    reason="As registered in Connection Manager; private_key_jwt is possible, too.",
                ),
                RecipeOption(
                    name="acr_values",
                    value=["AAL3_ANY"],
                    need="example",
                    reason="The authenticators that your portal admits.",
                ),
                RecipeOption(
                    name="subject_type",
                    value="public",
                    need="visible",
                    reason="The sub is the national id of the worker, "
                    "which other clients get too (W001).",
                ),
            ),
        ),
    ),
    KnownProvider(
        name="NHS login",
        slug="nhs-login",
        marks=(("issuer", r"^https://auth\.(login\.nhs\.uk|[a-z]+\.signin\.nhs\.uk)$"),),
        recipe=Recipe(
            issuer="https://auth.login.nhs.uk",
            issuer_note="Production. Sandpit: https://auth.sandpit.signin.nhs.uk. Integration: "
            "https://auth.aos.signin.nhs.uk.",
            client_key_type="RSA",
            options=(
                RecipeOption(
                    name="token_endpoint_auth_signing_alg",
                    value="RS512",
                    need="required",
                    reason="It accepts RS512 only in client assertions (W011).",
                ),
                RecipeOption(
                    name="client_assertion_audience",
                    value="token_endpoint",
                    need="required",
                    reason="The audience of client assertions is its token endpoint (W012).",
                ),
                RecipeOption(
                    name="id_token_signed_response_alg",
                    value=["RS512"],
                    need="required",
                    reason="ID Tokens are signed with RS512.",
                ),
                RecipeOption(
                    name="vtr",
                    value=["P9.Cp.Cd", "P9.Cp.Ck", "P9.Cm"],
                    need="example",
                    reason="Verified identities (P9), two factors. "
                    "Without it, unverified users sign in.",
                ),
                RecipeOption(
                    name="vtm",
                    value="https://auth.login.nhs.uk/trustmark/auth.login.nhs.uk",
                    need="example",
                    reason="The trust mark of the environment, which ID Tokens name.",
                ),
                PUBLIC_SUBJECTS,
                NO_REVOCATION,
            ),
        ),
    ),
    KnownProvider(
        name="Pro Santé Connect",
        slug="psc",
        page="pro-sante-connect",
        marks=(
            (
                "issuer",
                r"^https://auth\.([a-z]+\.)?(esw|psc)\.esante\.gouv\.fr/auth/realms/esante-wallet$",
            ),
        ),
        recipe=Recipe(
            issuer="https://auth.esw.esante.gouv.fr/auth/realms/esante-wallet",
            issuer_note="Production. The sandbox is "
            "https://auth.bas.psc.esante.gouv.fr/auth/realms/esante-wallet.",
            options=(
                RecipeOption(
                    name="metadata_url",
                    value="https://auth.esw.esante.gouv.fr/auth/realms/esante-wallet/.well-known"
                    "/wallet-openid-configuration",
                    need="example",
                    reason="Its metadata have another name than in OpenID Connect Discovery.",
                ),
                RecipeOption(
                    name="acr_values",
                    value=["eidas1"],
                    need="example",
                    reason="It requires this level in the request.",
                ),
                RecipeOption(
                    name="resource_scopes",
                    value={
                        "scope_all": {
                            "purpose": "HOPERAT",
                            "basis": "identity and role of the professional",
                        }
                    },
                    need="example",
                    reason="The professional identity: profession, speciality, places of practice.",
                ),
                PUBLIC_SUBJECTS,
                NO_REVOCATION,
            ),
        ),
    ),
    KnownProvider(
        name="Singpass",
        slug="singpass",
        marks=(("issuer", r"^https://(stg-)?id\.singpass\.gov\.sg/fapi$"),),
        recipe=Recipe(
            issuer="https://id.singpass.gov.sg/fapi",
            issuer_note="Production. Staging: https://stg-id.singpass.gov.sg/fapi.",
            client_key_type="P-256",
            decryption_key_type="P-256",
            options=(
                RecipeOption(
                    name="profile",
                    value="fapi2",
                    need="required",
                    reason="Each rule of the FAPI 2.0 Security Profile is enforced.",
                ),
                RecipeOption(
                    name="dpop",
                    value="require",
                    need="required",
                    reason="It issues only tokens that are bound to a key (DPoP).",
                ),
                RecipeOption(
                    name="par",
                    value="require",
                    need="required",
                    reason="The profile requires it.",
                ),
                RecipeOption(
                    name="id_token_signed_response_alg",
                    value=["ES256"],
                    need="required",
                    reason="ID Tokens are signed with ES256.",
                ),
                RecipeOption(
                    name="id_token_encrypted_response_alg",
                    value=["ECDH-ES+A256KW"],
                    need="required",
                    reason="ID Tokens are encrypted for the second key.",
                ),
                RecipeOption(
                    name="id_token_encrypted_response_enc",
                    value=["A256GCM", "A256CBC-HS512"],
                    reason="It offers both.",
                ),
                RecipeOption(
                    name="userinfo_signed_response_alg",
                    value=["ES256"],
                    reason="UserInfo of Myinfo is signed, and then encrypted.",
                ),
                RecipeOption(
                    name="userinfo_encrypted_response_alg",
                    value=["ECDH-ES+A256KW"],
                    reason="As ID Tokens.",
                ),
                RecipeOption(
                    name="userinfo_encrypted_response_enc",
                    value=["A256GCM", "A256CBC-HS512"],
                    reason="As ID Tokens.",
                ),
                RecipeOption(
                    name="authorization_parameters",
                    value={"authentication_context_type": "APP_AUTHENTICATION_DEFAULT"},
                    need="required",
                    reason="It requires the kind of the transaction from Login apps.",
                ),
                RecipeOption(
                    name="acr_values",
                    value=["urn:singpass:authentication:loa:2"],
                    need="example",
                    reason="Two factors: without it, a password alone is accepted.",
                ),
                NO_REAUTHENTICATION,
                PUBLIC_SUBJECTS,
                NO_REVOCATION,
            ),
        ),
    ),
    KnownProvider(
        name="SPID / CIE",
        slug="spid-cie",
        marks=(("acr_values_supported", r"^https://www\.spid\.gov\.it/SpidL[123]$"),),
        recipe=Recipe(
            issuer="https://oidc.idserver.servizicie.interno.gov.it",
            issuer_note="CIE, production. For SPID, the identity "
            "provider that the user has chosen.",
            client_key_type="P-256",
            decryption_key_type="RSA",
            trust_anchor="https://oidc.registry.servizicie.interno.gov.it",
            options=(
                RecipeOption(
                    name="client_assertion_audience",
                    value="endpoint",
                    need="required",
                    reason="The audience of client assertions is the endpoint in use (W012).",
                ),
                RecipeOption(
                    name="request_object_signing_alg",
                    value="ES256",
                    need="required",
                    reason="It accepts signed requests only.",
                ),
                RecipeOption(
                    name="authorization_parameters",
                    value={"prompt": "consent"},
                    need="required",
                    reason="It requires a prompt.",
                ),
                RecipeOption(
                    name="claims_request",
                    value="parameter",
                    need="required",
                    reason="SPID has no scopes for claims.",
                ),
                RecipeOption(
                    name="acr_values",
                    value=[SPID_LEVELS[0]],
                    need="example",
                    reason="Two factors. The other levels are SpidL1 and SpidL3.",
                ),
                RecipeOption(
                    name="acr_accepted",
                    value=list(SPID_LEVELS),
                    need="example",
                    reason="It may answer with a higher level.",
                ),
                RecipeOption(
                    name="id_token_signed_response_alg",
                    value=["RS256"],
                    reason="Each provider has RS256.",
                ),
                RecipeOption(
                    name="userinfo_signed_response_alg",
                    value=["RS256"],
                    reason="UserInfo is signed, and then encrypted.",
                ),
                RecipeOption(
                    name="userinfo_encrypted_response_alg",
                    value=["RSA-OAEP-256"],
                    need="required",
                    reason="UserInfo is encrypted for the second key.",
                ),
                RecipeOption(
                    name="userinfo_encrypted_response_enc",
                    value=["A256CBC-HS512"],
                    need="required",
                    reason="Each provider has it; A256GCM is not in its rules.",
                ),
                UNVERIFIED_REAUTHENTICATION,
            ),
        ),
    ),
)
