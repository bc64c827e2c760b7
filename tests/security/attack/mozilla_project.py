"""Attacks a project that uses mozilla-django-oidc without this app's sign-in. Prints JSON lines.

Run by test_mozilla_django_oidc.py in a separate process.
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


def configure(directory: Path) -> None:
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
            # Only for the audit tables, which stay empty here.
            "django_phi_oidc",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
        ],
        AUTHENTICATION_BACKENDS=["mozilla_django_oidc.auth.OIDCAuthenticationBackend"],
        DATABASES={
            alias: {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / f"{alias}.sqlite3")}
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
    """Run the attacks on CODES and print the outcomes."""
    configure(Path(sys.argv[1]))
    django.setup()
    from django_phi_oidc.config.claims import ClaimDeclaration  # noqa: PLC0415
    from django_phi_oidc.config.providers import ProviderDeclaration  # noqa: PLC0415
    from django_phi_oidc.testing.attack.environment import PORTAL_URL, Portal  # noqa: PLC0415
    from django_phi_oidc.testing.attack.environment_setup import set_up_attack_environment  # noqa: PLC0415
    from django_phi_oidc.testing.attack.report import render_json  # noqa: PLC0415
    from django_phi_oidc.testing.attack.suite import list_attacks, run_attacks  # noqa: PLC0415
    from django_phi_oidc.testing.mock_provider import Client, DemoProvider  # noqa: PLC0415 -- needs Django

    class MozillaPortal(Portal):
        """Connects mozilla-django-oidc to the provider. It has no audit log, and redirects after a refusal."""

        refusal_statuses = (302, 400, 403)

        def build_settings(self, op: DemoProvider, *, ca_bundle: str, options: Mapping[str, Any]) -> dict[str, Any]:
            os.environ["REQUESTS_CA_BUNDLE"] = ca_bundle
            endpoints = {"AUTHORIZATION": "authorize", "TOKEN": "token", "USER": "userinfo", "JWKS": "jwks"}
            return {f"OIDC_OP_{name}_ENDPOINT": f"{op.issuer}/{path}" for name, path in endpoints.items()}

        def create_registration(self) -> Client:
            redirect_uri = f"{PORTAL_URL}{reverse('oidc_authentication_callback')}"
            return Client("portal", "s3cret", [redirect_uri], require_pkce=False)

        def mark_refusals_seen(self) -> None:
            """Do nothing: there is no audit log."""

        def find_refusal_code(self) -> None:
            return None

    declaration = ProviderDeclaration(
        name="default", issuer="https://op.example", client_id="portal", id_token_signed_response_alg=("RS256",)
    )
    email = ClaimDeclaration(name="email", purpose="TREAT", basis="tests", retention=timedelta(days=1))
    attacks = [attack for attack in list_attacks(declaration, claim_names=["email"]) if attack.code in CODES]
    with set_up_attack_environment(MozillaPortal("default", {}, declaration), {"email": email}) as environment:
        for outcome in run_attacks(attacks, environment):
            print(render_json(outcome), flush=True)


if __name__ == "__main__":
    main()
