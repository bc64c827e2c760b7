"""The registered clients, APIs and accounts of the demo provider, and its certificate."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

ClientAuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]

DEMO_CLIENT_SECRET = "demo-secret-not-for-production"


@dataclass(frozen=True, slots=True)
class Client:
    """A registered relying party. Field names are those of RFC 7591."""

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uris: Sequence[str] = ()
    _: KW_ONLY
    client_name: str = ""
    post_logout_redirect_uris: Sequence[str] = ()
    backchannel_logout_uri: str = ""
    sector_identifier: str = ""
    """The host that identifies the sector in pairwise subjects; empty: the host of the redirect
    URIs.
    """
    token_endpoint_auth_methods: Sequence[ClientAuthMethod] = (
        "client_secret_basic",
        "client_secret_post",
    )
    token_endpoint_auth_signing_alg: str = ""
    """The algorithm of client assertions; empty: any that is supported."""
    jwks: Mapping[str, Any] | None = field(default=None, repr=False)
    """The client's public keys for `private_key_jwt` and encryption; None: fetch them from
    jwks_uri.
    """
    jwks_uri: str = ""
    grant_types: Sequence[str] = ("authorization_code", "refresh_token")
    userinfo_signed_response_alg: str = ""
    """Empty: UserInfo is plain JSON."""
    id_token_encrypted_response_alg: str = ""
    """Empty: ID Tokens and logout tokens are not encrypted; otherwise with the first key of this
    client that fits.
    """
    id_token_encrypted_response_enc: str = "A256GCM"
    userinfo_encrypted_response_alg: str = ""
    """Empty: UserInfo is not encrypted. Requires userinfo_signed_response_alg."""
    userinfo_encrypted_response_enc: str = "A256GCM"
    require_pkce: bool = True
    """If false, a request without a challenge is accepted; a challenge is still verified."""

    def get_sector_identifier(self) -> str:
        """Return the host that identifies the sector of this client.

        Raises: ValueError if the redirect URIs have several hosts and there is no
        sector_identifier.
        Spec: OIDC Core 8.1.
        """
        if self.sector_identifier:
            return self.sector_identifier
        hosts = set()
        for uri in self.redirect_uris:
            hosts.add(urlsplit(uri).hostname or "")
        if len(hosts) != 1:
            raise ValueError(
                f"Client {self.client_id} needs a sector_identifier: "
                "its redirect URIs have several hosts."
            )
        return hosts.pop()


@dataclass(frozen=True, slots=True)
class Resource:
    """An API that accepts this provider's access tokens. Spec: RFC 8707, RFC 9068."""

    identifier: str
    """The value of the `resource` parameter, and `aud` of the access token."""
    scopes: Sequence[str] = ()
    _: KW_ONLY
    issues_jwt: bool = True
    """If false, the tokens are opaque and the API must introspect them."""


@dataclass(frozen=True, slots=True)
class Account:
    """An invented user. The password is shown on the login page."""

    username: str
    password: str
    _: KW_ONLY
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    acr: str = "urn:example:loa:2"
    """The acr of a sign-in with this account."""
    step_up_acr: str = ""
    """The acr of a sign-in if acr_values request it, as if a second factor had been used."""
    vot: str = ""
    """The vector of trust of a sign-in with this account; empty: ID Tokens have no `vot`. Spec: RFC
    8485.
    """
    step_up_vot: str = ""
    """The vector of trust of a sign-in if `vtr` requests it, and `vot` has not all its
    components.
    """
    amr: Sequence[str] = ()
    """The authentication methods that ID Tokens name. Spec: RFC 8176."""


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Paths of a PEM certificate chain and of its private key."""

    certificate_path: str | Path
    key_path: str | Path


def demo_accounts() -> tuple[Account, ...]:
    """Return the two patients of the demo; both are invented."""
    return (
        Account(
            "amina",
            "amina-demo",
            step_up_acr="urn:example:loa:3",
            claims={
                "name": "Amina Okafor-Lindqvist",
                "given_name": "Amina",
                "family_name": "Okafor-Lindqvist",
                "preferred_username": "amina",
                "gender": "female",
                "birthdate": "1984-03-09",
                "locale": "en",
                "zoneinfo": "Europe/Stockholm",
                "email": "amina.okafor@example.org",
                "email_verified": True,
                "phone_number": "+46 8 555 010 22",
                "phone_number_verified": True,
                "address": {
                    "formatted": "Tulegatan 7B\n113 58 Stockholm\nSweden",
                    "street_address": "Tulegatan 7B",
                    "postal_code": "113 58",
                    "locality": "Stockholm",
                    "country": "SE",
                },
            },
        ),
        Account(
            "jonas",
            "jonas-demo",
            acr="urn:example:loa:3",
            claims={
                "name": "Jonas Brandt",
                "given_name": "Jonas",
                "family_name": "Brandt",
                "preferred_username": "jonas",
                "gender": "male",
                "birthdate": "1971-11-30",
                "locale": "de",
                "zoneinfo": "Europe/Berlin",
                "email": "jonas.brandt@example.org",
                "email_verified": True,
                "phone_number": "+49 30 555 0177",
                "phone_number_verified": False,
                "address": {
                    "formatted": "Lindenufer 12\n13597 Berlin\nGermany",
                    "street_address": "Lindenufer 12",
                    "postal_code": "13597",
                    "locality": "Berlin",
                    "country": "DE",
                },
            },
        ),
    )


def demo_staff() -> tuple[Account, ...]:
    """Return the staff of the demo with their `roles`: a clinician, two officers, the help desk;
    all are invented.
    """
    staff = (
        ("lena", "Lena Haddad", "clinician"),
        ("otto", "Otto Lindgren", "privacy-officer"),
        ("sara", "Sara Moreau", "security-officer"),
        ("hugo", "Hugo Silva", "help-desk"),
    )
    result = []
    for username, name, role in staff:
        result.append(
            Account(
                username,
                f"{username}-demo",
                step_up_acr="urn:example:loa:3",
                claims={"name": name, "preferred_username": username, "roles": [role]},
            )
        )
    return tuple(result)


def demo_client(base_url: str) -> Client:
    """Return the registration of the example portal at base_url."""
    base = base_url.rstrip("/")
    return Client(
        "phi-portal",
        DEMO_CLIENT_SECRET,
        [f"{base}/oidc/callback/"],
        client_name="Patient portal",
        post_logout_redirect_uris=[f"{base}/oidc/logged-out/", f"{base}/"],
        backchannel_logout_uri=f"{base}/oidc/backchannel-logout/",
    )
