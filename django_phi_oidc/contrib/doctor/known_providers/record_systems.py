"""Electronic health records, and servers of the networks that connect them."""

from .definitions import (
    NO_REAUTHENTICATION,
    NO_REVOCATION,
    PUBLIC_SUBJECTS,
    KnownProvider,
    Recipe,
    RecipeOption,
)

_FHIR_USER = RecipeOption(
    name="resource_scopes",
    value={"fhirUser": {"purpose": "PATRQT", "basis": "sign-in of the patient"}},
    need="example",
    reason="The ID Token names the FHIR resource of the user. "
    "Add the scopes of APIs that you call.",
)
_TOKEN_ENDPOINT_AUDIENCE = RecipeOption(
    name="client_assertion_audience",
    value="token_endpoint",
    need="required",
    reason="The audience of client assertions is the token endpoint (W012).",
)
_FHIR_SERVER = "The FHIR server. Without this parameter the request is refused."

RECORD_SYSTEMS = (
    KnownProvider(
        name="Epic",
        slug="epic",
        marks=(("jwks_uri", r"/api/epic/20\d\d/"),),
        recipe=Recipe(
            issuer="https://fhir.epic.com/interconnect-fhir-oauth/oauth2",
            issuer_note="That of the sandbox. Each organization has its own: "
            "the base URL of its OAuth endpoints.",
            client_key_type="P-384",
            options=(
                _TOKEN_ENDPOINT_AUDIENCE,
                RecipeOption(
                    name="authorization_parameters",
                    value={"aud": "https://fhir.epic.com/interconnect-fhir-oauth/api/FHIR/R4"},
                    need="example",
                    reason=_FHIR_SERVER,
                ),
                _FHIR_USER,
                PUBLIC_SUBJECTS,
                NO_REAUTHENTICATION,
                NO_REVOCATION,
            ),
        ),
    ),
    KnownProvider(
        name="Oracle Health",
        slug="oracle-health",
        marks=(("issuer", r"^https://authorization\.(sandbox)?cerner\.com/"),),
        recipe=Recipe(
            issuer="https://authorization.cerner.com/oidc/idsps/ec2458f2-1e24-41c8-b71b-0e701af7583d/",
            issuer_note="As in the ID Tokens of your tenant; this one is the sandbox.",
            client_key_type="P-384",
            options=(
                RecipeOption(
                    name="metadata_url",
                    value="https://fhir-myrecord.cerner.com/r4/ec2458f2-1e24-41c8-b71b-0e701af7583d"
                    "/.well-known/smart-configuration",
                    need="example",
                    reason="It has a SMART document in place of OpenID Connect Discovery.",
                ),
                RecipeOption(
                    name="metadata_issuer",
                    value="https://authorization.cerner.com/tenants/ec2458f2-1e24-41c8-b71b-0e701af7583d",
                    need="example",
                    reason="The document names another issuer than ID Tokens (W120).",
                ),
                RecipeOption(
                    name="metadata_overrides",
                    value={
                        "id_token_signing_alg_values_supported": ["RS256"],
                        "subject_types_supported": ["public"],
                    },
                    need="example",
                    reason="The document does not list these (W045).",
                ),
                _TOKEN_ENDPOINT_AUDIENCE,
                RecipeOption(
                    name="authorization_parameters",
                    value={
                        "aud": "https://fhir-myrecord.cerner.com/r4/ec2458f2-1e24-41c8-b71b-0e701af7583d"
                    },
                    need="example",
                    reason=_FHIR_SERVER,
                ),
                _FHIR_USER,
                PUBLIC_SUBJECTS,
                NO_REAUTHENTICATION,
            ),
        ),
    ),
    KnownProvider(
        name="UDAP",
        slug="udap",
        marks=(("udap_versions_supported", "^1$"),),
        recipe=Recipe(
            issuer="https://udap.example.org",
            issuer_note="Of the authorization server, as in the metadata of OpenID Connect.",
            client_key_type="RSA",
            needs_certificate=True,
            options=(
                RecipeOption(
                    name="client_key_header",
                    value="x5c",
                    need="required",
                    reason="Client assertions contain the certificate.",
                ),
                RecipeOption(
                    name="udap",
                    value=True,
                    need="required",
                    reason="Client assertions are those of UDAP.",
                ),
                RecipeOption(
                    name="token_endpoint_auth_signing_alg",
                    value="RS256",
                    reason="The only algorithm that each server must support (W011).",
                ),
                _TOKEN_ENDPOINT_AUDIENCE,
                PUBLIC_SUBJECTS,
                NO_REAUTHENTICATION,
                NO_REVOCATION,
            ),
        ),
    ),
)
