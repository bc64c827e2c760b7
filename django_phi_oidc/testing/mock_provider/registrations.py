"""Who the demo provider knows: its clients, its people, its certificate."""

from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

ClientAuthMethod = Literal["client_secret_basic", "client_secret_post", "private_key_jwt"]

DEMO_CLIENT_SECRET = "demo-secret-not-for-production"


@dataclass(frozen=True, slots=True)
class Client:
    """One registered relying party. Names are those of RFC 7591."""

    client_id: str
    client_secret: str = field(repr=False)
    redirect_uris: Sequence[str] = ()
    _: KW_ONLY
    client_name: str = ""
    post_logout_redirect_uris: Sequence[str] = ()
    backchannel_logout_uri: str = ""
    sector_identifier: str = ""
    """Host that stands for this client in pairwise subjects; empty: the host of its redirect URIs."""
    token_endpoint_auth_methods: Sequence[ClientAuthMethod] = ("client_secret_basic", "client_secret_post")
    token_endpoint_auth_signing_alg: str = ""
    """Of client assertions; empty: any of the four."""
    jwks: Mapping[str, Any] | None = field(default=None, repr=False)
    """The client's public keys, for `private_key_jwt`; without them they are fetched from jwks_uri."""
    jwks_uri: str = ""
    grant_types: Sequence[str] = ("authorization_code", "refresh_token")
    userinfo_signed_response_alg: str = ""
    """Empty: UserInfo is plain JSON."""
    require_pkce: bool = True
    """Otherwise a request without a challenge is taken; one with a challenge is held to it."""

    def get_sector_identifier(self) -> str:
        """Return the host for which this client's subjects are made.

        Raises: ValueError when the redirect URIs have several hosts and no sector identifier says which one counts.
        Spec: OIDC Core 8.1.
        """
        if self.sector_identifier:
            return self.sector_identifier
        hosts = {urlsplit(uri).hostname or "" for uri in self.redirect_uris}
        if len(hosts) != 1:
            raise ValueError(
                f"Client {self.client_id} needs a sector_identifier: its redirect URIs have several hosts."
            )
        return hosts.pop()


@dataclass(frozen=True, slots=True)
class Resource:
    """An API that takes this provider's access tokens. Spec: RFC 8707, RFC 9068."""

    identifier: str
    """What a client asks for by `resource`, and what `aud` of its access token then is."""
    scopes: Sequence[str] = ()
    _: KW_ONLY
    issues_jwt: bool = True
    """Otherwise its tokens say nothing, and introspection does."""


@dataclass(frozen=True, slots=True)
class Account:
    """One invented person. The password is shown on the login page: there is nothing here to protect."""

    username: str
    password: str
    _: KW_ONLY
    claims: Mapping[str, Any] = field(default_factory=dict, repr=False)
    acr: str = "urn:example:loa:2"
    """What a sign-in with this account reaches."""
    step_up_acr: str = ""
    """What it reaches where acr_values ask for that, as if a second factor had been given."""


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """Paths of a PEM certificate chain and of its private key."""

    certificate_path: str | Path
    key_path: str | Path


def demo_accounts() -> tuple[Account, ...]:
    """Return the two people of the demo; both are invented."""
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
    """Return a clinician and a privacy officer of the demo, invented too; the clinic's provider says what they are."""
    return (
        Account(
            "lena",
            "lena-demo",
            step_up_acr="urn:example:loa:3",
            claims={"name": "Lena Haddad", "preferred_username": "lena", "roles": ["clinician"]},
        ),
        Account(
            "otto",
            "otto-demo",
            step_up_acr="urn:example:loa:3",
            claims={"name": "Otto Lindgren", "preferred_username": "otto", "roles": ["privacy-officer"]},
        ),
    )


def demo_client(base_url: str) -> Client:
    """Return the registration of the example portal that is served at base_url, under its documented URLs."""
    base = base_url.rstrip("/")
    return Client(
        "phi-portal",
        DEMO_CLIENT_SECRET,
        [f"{base}/oidc/callback/"],
        client_name="Patient portal",
        post_logout_redirect_uris=[f"{base}/oidc/logged-out/", f"{base}/"],
        backchannel_logout_uri=f"{base}/oidc/backchannel-logout/",
    )
