"""Products and cloud services that an organization runs or rents for its own users."""

from .definitions import (
    NO_REAUTHENTICATION,
    NO_REVOCATION,
    PUBLIC_SUBJECTS,
    KnownFault,
    KnownProvider,
    Recipe,
    RecipeOption,
    build_unsupported_acr_fault,
)

PRODUCTS = (
    KnownProvider(
        name="Amazon Cognito",
        slug="cognito",
        page="amazon-cognito",
        marks=(("issuer", r"^https://cognito-idp\.[a-z0-9-]+\.amazonaws\.com/"),),
        required_end_session_parameter="logout_uri",
        recipe=Recipe(
            issuer="https://cognito-idp.us-east-1.amazonaws.com/us-east-1_EXAMPLE",
            issuer_note="The region, and the id of the user pool.",
            options=(
                PUBLIC_SUBJECTS,
                RecipeOption(
                    name="id_token_hint",
                    value="never",
                    reason="Its sign-out page ignores the hint: store no ID Token.",
                ),
                RecipeOption(
                    name="end_session_parameters",
                    value={"logout_uri": "https://your.host/oidc/logged-out/"},
                    need="visible",
                    reason="Its sign-out page requires this parameter, with a registered URL.",
                ),
            ),
        ),
        faults=(
            KnownFault(
                check="revocation",
                code="revocation_partial",
                text="Cognito revokes refresh tokens, with their access "
                "tokens; it refuses an access token alone",
                remedy="Set the lifetime of access tokens to ten minutes, in the app client.",
            ),
            build_unsupported_acr_fault(
                "Cognito", "Require a second factor in the user pool. Delete acr_values."
            ),
        ),
    ),
    KnownProvider(
        name="Auth0",
        slug="auth0",
        marks=(("issuer", r"^https://[a-z0-9.-]+\.auth0\.com/"),),
        recipe=Recipe(
            issuer="https://example.eu.auth0.com/",
            issuer_note="Your domain, with a slash at its end.",
            options=(PUBLIC_SUBJECTS,),
        ),
        faults=(
            KnownFault(
                check="revocation",
                code="revocation_partial",
                text="Auth0 revokes refresh tokens only: it answers 200 for an access token, which "
                "stays valid until it expires, although the audit log has token.revoked",
                remedy="Set the lifetime of access tokens to ten minutes, "
                "in the settings of the API at Auth0.",
            ),
        ),
    ),
    KnownProvider(
        name="Google",
        slug="google",
        marks=(("issuer", r"^https://accounts\.google\.com$"),),
        recipe=Recipe(
            issuer="https://accounts.google.com",
            options=(
                PUBLIC_SUBJECTS,
                NO_REAUTHENTICATION,
                RecipeOption(
                    name="authorization_parameters",
                    value={"prompt": "select_account"},
                    reason="The user chooses an account at each sign-in: "
                    "not sufficient for shared computers.",
                ),
            ),
        ),
        faults=(
            build_unsupported_acr_fault(
                "Google", "Require a second factor in the Google Admin console. Delete acr_values."
            ),
        ),
    ),
    KnownProvider(
        name="Keycloak",
        slug="keycloak",
        marks=(("authorization_endpoint", "/protocol/openid-connect/auth$"),),
        recipe=Recipe(
            issuer="https://id.example.org/realms/patients",
            issuer_note="The path ends with the realm. Before Keycloak 17 it begins with /auth.",
        ),
        faults=(
            KnownFault(
                check="logout",
                code="logout_sub_mismatch",
                text="Keycloak up to 26.1: sub in logout tokens is not the "
                "pairwise one, so only sid finds a session",
                remedy="Update to 26.2, or switch on 'Backchannel logout "
                "session required' for the client.",
                applies=lambda declaration: declaration.subject_type == "pairwise",
            ),
        ),
    ),
    KnownProvider(
        name="Microsoft Entra ID",
        slug="entra",
        page="entra-id",
        marks=(("issuer", r"^https://login\.microsoftonline\.com/"),),
        recipe=Recipe(
            issuer="https://login.microsoftonline.com/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0",
            issuer_note="Your Directory (tenant) ID, never common or organizations.",
            options=(NO_REVOCATION,),
        ),
        faults=(
            build_unsupported_acr_fault(
                "Entra ID", "Use a policy of Conditional Access. Delete acr_values."
            ),
        ),
    ),
    KnownProvider(
        name="Okta",
        slug="okta",
        marks=(("issuer", r"^https://[a-z0-9-]+\.okta(preview|-emea|-gov)?\.com(/|$)"),),
        requires_id_token_hint=True,
        recipe=Recipe(
            issuer="https://example.okta.com",
            issuer_note="The URL of the organization; of a custom authorization server, with "
            "/oauth2/ and its id.",
            options=(
                PUBLIC_SUBJECTS,
                RecipeOption(
                    name="id_token_hint",
                    value="always",
                    need="visible",
                    reason="A logout without the hint ends on an error page. "
                    "ID Tokens are stored for it (W040).",
                ),
            ),
        ),
    ),
    KnownProvider(
        name="Spring Authorization Server",
        marks=(("end_session_endpoint", "/connect/logout$"),),
        requires_id_token_hint=True,
    ),
)
