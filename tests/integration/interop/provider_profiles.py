"""The providers of docs/benchmarks/provider-interop.md: the software that stands for each, and what is asserted.

The portal is configured by the recipe of `phi_oidc init --provider`, and what oidc-provider publishes in place of a
service has the members of tests/support/published_metadata.py.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any, Literal
from urllib.parse import urlsplit

from django_phi_oidc.contrib.doctor.known_providers import PROVIDERS_BY_SLUG
from django_phi_oidc.contrib.doctor.known_providers.definitions import Recipe
from tests.support.provider_recipes import build_declaration
from tests.support.published_metadata import PUBLISHED

Logout = Literal["with state", "without state", "at the portal only"]


@dataclass(frozen=True, kw_only=True)
class ProviderProfile:
    """A provider, the software that runs in its place, and what a sign-in, refresh and logout there lead to."""

    slug: str
    """For `phi_oidc init`, if it has a recipe; after a colon, what differs from the recipe."""
    name: str
    software: Literal[
        "oidc-provider", "Glewlwyd", "LemonLDAP::NG", "django-oauth-toolkit", "allauth", "Authlib", "spid_cie_oidc"
    ]
    configuration: Mapping[str, Any] = field(default_factory=dict)
    """Of the software: provider.mjs and imitation.mjs document it."""
    registration: Mapping[str, Any] = field(default_factory=dict)
    """Client metadata of the portal there."""
    changes: Mapping[str, Any] = field(default_factory=dict)
    """Options of the portal that the recipe does not have, or that it calls an example."""
    omitted_option: str = ""
    """Of the recipe, to show that it is needed."""
    optional: frozenset[str] = frozenset()
    """Options of the recipe without which a sign-in succeeds too."""
    has_claims: bool = True
    """Whether it has one of the claims that the portal declares."""
    assurance: Mapping[str, Any] = field(default_factory=lambda: {"max_age": timedelta(minutes=5)})
    """Arguments of `require_assurance` of the page that requires a step-up."""
    acr: tuple[str, str] = ("", "")
    """After the sign-in, and after the step-up; the vector of trust, where there is one."""
    no_step_up: str = ""
    """Why there is no step-up."""
    step_up_refusal: str = "auth_time_missing"
    """Reason of the event `login.refused` then."""
    no_refresh: str = ""
    """Why there is no refresh token."""
    logout: Logout = "with state"
    """How the browser returns to the portal."""
    logout_click: bool = False
    """Whether the portal asks before: the provider may need a hint, which is not sent."""
    live_tokens: Mapping[str, str] = field(default_factory=dict)
    """Tokens that the provider still accepts after the logout, by kind, and why."""
    failed_revocations: frozenset[str] = frozenset()
    """Reasons of the events `token.revocation_failed`."""
    not_imitated: str = ""
    """What the software cannot imitate."""

    @property
    def recipe(self) -> Recipe | None:
        known = PROVIDERS_BY_SLUG.get(self.slug.partition(":")[0])
        return known.recipe if known else None

    @property
    def options(self) -> dict[str, Any]:
        """Return the options of the portal besides issuer, client id, secret and keys."""
        method, options = {}, {}
        if self.recipe:
            options = {option.name: option.value for option in self.recipe.options}
            if self.recipe.client_key_type:
                method = {"token_endpoint_auth_method": self.recipe.key_auth_method}
        options = {**method, **options, **self.changes}
        options.pop(self.omitted_option, None)
        return options

    @property
    def declaration(self) -> dict[str, Any]:
        """Return all options, with the issuer of the recipe, and keys or a secret of the tests."""
        recipe, options = self.recipe, self.options
        if recipe is None:
            return {"client_id": "portal", "client_secret": "", **options}
        if "client_key_header" in self.changes:
            recipe = replace(recipe, client_key_type="RSA", needs_certificate=True)
        return build_declaration(replace(recipe, options=()), **options)

    @property
    def hosts(self) -> set[str]:
        """Return the hosts of the original in the declaration."""
        issuer = self.recipe.issuer if self.recipe else ""
        return set(re.findall(r'"https://([\w.-]+(?::443)?)', json.dumps([issuer, self.options]))) - {"your.host"}

    @property
    def is_pushed(self) -> bool:
        return self.configuration.get("par") == "offered"


def imitate(
    slug: str,
    name: str,
    *,
    levels: Mapping[str, str] | None = None,
    imitation: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    registration: Mapping[str, Any] | None = None,
    refresh_unasked: bool = False,
    trust_mark: str = "",
    fapi2: bool = False,
    **profile: Any,
) -> ProviderProfile:
    """Return the profile of a provider that oidc-provider imitates, with what its published metadata says.

    options: of oidc-provider. registration: what differs from RS256 and from the recipe.
    """
    published = PUBLISHED[slug.partition(":")[0]]
    features = {
        "dPoP": {"enabled": "dpop_signing_alg_values_supported" in published},
        "encryption": {"enabled": "id_token_encryption_alg_values_supported" in published},
        "userinfo": {"enabled": "userinfo_endpoint" in published},
        "revocation": {"enabled": "revocation_endpoint" in published},
        "rpInitiatedLogout": {"enabled": "end_session_endpoint" in published},
    }
    if "userinfo_endpoint" not in published:
        features["jwtUserinfo"] = {"enabled": False}
    row = ProviderProfile(slug=slug, name=name, software="oidc-provider", **profile)
    declared = row.options
    client = {name: declared[name] for name in CLIENT_METADATA if declared.get(name)}
    for kind in ("id_token", "userinfo"):
        if algs := declared.get(f"{kind}_encrypted_response_alg"):
            enc = declared.get(f"{kind}_encrypted_response_enc", ["A256GCM"])[-1]
            client |= {f"{kind}_encrypted_response_alg": algs[0], f"{kind}_encrypted_response_enc": enc}
    if declared.get("dpop") == "require":
        client["dpop_bound_access_tokens"] = True
    if not row.no_refresh:
        client["grant_types"] = ["authorization_code", "refresh_token"]
    return replace(
        row,
        configuration={
            "issuer_path": urlsplit(row.recipe.issuer).path if row.recipe else "",
            "levels": levels or {},
            "options": {**(options or {}), "features": features, "enabledJWA": ALGORITHMS},
            "par": "offered" if "pushed_authorization_request_endpoint" in published else "off",
            "refresh_unasked": refresh_unasked,
            "trust_mark": trust_mark,
            "fapi2": fapi2,
            "imitation": {"metadata": published, **(imitation or {})},
        },
        registration={"id_token_signed_response_alg": "RS256", **client, **(registration or {})},
    )


CLIENT_METADATA = ("subject_type", "token_endpoint_auth_method", "token_endpoint_auth_signing_alg")
SIGNATURES = [f"{family}{bits}" for family in ("RS", "PS", "ES") for bits in (256, 384, 512)]
ENCRYPTIONS = ["RSA-OAEP-256", "ECDH-ES", "ECDH-ES+A256KW"]
ALGORITHMS = {
    **{f"{use}SigningAlgValues": SIGNATURES for use in ("clientAuth", "idToken", "userinfo")},
    **{f"{use}EncryptionAlgValues": ENCRYPTIONS for use in ("idToken", "userinfo")},
}
OFFLINE_ACCESS = {"offline_access": {"purpose": "TREAT", "basis": "results that arrive while the person is away"}}
KEYCLOAK_ROUTES = {
    "authorization": "/protocol/openid-connect/auth",
    "token": "/protocol/openid-connect/token",
    "end_session": "/protocol/openid-connect/logout",
    "pushed_authorization_request": "/protocol/openid-connect/ext/par/request",
}
NAMES_IN_ID_TOKEN = {"conformIdTokenClaims": False}
UNSUPPORTED = frozenset({"revocation_unsupported"})
NO_REVOCATION = {
    "live_tokens": {"access_token": "no revocation endpoint"},
    "failed_revocations": UNSUPPORTED,
}
NO_REVOCATION_OF_BOTH = {
    "live_tokens": dict.fromkeys(("access_token", "refresh_token"), "no revocation endpoint"),
    "failed_revocations": UNSUPPORTED,
}
LOA2, LOA3 = (f"urn:singpass:authentication:loa:{level}" for level in (2, 3))
AAL2, AAL3 = "AAL2_OR_AAL3_ANY", "AAL3_ANY"
ONE_FACTOR, TWO_FACTORS = "urn:okta:loa:1fa:any", "urn:okta:loa:2fa:any"
MULTI_FACTOR = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"
IAL2 = "http://idmanagement.gov/ns/assurance/ial/2/aal/2"

FHIR_USER = {
    "scopes": ["openid", "fhirUser", "offline_access"],
    "claims": {"fhirUser": ["fhirUser"], "profile": [], "address": []},
    "extraParams": ["aud"],
}
FHIR_SCOPES = {"fhirUser": {"purpose": "PATRQT", "basis": "sign-in of the patient"}, **OFFLINE_ACCESS}

PROFILES = (
    imitate(
        "nhs-login",
        "NHS login",
        levels={"weak": "P5.Cp.Cd", "strong": "P9.Cp.Cd"},
        options={"claims": {"openid": ["sub", "vot", "vtm"]}, "extraParams": ["vtr"]},
        trust_mark="https://auth.login.nhs.uk/trustmark/auth.login.nhs.uk",
        imitation={"assertion_audience": "/token", "required_parameters": {"/auth": ["vtr"]}},
        registration={"id_token_signed_response_alg": "RS512"},
        changes={"vtr": ["P5.Cp.Cd", "P9.Cp.Cd"]},
        assurance={"vot": ["P9"]},
        acr=("P5.Cp.Cd", "P9.Cp.Cd"),
        no_refresh="not documented",
        logout="at the portal only",
        **NO_REVOCATION,
    ),
    imitate(
        "psc",
        "Pro Santé Connect",
        levels={"weak": "eidas1"},
        options={"routes": KEYCLOAK_ROUTES, "scopes": ["openid", "scope_all"]},
        imitation={
            "metadata_path": "/.well-known/wallet-openid-configuration",
            "endpoint_host": "127.0.0.1",
            "required_parameters": {"/protocol/openid-connect/auth": ["acr_values"]},
        },
        refresh_unasked=True,
        optional=frozenset({"subject_type"}),
        acr=("eidas1", "eidas1"),
        **NO_REVOCATION_OF_BOTH,
        not_imitated="the smartphone or card of the professional",
    ),
    imitate(
        "epic",
        "Epic",
        options=FHIR_USER,
        imitation={
            "assertion_audience": "/token",
            "omitted_claims": ["auth_time"],
            "required_parameters": {"/auth": ["aud"]},
        },
        changes={"resource_scopes": FHIR_SCOPES},
        has_claims=False,
        no_step_up="it sends neither `acr` nor `auth_time`",
        logout="at the portal only",
        **NO_REVOCATION_OF_BOTH,
        not_imitated="the FHIR server; a launch from within the EHR",
    ),
    imitate(
        "oracle-health",
        "Oracle Health",
        options=FHIR_USER,
        imitation={
            "metadata_path": "/r4/ec2458f2-1e24-41c8-b71b-0e701af7583d/.well-known/smart-configuration",
            "metadata_issuer": True,
            "assertion_audience": "/token",
            "omitted_claims": ["auth_time"],
            "required_parameters": {"/auth": ["aud"]},
        },
        changes={"resource_scopes": FHIR_SCOPES},
        has_claims=False,
        no_step_up="it sends neither `acr` nor `auth_time`",
        logout="at the portal only",
        not_imitated="whether ID Tokens have the `nonce`",
    ),
    imitate(
        "singpass",
        "Singpass",
        levels={"weak": LOA2, "strong": LOA3},
        options={"extraParams": ["authentication_context_type"]},
        fapi2=True,
        imitation={"omitted_claims": ["auth_time"]},
        registration={
            "id_token_signed_response_alg": "ES256",
            "userinfo_signed_response_alg": "ES256",
            "token_endpoint_auth_signing_alg": "ES256",
        },
        optional=frozenset({"acr_values", "authorization_parameters", "id_token_signed_response_alg"}),
        assurance={"acr": [LOA3]},
        acr=(LOA2, LOA3),
        no_refresh="it accepts codes only",
        logout="at the portal only",
        **NO_REVOCATION,
        not_imitated="the smartphone app",
    ),
    imitate(
        "udap",
        "UDAP",
        imitation={"assertion_audience": "/token", "assertion_header": ["x5c"], "omitted_claims": ["auth_time"]},
        no_step_up="it requires neither `acr` nor `auth_time`",
        no_refresh="depends on the server",
        logout="at the portal only",
        **NO_REVOCATION,
        not_imitated="the trust community, and registration by a software statement",
    ),
    imitate(
        "cis2",
        "NHS CIS2",
        levels={"weak": AAL2, "strong": AAL3},
        imitation={"required_parameters": {"/session/end": ["id_token_hint"]}},
        changes={"acr_values": [AAL2]},
        optional=frozenset({"acr_values", "subject_type", "token_endpoint_auth_method"}),
        assurance={"acr": [AAL3]},
        acr=(AAL2, AAL3),
        no_refresh="unless it is agreed",
        not_imitated="the port `:443` in the issuer; smartcards",
    ),
    imitate(
        "franceconnect",
        "FranceConnect",
        levels={"weak": "eidas1"},
        imitation={"required_parameters": {"/auth": ["acr_values"], "/session/end": ["id_token_hint"]}},
        registration={"id_token_signed_response_alg": "ES256", "userinfo_signed_response_alg": "ES256"},
        optional=frozenset({"id_token_signed_response_alg"}),
        acr=("eidas1", "eidas1"),
        no_refresh="it issues none",
        **NO_REVOCATION,
        not_imitated="the choice of an identity provider",
    ),
    imitate(
        "okta",
        "Okta",
        levels={"weak": ONE_FACTOR, "strong": TWO_FACTORS},
        options=NAMES_IN_ID_TOKEN,
        imitation={"required_parameters": {"/session/end": ["id_token_hint"]}},
        changes={"resource_scopes": OFFLINE_ACCESS},
        assurance={"acr": [TWO_FACTORS]},
        acr=("", TWO_FACTORS),
    ),
    imitate(
        "auth0",
        "Auth0",
        levels={"weak": "", "strong": MULTI_FACTOR},
        options=NAMES_IN_ID_TOKEN,
        imitation={"access_token_revocation": "ignored", "revokes_grant": False},
        changes={"resource_scopes": OFFLINE_ACCESS},
        assurance={"acr": [MULTI_FACTOR]},
        acr=("", MULTI_FACTOR),
        logout_click=True,
        live_tokens={"access_token": "Auth0 revokes refresh tokens only"},
    ),
    imitate(
        "entra",
        "Microsoft Entra ID",
        options=NAMES_IN_ID_TOKEN,
        registration={"require_auth_time": True},
        changes={"resource_scopes": OFFLINE_ACCESS},
        logout_click=True,
        **NO_REVOCATION_OF_BOTH,
    ),
    imitate(
        "entra:certificate",
        "Microsoft Entra ID, by certificate",
        options=NAMES_IN_ID_TOKEN,
        imitation={"assertion_header": ["x5t#S256"]},
        registration={"require_auth_time": True},
        changes={
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": "PS256",
            "client_key_header": "x5t#S256",
            "resource_scopes": OFFLINE_ACCESS,
        },
        logout_click=True,
        **NO_REVOCATION_OF_BOTH,
    ),
    imitate(
        "cognito",
        "Amazon Cognito",
        options={**NAMES_IN_ID_TOKEN, "rotateRefreshToken": False},
        imitation={
            "access_token_revocation": "refused",
            "logout_uri_parameter": "logout_uri",
            "required_parameters": {"/session/end": ["client_id", "logout_uri"]},
        },
        registration={"require_auth_time": True},
        refresh_unasked=True,
        logout="without state",
        failed_revocations=frozenset({"unsupported_token_type"}),
    ),
    imitate(
        "google",
        "Google",
        imitation={"accepted_prompts": ["none", "consent", "select_account"], "omitted_claims": ["auth_time"]},
        optional=frozenset({"authorization_parameters"}),
        refresh_unasked=True,
        no_step_up="it sends neither `acr` nor `auth_time`",
        logout="at the portal only",
        not_imitated="`access_type=offline`",
    ),
    imitate(
        "id-me",
        "ID.me",
        imitation={"omitted_claims": ["auth_time"]},
        options={"scopes": ["openid", IAL2], "claims": {IAL2: ["birthdate"], "profile": [], "address": []}},
        no_step_up="it sends neither `acr` nor `auth_time`",
        no_refresh="not documented",
        logout="at the portal only",
        **NO_REVOCATION,
    ),
    imitate(
        "clear",
        "CLEAR",
        options=NAMES_IN_ID_TOKEN,
        imitation={"omitted_claims": ["auth_time"]},
        changes={"resource_scopes": OFFLINE_ACCESS},
        logout_click=True,
        no_step_up="it lists neither `acr` nor `auth_time`",
    ),
    imitate(
        "keycloak",
        "Keycloak",
        levels={"weak": "silver", "strong": "gold"},
        options={"routes": KEYCLOAK_ROUTES},
        refresh_unasked=True,
        assurance={"acr": ["gold"]},
        acr=("", "gold"),
        not_imitated="the raw `sub` in logout tokens up to 26.1",
    ),
    imitate(
        "login-gov",
        "login.gov",
        levels={"weak": "urn:acr.login.gov:auth-only", "strong": "urn:acr.login.gov:verified"},
        imitation={
            "accepted_prompts": ["select_account"],
            "assertion_audience": "/token",
            "omitted_claims": ["auth_time"],
            "required_parameters": {"/auth": ["acr_values", "prompt"]},
            "refused_parameters": {"/session/end": ["id_token_hint"]},
        },
        assurance={"acr": ["urn:acr.login.gov:verified"]},
        acr=("urn:acr.login.gov:auth-only", "urn:acr.login.gov:verified"),
        no_refresh="it issues none",
        **NO_REVOCATION,
        not_imitated="RISC events",
    ),
    ProviderProfile(
        slug="glewlwyd",
        name="Glewlwyd 2.7",
        software="Glewlwyd",
        changes={
            # Its auth_time is always 0.
            "allow_auth_time_zero": True,
            # A logout without the hint ends on an empty page.
            "id_token_hint": "always",
            "allow_logout_token_without_exp": True,
        },
        no_step_up="its `auth_time` is always 0",
        step_up_refusal="auth_time_stale",
    ),
    ProviderProfile(
        slug="llng",
        name="LemonLDAP::NG 2.21",
        software="LemonLDAP::NG",
        changes={"subject_type": "public", "revocation": "best_effort", "allow_logout_token_without_exp": True},
        acr=("loa-2", "loa-2"),
        has_claims=False,
        **NO_REVOCATION_OF_BOTH,
    ),
    ProviderProfile(
        slug="dot",
        name="django-oauth-toolkit 3.4",
        software="django-oauth-toolkit",
        # A logout asks the user for confirmation, with and without the hint.
        changes={"subject_type": "public", "id_token_hint": "never"},
    ),
    ProviderProfile(
        slug="allauth",
        name="django-allauth 65",
        software="allauth",
        changes={
            "subject_type": "public",
            "token_endpoint_auth_method": "client_secret_post",
            "id_token_hint": "never",
        },
        has_claims=False,
        no_step_up="it sends neither `acr` nor `auth_time`",
    ),
    ProviderProfile(
        slug="authlib",
        name="Authlib 1.9",
        software="Authlib",
        changes={"subject_type": "public", "token_endpoint_auth_method": "client_secret_post"},
    ),
)

FEDERATED_PROFILE = ProviderProfile(
    slug="spid-cie",
    name="SPID / CIE",
    software="spid_cie_oidc",
    registration={
        "token_endpoint_auth_signing_alg": "ES256",
        "userinfo_signed_response_alg": "RS256",
        "userinfo_encrypted_response_alg": "RSA-OAEP-256",
    },
    no_step_up="not tested",
    no_refresh="not tested",
    logout="at the portal only",
    not_imitated="claims: its UserInfo lacks `iss` and `aud`, which the rules require; trust marks; an intermediate",
)
"""Of a federation: spid_cie/test_spid_cie.py asserts it."""
