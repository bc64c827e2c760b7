"""Providers that are recognized by their metadata, and what their documentation says about logout. No Django."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownProvider:
    """A product or service whose deviations are known."""

    name: str
    member: str
    """The member of the metadata that identifies it."""
    pattern: str
    """What that member contains."""
    requires_id_token_hint: bool = False
    """A logout request without `id_token_hint` ends on an error page or an empty page."""
    required_end_session_parameter: str = ""
    """A logout request without this parameter ends on an error page."""
    has_raw_logout_sub: bool = False
    """Some versions put the id of the user into `sub` of logout tokens to pairwise clients."""


KNOWN_PROVIDERS = (
    KnownProvider(
        name="Amazon Cognito",
        member="issuer",
        pattern=r"^https://cognito-idp\.[a-z0-9-]+\.amazonaws\.com/",
        required_end_session_parameter="logout_uri",
    ),
    KnownProvider(name="Auth0", member="issuer", pattern=r"^https://[a-z0-9.-]+\.auth0\.com/"),
    KnownProvider(
        name="Glewlwyd",
        member="end_session_endpoint",
        pattern=r"/api/[\w-]+/end_session$",
        requires_id_token_hint=True,
    ),
    KnownProvider(
        name="Keycloak",
        member="authorization_endpoint",
        pattern="/protocol/openid-connect/auth$",
        has_raw_logout_sub=True,
    ),
    KnownProvider(name="LemonLDAP::NG", member="end_session_endpoint", pattern=r"^https://[^/]+/oauth2/logout$"),
    KnownProvider(
        name="login.gov", member="issuer", pattern=r"^https://(secure\.login|idp\.int\.identitysandbox)\.gov/"
    ),
    KnownProvider(name="Microsoft Entra ID", member="issuer", pattern=r"^https://login\.microsoftonline\.com/"),
    KnownProvider(
        name="Okta",
        member="issuer",
        pattern=r"^https://[a-z0-9-]+\.okta(preview|-emea|-gov)?\.com(/|$)",
        requires_id_token_hint=True,
    ),
    KnownProvider(
        name="Spring Authorization Server",
        member="end_session_endpoint",
        pattern="/connect/logout$",
        requires_id_token_hint=True,
    ),
)


def find_known_provider(members: Mapping[str, Any]) -> KnownProvider | None:
    """Return the provider with these metadata; None if it is not known."""
    for known in KNOWN_PROVIDERS:
        value = members.get(known.member)
        if isinstance(value, str) and re.search(known.pattern, value):
            return known
    return None
