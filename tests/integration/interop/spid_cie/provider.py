"""spid_cie_oidc as a trust anchor and an OpenID Provider over TLS: `python provider.py FOLDER CERTIFICATE`.

It runs in the environment of requirements.txt, and imports nothing of this project. FOLDER: for its database.
CERTIFICATE: a PEM file with certificate and key. It prints a line of JSON: its port, and the public keys of the trust
anchor. Then it reads a line of JSON, the relying party that is to be a member: its entity identifier, and its
federation keys; and it serves until it is killed.
"""

import json
import ssl
import sys
from pathlib import Path
from typing import Any

import django
from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application

PASSWORD = "password of amina"
LOGIN_PAGE = (
    '<form method="post" action="{% url "oidc_provider_authnrequest" %}">'
    "{% csrf_token %}{{ form }}{{ hidden_form }}<button>Sign in</button></form>"
)
CONSENT_PAGE = '<form method="post">{% csrf_token %}{{ form }}<button>Allow</button></form>'


class QuietHandler(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def configure(folder: Path, origin: str) -> None:
    pages = {"op_user_login.html": LOGIN_PAGE, "op_user_consent.html": CONSENT_PAGE}
    settings.configure(
        SECRET_KEY="for tests only",
        DEBUG=False,
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF="provider_urls",
        USE_TZ=True,
        TIME_ZONE="UTC",
        STATIC_URL="static/",
        APPEND_SLASH=False,
        AUTH_USER_MODEL="spid_cie_oidc_accounts.User",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "provider.sqlite3"}},
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        OIDCFED_DEFAULT_TRUST_ANCHOR=f"{origin}/ta",
        OIDCFED_TRUST_ANCHORS=[f"{origin}/ta"],
        OIDCFED_PROVIDER_PROFILE="cie",
        OIDCFED_REQUIRED_TRUST_MARKS=[],
        DEFAULT_JWE_ALG="RSA-OAEP-256",
        INSTALLED_APPS=[
            "spid_cie_oidc.accounts",
            *("django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
            *("django.contrib.messages", "django.contrib.staticfiles", "django.contrib.admin"),
            *("spid_cie_oidc.entity", "spid_cie_oidc.authority", "spid_cie_oidc.provider", "djagger"),
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {
                    "loaders": [("django.template.loaders.locmem.Loader", pages)],
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ],
                },
            }
        ],
    )
    django.setup()


def create_entities(origin: str) -> list[dict[str, Any]]:
    """Create the trust anchor and the provider, and return the public keys of the trust anchor."""
    configuration = apps.get_model("spid_cie_oidc_entity", "FederationEntityConfiguration")
    anchor = configuration.objects.create(
        sub=f"{origin}/ta",
        entity_type="federation_entity",
        is_active=True,
        metadata={
            "federation_entity": {
                "federation_fetch_endpoint": f"{origin}/fetch",
                "federation_list_endpoint": f"{origin}/list",
                "organization_name": "Trust anchor",
            }
        },
    )
    issuer = f"{origin}/oidc/op"
    provider = configuration(sub=issuer, entity_type="openid_provider", is_active=True, authority_hints=[anchor.sub])
    # Its UserInfo endpoint looks for the use of each key, which new keys lack.
    provider.jwks_core = [{**key, "use": "sig"} for key in provider.jwks_core]
    endpoints = ("authorization", "token", "userinfo", "introspection", "revocation")
    # Public keys of `jwks_core`, by the function of the software.
    from spid_cie_oidc.entity.jwks import public_jwk_from_private_jwk  # noqa: PLC0415 -- requires configured settings

    provider.metadata = {
        "openid_provider": {
            "issuer": issuer,
            **{f"{name}_endpoint": f"{issuer}/{name}" for name in endpoints},
            "jwks": {"keys": [public_jwk_from_private_jwk(key) for key in provider.jwks_core]},
            "signed_jwks_uri": f"{issuer}/openid_provider/jwks.jose",
            "subject_types_supported": ["pairwise", "public"],
            "id_token_signing_alg_values_supported": ["RS256", "ES256"],
            "userinfo_signing_alg_values_supported": ["RS256"],
            "request_object_signing_alg_values_supported": ["RS256", "ES256"],
            "token_endpoint_auth_methods_supported": ["private_key_jwt", "client_secret_basic"],
            "token_endpoint_auth_signing_alg_values_supported": ["RS256", "ES256"],
            "client_registration_types_supported": ["automatic"],
            "code_challenge_methods_supported": ["S256"],
        }
    }
    provider.save()
    admit(provider.sub, "openid_provider", provider.public_jwks)
    get_user_model().objects.create_user("amina", password=PASSWORD)
    return list(anchor.public_jwks)


def admit(sub: str, entity_type: str, jwks: list[dict[str, Any]]) -> None:
    """Make an entity a subordinate of the trust anchor, with the default metadata policy of its type."""
    authority = apps.get_app_config("spid_cie_oidc_authority")
    configuration = apps.get_model("spid_cie_oidc_entity", "FederationEntityConfiguration")
    member = authority.get_model("FederationDescendant").objects.create(
        sub=sub, name=entity_type, type=entity_type, jwks=jwks, status="valid", is_active=True
    )
    profile = authority.get_model("FederationEntityProfile").objects.create(
        name=entity_type, profile_category=entity_type, profile_id=f"https://localhost/{entity_type}"
    )
    authority.get_model("FederationEntityAssignedProfile").objects.create(
        descendant=member, profile=profile, issuer=configuration.objects.get(entity_type="federation_entity")
    )


def main(folder: Path, certificate: Path) -> None:
    server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
    origin = f"https://localhost:{server.server_port}"
    configure(folder, origin)
    call_command("migrate", verbosity=0)
    print(json.dumps({"port": server.server_port, "jwks": {"keys": create_entities(origin)}}), flush=True)
    member = json.loads(sys.stdin.readline())
    admit(member["sub"], "openid_relying_party", member["jwks"]["keys"])
    server.set_app(get_wsgi_application())
    server.base_environ["HTTPS"] = "on"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # The handshake is made in the thread of the request.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print("ready", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
