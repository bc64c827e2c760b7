"""Write the files of a new project: lines for its settings, and new keys."""

from argparse import ArgumentParser
from pathlib import Path

from django.core.management.base import CommandError
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ...crypto import keyring
from ._arguments import Options
from ._files import create_private_file
from ._output import Output
from .keys import generate_signing_key

SETTINGS_TEMPLATE = """\
MIDDLEWARE += ["django_phi_oidc.middleware.RevocationMiddleware"]
AUTHENTICATION_BACKENDS = ["django_phi_oidc.backends.OIDCAuthenticationBackend"]
DATABASES["phi_audit"] = {
    **DATABASES["default"],
    "OPTIONS": DATABASES["default"].get("OPTIONS", {}) | {"connect_timeout": 2},
}
DATABASE_ROUTERS = ["django_phi_oidc.audit.router.AuditRouter"]
LOGIN_URL = "oidc_authentication_init"
PHI_OIDC = {
    "PROVIDERS": {
        "default": {name: os.environ[f"OIDC_{name.upper()}"] for name in ("issuer", "client_id", "client_secret")}
    },
    "CLAIMS": {"birthdate": {"purpose": "TREAT", "basis": "identity check before treatment", "retention": "session"}},
    "KEYS": {
        **{name: os.environ[f"PHI_{name.upper()}_KEYS"] for name in ("encryption", "subject", "audit_mac")},
        "audit_signing": os.environ.get("PHI_AUDIT_SIGNING_KEY"),
    },
    "AUDIT": {"origin": "your.host/audit"},
}
"""
"""The README contains the same lines."""
NEXT_STEPS_TEMPLATE = """\
{folder}/settings.py: append its lines to your settings, and change the claims and the name of the log.
{folder}/portal.env: the environment of every process; fill in the provider. Do not put it into a repository.
{folder}/audit-signing-key.pem: set its text as PHI_AUDIT_SIGNING_KEY for the worker that seals the audit log only.
Keep a copy of both in a safe place: without the keys, encrypted data can't be read again.
Then: urlpatterns += [path("oidc/", include("django_phi_oidc.urls"))]
      python manage.py migrate && python manage.py migrate --database phi_audit
      python manage.py phi_oidc doctor"""


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="a new folder, readable by its owner only")
    parser.set_defaults(handler=handle)


@sensitive_variables()
def handle(options: Options, output: Output) -> None:
    """Write the three files, and print the next steps. Raises: CommandError if the folder exists."""
    folder: Path = options["folder"]
    keys = {conf.KEY_VARIABLES[ring]: keyring.generate_key() for ring in conf.KEY_RINGS}
    lines = [f"{name}=" for name in ("OIDC_ISSUER", "OIDC_CLIENT_ID", "OIDC_CLIENT_SECRET")]
    files = {
        "settings.py": SETTINGS_TEMPLATE,
        "portal.env": "\n".join([*lines, *(f"{name}={key}" for name, key in keys.items())]) + "\n",
        "audit-signing-key.pem": generate_signing_key() + "\n",
    }
    try:
        folder.mkdir(mode=0o700, parents=True)
        for name, text in files.items():
            with create_private_file(folder / name) as file:
                file.write(text)
    except OSError as error:
        raise CommandError(f"{folder} can't be written as a new folder: {error.strerror}.") from error
    output.write(NEXT_STEPS_TEMPLATE.format(folder=folder))
