"""The kit on a project of mozilla-django-oidc as it comes, without this app's sign-in: JSON on standard output.

Run by test_stock.py in a process of its own.
"""

import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from django.urls import reverse

CODES = (
    *("iss_invalid", "aud_invalid", "azp_invalid", "exp_invalid", "nonce_invalid", "signature_invalid"),
    *("alg_not_allowed", "token_malformed", "token_error", "sub_not_pairwise", "at_hash_invalid", "key_not_found"),
    *("userinfo_sub_mismatch", "iss_mismatch", "iss_missing", "state_replayed", "state_unknown", "user_inactive"),
    *("transport_redirect", "transport_tls", "forged_next", "session_fixation", "stolen_refresh_token"),
)


def configure(folder: Path) -> None:
    settings.configure(
        SECRET_KEY="a key for tests only",
        ALLOWED_HOSTS=["testserver"],
        USE_TZ=True,
        ROOT_URLCONF="mozilla_django_oidc.urls",
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        INSTALLED_APPS=[
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.sessions",
            "mozilla_django_oidc",
            # For its trail's tables alone, which stay empty here.
            "django_phi_oidc",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        AUTHENTICATION_BACKENDS=["mozilla_django_oidc.auth.OIDCAuthenticationBackend"],
        DATABASES={
            alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / f"{alias}.sqlite3")}
            for alias in ("default", "phi_audit")
        },
        DATABASE_ROUTERS=["django_phi_oidc.audit.router.AuditRouter"],
        LOGIN_REDIRECT_URL="/",
        LOGOUT_REDIRECT_URL="/",
        OIDC_RP_CLIENT_ID="portal",
        OIDC_RP_CLIENT_SECRET="s3cret",
        OIDC_RP_SIGN_ALGO="RS256",
        OIDC_RP_SCOPES="openid email",
        OIDC_OP_AUTHORIZATION_ENDPOINT="",
        OIDC_OP_TOKEN_ENDPOINT="",
        OIDC_OP_USER_ENDPOINT="",
        OIDC_OP_JWKS_ENDPOINT="",
    )


def main() -> None:
    """Run the attacks on CODES and print what comes of them."""
    configure(Path(sys.argv[1]))
    django.setup()
    from django_phi_oidc.config.claims import ClaimDeclaration  # noqa: PLC0415
    from django_phi_oidc.config.providers import ProviderDeclaration  # noqa: PLC0415
    from django_phi_oidc.testing.attack.environment import PORTAL_URL, Portal  # noqa: PLC0415
    from django_phi_oidc.testing.attack.environment_setup import set_up_attack_environment  # noqa: PLC0415
    from django_phi_oidc.testing.attack.report import render_json  # noqa: PLC0415
    from django_phi_oidc.testing.attack.runner import list_attacks, run_attacks  # noqa: PLC0415
    from django_phi_oidc.testing.mock_provider import Client, DemoProvider  # noqa: PLC0415 -- Django is not set up before

    class Stock(Portal):
        """Leads mozilla-django-oidc to the provider; it has no trail, and sends whoever it refuses to a page."""

        refusal_statuses = (302, 400, 403)

        def build_settings(self, op: DemoProvider, *, ca_bundle: str, options: Mapping[str, Any]) -> dict[str, Any]:
            os.environ["REQUESTS_CA_BUNDLE"] = ca_bundle
            endpoints = {"AUTHORIZATION": "authorize", "TOKEN": "token", "USER": "userinfo", "JWKS": "jwks"}
            return {f"OIDC_OP_{name}_ENDPOINT": f"{op.issuer}/{at}" for name, at in endpoints.items()}

        def create_registration(self) -> Client:
            return Client(
                "portal", "s3cret", [f"{PORTAL_URL}{reverse('oidc_authentication_callback')}"], require_pkce=False
            )

        def mark_refusals_seen(self) -> None:
            """There is no trail."""

        def find_refusal_code(self) -> None:
            return None

    parsed = ProviderDeclaration(
        name="default", issuer="https://op.example", client_id="portal", id_token_signed_response_alg=("RS256",)
    )
    email = ClaimDeclaration(name="email", purpose="TREAT", basis="tests", retention=timedelta(days=1))
    attacks = [attack for attack in list_attacks(parsed, claim_names=["email"]) if attack.code in CODES]
    with set_up_attack_environment(Stock("default", {}, parsed), {"email": email}) as scene:
        for outcome in run_attacks(attacks, scene):
            print(render_json(outcome), flush=True)


if __name__ == "__main__":
    main()
