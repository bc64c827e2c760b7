"""How each library is set up in a project, as its manual says, up to the sign-in of the third person."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.integration.adoption.measured_project import MeasuredProject
from tests.integration.adoption.portal_visitors import open_portal
from tests.integration.adoption.provider_process import PERSONS, SECRET, Provider
from tests.integration.adoption.wheel_environments import run
from tests.support.http_browser import Browser
from tests.support.manual_blocks import block, commands

MOZILLA = "mozilla-django-oidc==5.0.2"
ALLAUTH = "django-allauth[socialaccount]==65.22.1"
MOZILLA_SETTINGS = """\
import os

INSTALLED_APPS += ["mozilla_django_oidc"]
AUTHENTICATION_BACKENDS = ["mozilla_django_oidc.auth.OIDCAuthenticationBackend"]
LOGIN_URL = "oidc_authentication_init"
LOGIN_REDIRECT_URL = "/"
LOGOUT_REDIRECT_URL = "/"
OIDC_RP_CLIENT_ID = os.environ["OIDC_CLIENT_ID"]
OIDC_RP_CLIENT_SECRET = os.environ["OIDC_CLIENT_SECRET"]
OIDC_RP_SIGN_ALGO = "RS256"
OIDC_OP_AUTHORIZATION_ENDPOINT = "{issuer}/authorize"
OIDC_OP_TOKEN_ENDPOINT = "{issuer}/token"
OIDC_OP_USER_ENDPOINT = "{issuer}/userinfo"
OIDC_OP_JWKS_ENDPOINT = "{issuer}/jwks"
"""
MOZILLA_URLS = """\
from django.urls import include

urlpatterns += [path("oidc/", include("mozilla_django_oidc.urls"))]
"""
MOZILLA_BACKEND = """\
from mozilla_django_oidc.auth import OIDCAuthenticationBackend


class EmailBackend(OIDCAuthenticationBackend):
    def create_user(self, claims):
        return self.UserModel.objects.create_user(email=claims["email"])
"""
ALLAUTH_SETTINGS = """\
import os

INSTALLED_APPS += [
    "allauth",
    "allauth.account",
    "allauth.socialaccount",
    "allauth.socialaccount.providers.openid_connect",
]
MIDDLEWARE += ["allauth.account.middleware.AccountMiddleware"]
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
LOGIN_REDIRECT_URL = "/"
SOCIALACCOUNT_PROVIDERS = {{
    "openid_connect": {{
        "APPS": [
            {{
                "provider_id": "hospital",
                "name": "Hospital",
                "client_id": os.environ["OIDC_CLIENT_ID"],
                "secret": os.environ["OIDC_CLIENT_SECRET"],
                "settings": {{"server_url": "{issuer}"}},
            }}
        ]
    }}
}}
"""
ALLAUTH_URLS = """\
from django.urls import include

urlpatterns += [path("accounts/", include("allauth.urls"))]
"""
ALLAUTH_WITHOUT_USERNAME = """\
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*", "password2*"]
"""


@dataclass(frozen=True, slots=True)
class Portal:
    """A project whose library is being set up."""

    project: MeasuredProject
    provider: Provider
    wheel: Path
    user_model: str


def set_up_phi_oidc(portal: Portal) -> None:
    """Follow docs/how-to/install.md."""
    project = portal.project
    (init,) = commands("install", "init")
    install_phi_oidc(portal, init, page="install")
    append_generated_settings(project)
    project.append_settings(block("install", "loopback"))
    values = {"OIDC_ISSUER": portal.provider.issuer, "OIDC_CLIENT_ID": client_of(project), "OIDC_CLIENT_SECRET": SECRET}
    load_variables(project, values)
    project.append_urls(f"from django.urls import include\n\n{block('install', 'urls')}")
    migrate(project)


def install_phi_oidc(portal: Portal, init: Sequence[str], *, page: str) -> None:
    """Install the wheel and the apps of a page, and create keys and settings by the command `init`."""
    (install,) = commands("install", "install")
    portal.project.type(shlex.join(install).replace("django-phi-oidc", str(portal.wheel)))
    portal.project.append_settings(block(page, "installed"))
    portal.project.type(shlex.join(init))


def append_generated_settings(project: MeasuredProject) -> None:
    """Paste the lines that `phi_oidc init` wrote. The text that it asks for may be any."""
    written = (project.folder / "secrets" / "settings.py").read_text()
    project.append_settings(written.replace("FILL IN: why the portal may request it", "contact"))


def load_variables(project: MeasuredProject, values: Mapping[str, str]) -> None:
    """Fill in these values in the file that `phi_oidc init` wrote, and load it by a shell, as the page says."""
    file = project.folder / "secrets" / "portal.env"
    text = file.read_text()
    for name, value in values.items():
        assert f"#{name}=\n" in text, f"{name} is not to be filled in"
        text = text.replace(f"#{name}=\n", f"{name}={shlex.quote(value)}\n")
    file.write_text(text)
    project.effort.variables += values
    (load,) = (line.removeprefix("$ ") for line in block("install", "environment").splitlines())
    printed = run("bash", "-c", f"{load}; env -0", cwd=project.folder, env=project.environment)
    project.environment |= dict(variable.split("=", 1) for variable in printed.split("\0") if variable)


def migrate(project: MeasuredProject) -> None:
    """Create the tables. The page says that with one PostgreSQL database, the second command changes nothing."""
    default, audit = commands("install", "migrate")
    project.type(shlex.join(default))
    if project.is_sqlite:
        project.type(shlex.join(audit))


def set_up_mozilla(portal: Portal) -> None:
    """Follow the quick start of mozilla-django-oidc. It has no tables."""
    project = portal.project
    project.type(f"pip install {MOZILLA}")
    project.append_settings(MOZILLA_SETTINGS.format(issuer=portal.provider.issuer))
    if portal.user_model == "no user name":
        project.write_module("backends", MOZILLA_BACKEND)
        project.append_settings('AUTHENTICATION_BACKENDS = ["portal.backends.EmailBackend"]\n')
    project.set_variables(OIDC_CLIENT_ID=client_of(project), OIDC_CLIENT_SECRET=SECRET)
    project.append_urls(MOZILLA_URLS)


def set_up_allauth(portal: Portal) -> None:
    """Follow the quick start of django-allauth, and its page on OpenID Connect."""
    project = portal.project
    project.type(f"pip install '{ALLAUTH}'")
    project.append_settings(ALLAUTH_SETTINGS.format(issuer=portal.provider.issuer))
    if portal.user_model == "no user name":
        project.append_settings(ALLAUTH_WITHOUT_USERNAME)
    project.set_variables(OIDC_CLIENT_ID=client_of(project), OIDC_CLIENT_SECRET=SECRET)
    project.append_urls(ALLAUTH_URLS)
    project.type("python manage.py migrate")


LIBRARIES: dict[str, Callable[[Portal], None]] = {
    "django_phi_oidc": set_up_phi_oidc,
    "mozilla-django-oidc": set_up_mozilla,
    "django-allauth": set_up_allauth,
}


def client_of(project: MeasuredProject) -> str:
    """Return the client id of the project."""
    return f"portal-{project.port}"


def measure_set_up(portal: Portal, library: str) -> dict[str, Browser]:
    """Set the library up, sign three persons in, and return their browsers, by person."""
    project = portal.project
    portal.provider.register(client_of(project), project.origin)
    project.start_measurement()
    LIBRARIES[library](portal)
    browsers = {person: Browser(project.origin) for person in PERSONS[:3]}
    with project.serving():
        accounts = {open_portal(browser, person) for person, browser in browsers.items()}
        project.stop_measurement()
        assert len(accounts) == len(browsers), "each person has an account of their own"
        again = {open_portal(Browser(project.origin), person) for person in browsers}
        assert again == accounts, "and returns to it"
    return browsers
