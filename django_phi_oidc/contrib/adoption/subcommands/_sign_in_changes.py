"""What the lines of `phi_oidc init` change for the log-ins of the project that it runs in."""

from collections.abc import Collection, Iterator
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth.backends import BaseBackend, ModelBackend, RemoteUserBackend
from django.utils.module_loading import import_string

from ....login.backend import OIDCAuthenticationBackend

OIDC_BACKEND = "django_phi_oidc.backends.OIDCAuthenticationBackend"
_PERMISSION_BACKENDS = (
    "guardian.backends.ObjectPermissionBackend",
    "rules.permissions.ObjectPermissionBackend",
)
"""Their `authenticate` refuses all users, which the class does not show."""
_ALWAYS = (
    "Signed-in users are signed out at their next request, and sign in at the provider.",
    "A first sign-in gets a new account without permissions. To give a person an account that "
    "exists, link it before: manage.py phi_oidc subject link --user USER",
)
_CHANGES_BY_APP = {
    "django.contrib.admin": (
        "The admin's log-in page leads to the provider, for superusers too; its log-out ends the "
        "session there. To make the first administrator after a "
        "sign-in: manage.py phi_oidc admin grant USER"
    ),
    "rest_framework": "BasicAuthentication of REST framework refuses every password, too.",
    "rest_framework.authtoken": "Tokens of rest_framework.authtoken that exist "
    "stay valid: delete those of persons.",
    "allauth": (
        "Log-ins of allauth continue to start sessions, without this provider: remove its URLs. To "
        "take over its providers and users: manage.py phi_oidc migrate-from allauth"
    ),
    "mozilla_django_oidc": (
        "mozilla-django-oidc: remove its URLs and its middleware SessionRefresh. To take over its "
        "settings: manage.py phi_oidc migrate-from mozilla"
    ),
    "django_otp": "Second factors of django-otp are not asked for at a "
    "sign-in: require them at the provider.",
}
_LOCAL_ACCOUNTS = "django_phi_oidc.contrib.local_accounts"
_INSTALL_LOCAL_ACCOUNTS = f"""
      INSTALLED_APPS += ["{_LOCAL_ACCOUNTS}"]"""
_KEEP_LOCAL_ACCOUNTS = f"""\
To keep passwords of named accounts, for the case that the provider is unavailable, add these lines. The page is
oidc/local-login/, and each use raises an alert:{{installation}}
      AUTHENTICATION_BACKENDS += ["{_LOCAL_ACCOUNTS}.backends.BreakGlassBackend"]
      PHI_OIDC["BREAK_GLASS_ACCOUNTS"] = ["YOUR-USER-NAME"]"""  # noqa: E501
_KEEP_PASSWORDS = """\
To keep all passwords for the time of a change-over, add this line. Log-in forms of your own then work as before, those
of the admin do not, and the system checks warn (W007):
      AUTHENTICATION_BACKENDS += ["{path}"]"""  # noqa: E501


def list_new_backends() -> list[str]:
    """Return AUTHENTICATION_BACKENDS for this project: that of this app, and those that only grant
    permissions.
    """
    paths = []
    for path in settings.AUTHENTICATION_BACKENDS:
        if _is_kept(path, import_string(path)):
            paths.append(path)
    has_oidc_backend = any(
        issubclass(import_string(path), OIDCAuthenticationBackend) for path in paths
    )
    if has_oidc_backend:
        return paths
    return [OIDC_BACKEND, *paths]


def list_sign_in_changes(new_apps: Collection[str]) -> Iterator[str]:
    """Yield a text for each change, and for each way to keep a log-in.

    new_apps: those that the lines add to INSTALLED_APPS.
    """
    kept = list_new_backends()
    removed = {
        path: import_string(path) for path in settings.AUTHENTICATION_BACKENDS if path not in kept
    }
    for path, backend in removed.items():
        yield _describe_removal(path, backend)
    if removed:
        yield from _ALWAYS
    yield from (text for app, text in _CHANGES_BY_APP.items() if apps.is_installed(app))
    with_passwords = [path for path, backend in removed.items() if _accepts_passwords(backend)]
    if with_passwords:
        if apps.is_installed(_LOCAL_ACCOUNTS) or _LOCAL_ACCOUNTS in new_apps:
            installation = ""
        else:
            installation = _INSTALL_LOCAL_ACCOUNTS
        yield _KEEP_LOCAL_ACCOUNTS.format(installation=installation)
        yield _KEEP_PASSWORDS.format(path=with_passwords[0])


def _describe_removal(path: str, backend: type[Any]) -> str:
    if issubclass(backend, RemoteUserBackend):
        return (
            f"{path} is removed: a user whom the web server names in "
            "REMOTE_USER is not signed in any more."
        )
    if _accepts_passwords(backend):
        return (
            f"{path} is removed: no form accepts a password any more, not even that of a superuser."
        )
    return (
        f"{path} is removed, and with it the log-ins that it permits. If it only grants "
        "permissions, keep it:"
        f' AUTHENTICATION_BACKENDS += ["{path}"]'
    )


def _accepts_passwords(backend: type[Any]) -> bool:
    return issubclass(backend, ModelBackend) and not issubclass(backend, RemoteUserBackend)


def _is_kept(path: str, backend: type[Any]) -> bool:
    """Return whether it is a backend of this package, or never signs a user in."""
    is_own = any(base.__module__.startswith("django_phi_oidc.") for base in backend.__mro__)
    if is_own or path in _PERMISSION_BACKENDS:
        return True
    return issubclass(backend, BaseBackend) and backend.authenticate is BaseBackend.authenticate
