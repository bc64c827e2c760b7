"""An OpenID Provider of a Django project over TLS: `python -m …server MODULE FOLDER CERTIFICATE`.

MODULE: one in the folder of this file, which has the URLs, and whose documentation is followed. FOLDER: for its
database. CERTIFICATE: a PEM file with certificate and key. The standard input is a JSON object, the registration of its
only client. The first line of the standard output is the port. It serves until it is killed.
"""

import json
import ssl
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import django
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application

PASSWORD = "password of amina"
LOGIN_PAGE = '<form method="post">{% csrf_token %}{{ form }}<button>Sign in</button></form>'
APPS: dict[str, list[str]] = {
    "oauth_toolkit": ["oauth2_provider"],
    "allauth_idp": ["allauth", "allauth.account", "allauth.idp.oidc"],
    "authlib_server": ["tests.integration.interop.django_providers.authlib_models"],
}
MIDDLEWARE: dict[str, list[str]] = {"allauth_idp": ["allauth.account.middleware.AccountMiddleware"]}


class QuietHandler(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def configure(name: str, folder: Path, port: int) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    loaders = [
        ("django.template.loaders.locmem.Loader", {"registration/login.html": LOGIN_PAGE}),
        "django.template.loaders.app_directories.Loader",
    ]
    processors = ["django.template.context_processors.request", "django.contrib.auth.context_processors.auth"]
    urls = f"{__package__ or 'tests.integration.interop.django_providers'}.{name}"
    settings.configure(
        SECRET_KEY="for tests only",
        ALLOWED_HOSTS=["localhost"],
        ROOT_URLCONF=urls,
        USE_TZ=True,
        STATIC_URL="static/",
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": folder / "provider.sqlite3"}},
        DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
        # Secrets of tests need no slow hash.
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        # Otherwise the cookies of several providers on this host would replace each other.
        SESSION_COOKIE_NAME=f"session_{port}",
        CSRF_COOKIE_NAME=f"csrf_{port}",
        INSTALLED_APPS=[
            *("django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions"),
            *("django.contrib.messages", "django.contrib.staticfiles", *APPS[name]),
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
            *MIDDLEWARE.get(name, []),
        ],
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "OPTIONS": {"loaders": loaders, "context_processors": processors},
            }
        ],
        OAUTH2_PROVIDER={
            "OIDC_ENABLED": True,
            "OIDC_RP_INITIATED_LOGOUT_ENABLED": True,
            "OIDC_RSA_PRIVATE_KEY": pem,
            "OAUTH2_VALIDATOR_CLASS": f"{urls}.ClaimsValidator",
            "SCOPES": {name: name for name in ("openid", "profile", "address")},
        },
        IDP_OIDC_PRIVATE_KEY=pem,
        # The default lifetime of its access tokens is ten days.
        AUTHLIB_OAUTH2_PROVIDER={
            "refresh_token_generator": True,
            "token_expires_in": {"authorization_code": 600, "refresh_token": 600},
        },
        AUTHLIB_ISSUER=f"https://localhost:{port}",
        AUTHLIB_KEY=pem,
    )
    django.setup()


def main(name: str, folder: Path, certificate: Path) -> None:
    server = ThreadedWSGIServer(("127.0.0.1", 0), QuietHandler)
    configure(name, folder, server.server_port)
    call_command("migrate", verbosity=0, run_syncdb=True)
    get_user_model().objects.create_user("amina", password=PASSWORD, first_name="Amina", last_name="Diallo")
    import_module(settings.ROOT_URLCONF).register_client(json.load(sys.stdin))
    server.set_app(get_wsgi_application())
    server.base_environ["HTTPS"] = "on"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    # The handshake is made in the thread of the request.
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(sys.argv[1], *map(Path, sys.argv[2:]))
