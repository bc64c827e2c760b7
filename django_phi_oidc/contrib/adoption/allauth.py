"""Read the settings of a project that uses django-allauth, and its SocialApp rows."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from django.apps import apps
from django.conf import settings
from django.db import DatabaseError

from ...errors import TransportError
from .issuer_discovery import (
    WELL_KNOWN_PATH,
    ConnectionOptions,
    DiscoveredProvider,
    fetch_provider,
)
from .overridden_hooks import describe_overrides, find_base, find_class
from .settings_plan import SettingsPlan, build_provider_options

PACKAGE = "allauth"
APP_LABEL = "socialaccount"
PROVIDERS_SETTING = "SOCIALACCOUNT_PROVIDERS"
_PROVIDER_APPS = "allauth.socialaccount.providers."
_NAME_PATTERN = re.compile(r"[^A-Za-z0-9._-]+")
_SHARED_TENANTS = ("common", "organizations", "consumers")
DEFAULT_SCOPES = {
    "openid_connect": ("openid", "profile", "email"),
    "google": ("profile", "email"),
    "okta": ("openid", "profile", "email", "offline_access"),
    "auth0": ("openid", "profile", "email"),
    "keycloak": ("openid", "profile", "email"),
    "amazon_cognito": ("openid", "profile", "email"),
}
"""The providers of allauth whose `uid` is the `sub`, and the scopes that they request."""
MICROSOFT = "microsoft"
FILL_IN = "the issuer in the provider's metadata"
NO_SECRET = (
    "create a secret at the provider, or use private_key_jwt: a client without one is not supported"
)
ADAPTER_HOOKS = {
    **dict.fromkeys(
        ("new_user", "save_user", "populate_user"), "override create_user of the backend."
    ),
    "pre_social_login": "override update_user of the backend, or receive user_logged_in.",
    **dict.fromkeys(
        ("is_open_for_signup", "is_auto_signup_allowed"),
        'set "provisioning" of the provider, or raise '
        "PermissionDenied in create_user of the backend.",
    ),
    "on_authentication_error": "receive django_phi_oidc.signals.sign_in_refused.",
    "get_login_redirect_url": "set LOGIN_REDIRECT_URL.",
    "get_logout_redirect_url": "set LOGOUT_REDIRECT_URL.",
    **dict.fromkeys(
        ("authenticate_by_email", "can_authenticate_by_email", "is_email_verified"),
        "users are found by issuer and sub. Link the existing users first.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SocialApplication:
    """A provider of allauth, from the settings or from a SocialApp row. Its secret is not read."""

    provider: str
    """The kind, such as `openid_connect` or `google`."""
    account_provider: str
    """What SocialAccount.provider contains."""
    client_id: str
    source: str
    secret_source: str
    """Where the secret is; empty if there is none."""
    app_settings: Mapping[str, Any] = field(repr=False)
    provider_settings: Mapping[str, Any] = field(repr=False)

    @property
    def name(self) -> str:
        """The name in PROVIDERS."""
        return get_provider_name(self.account_provider)

    @property
    def is_openid_provider(self) -> bool:
        return self.provider in DEFAULT_SCOPES or self.provider == MICROSOFT

    @property
    def has_sub_as_uid(self) -> bool:
        return self.provider in DEFAULT_SCOPES and self.get_option("uid_field", "sub") == "sub"

    def get_option(self, name: str, default: Any = None) -> Any:
        """Return an option of the application, or of its provider."""
        value = self.app_settings.get(name)
        if value is None:
            return self.provider_settings.get(name.upper(), default)
        return value


def get_provider_name(account_provider: str) -> str:
    """Return the name in PROVIDERS for what SocialAccount.provider contains."""
    return _NAME_PATTERN.sub("-", account_provider).strip("._-")[:64] or "default"


def has_settings() -> bool:
    """Return whether the project has settings of allauth, or its tables."""
    return has_accounts() or bool(getattr(settings, PROVIDERS_SETTING, None))


def has_accounts() -> bool:
    """Return whether the models of social accounts are installed."""
    return apps.is_installed("allauth.socialaccount")


def list_backends() -> list[str]:
    """Return the authentication backends of django-allauth, and their subclasses."""
    classes = ((path, find_class(path)) for path in settings.AUTHENTICATION_BACKENDS)
    backends = []
    for path, cls in classes:
        if cls and find_base(cls, PACKAGE):
            backends.append(path)
    return backends


def list_applications() -> list[SocialApplication]:
    """Return the applications of the settings, then those of the database; none if its table cannot
    be read.
    """
    declared: Any = getattr(settings, PROVIDERS_SETTING, None) or {}
    return [*_iter_declared(declared), *_iter_stored(declared)]


def read_allauth_settings() -> SettingsPlan:
    """Return the plan for the present settings and SocialApp rows. Requests the metadata of each
    provider.
    """
    plan = SettingsPlan(library="django-allauth")
    applications = list_applications()
    names = {application.name for application in applications if application.is_openid_provider}
    for application in applications:
        if application.name in plan.providers:
            plan.note(
                application.source,
                f"{application.name} is declared already, by another application.",
            )
        elif application.is_openid_provider:
            plan.providers[application.name] = _build_options(
                plan, application, single=len(names) == 1
            )
            plan.redirect_uris.append(
                "/oidc/callback/" if len(names) == 1 else f"/oidc/{application.name}/callback/"
            )
        else:
            text = (
                f"{application.provider} is not known to be an OpenID "
                "Provider. Declare it by hand if it is one."
            )
            plan.note(application.source, text)
    _add_notes(plan)
    _add_removals(plan)
    return plan


def find_provider(application: SocialApplication) -> tuple[str, DiscoveredProvider | None]:
    """Return the issuer, empty if it cannot be known, and the provider if its metadata can be
    fetched.
    """
    issuer = _guess_issuer(application)
    try:
        discovered = None
        if issuer:
            discovered = fetch_provider(issuer, connection=ConnectionOptions())
    except TransportError:
        discovered = None
    return (discovered.issuer if discovered else issuer), discovered


def _build_options(
    plan: SettingsPlan, application: SocialApplication, *, single: bool
) -> dict[str, Any]:
    if single:
        prefix = "OIDC"
    else:
        prefix = "OIDC_" + re.sub(r"\W", "_", application.name).upper()

    found, discovered = find_provider(application)
    issuer: Any = found or plan.read_variable(f"{prefix}_ISSUER", FILL_IN)
    if found and discovered is None:
        text = (
            f"its metadata could not be fetched, so the issuer {found} "
            "is a guess. Run this again where it can be."
        )
        plan.note(application.source, text)
    options = build_provider_options(
        plan,
        source=application.name,
        issuer=issuer,
        client_id=application.client_id,
        client_secret=plan.read_variable(
            f"{prefix}_CLIENT_SECRET",
            f"the value of {application.secret_source}" if application.secret_source else NO_SECRET,
        ),
        discovered=discovered,
        keeps_subjects=True,
    )
    if _posts_secret(application, discovered):
        options["token_endpoint_auth_method"] = "client_secret_post"
    scopes = application.get_option(
        "scope", DEFAULT_SCOPES.get(application.provider, ("openid", "email"))
    )
    plan.add_scopes([str(scope) for scope in scopes], options, source=f"{application.name}: scope")
    parameters = application.get_option("auth_params") or {}
    plan.add_authorization_parameters(
        parameters, options, source=f"{application.name}: auth_params"
    )
    if application.app_settings.get("openid_configuration_overrides"):
        text = "openid_configuration_overrides: declare them as metadata_overrides (W045)."
        plan.note(application.source, text)
    if not application.has_sub_as_uid:
        text = "SocialAccount.uid is not the sub, so --apply cannot link its users."
        plan.note(application.source, text)
    return options


def _posts_secret(application: SocialApplication, discovered: DiscoveredProvider | None) -> bool:
    """Return whether allauth sends the secret in the body."""
    if declared := application.app_settings.get("token_auth_method"):
        return bool(declared == "client_secret_post")
    if application.provider != "openid_connect":
        return True

    methods = None
    if discovered:
        methods = discovered.members.get("token_endpoint_auth_methods_supported")

    return (
        not isinstance(methods, list)
        or "client_secret_post" in methods
        or "client_secret_basic" not in methods
    )


def _guess_issuer(application: SocialApplication) -> str:
    """Return the issuer as the settings of allauth have it; empty if they have none."""
    declared = application.provider_settings
    tenant = application.get_option("tenant", "common")
    match application.provider:
        case "openid_connect":
            issuer = str(application.get_option("server_url", "")).partition(WELL_KNOWN_PATH)[0]
        case "google":
            issuer = str(declared.get("ID_TOKEN_ISSUER", "https://accounts.google.com"))
        case "okta" if declared.get("OKTA_BASE_URL"):
            issuer = f"https://{declared['OKTA_BASE_URL']}"
        case "auth0" if declared.get("AUTH0_URL"):
            issuer = f"{str(declared['AUTH0_URL']).rstrip('/')}/"
        case "keycloak" if declared.get("KEYCLOAK_URL"):
            issuer = f"{declared['KEYCLOAK_URL']}/realms/{declared.get('KEYCLOAK_REALM', '')}"
        case "microsoft" if tenant not in _SHARED_TENANTS:
            issuer = f"{application.app_settings.get('login_url', 'https://login.microsoftonline.com')}/{tenant}/v2.0"
        case _:
            issuer = ""
    return issuer


def _iter_declared(declared: Mapping[str, Any]) -> Iterator[SocialApplication]:
    for provider, options in declared.items():
        if not isinstance(options, Mapping):
            continue
        entries: list[Any] = [*(options.get("APPS") or ()), *filter(None, [options.get("APP")])]
        # The form of allauth before 0.56.
        for server in options.get("SERVERS") or ():
            names = ("server_url", "token_auth_method")
            app_settings = {}
            for name in names:
                if name in server:
                    app_settings[name] = server[name]
            entries.append(
                {
                    **server.get("APP", {}),
                    "provider_id": server.get("id", ""),
                    "settings": app_settings,
                }
            )
        for number, entry in enumerate(entries):
            source = f"{PROVIDERS_SETTING}[{provider!r}]"

            if len(entries) == 1:
                name = source
            else:
                name = f"{source}, application {number + 1}"

            account_provider = entry.get("provider_id") or provider
            yield SocialApplication(
                provider=provider,
                account_provider=account_provider,
                client_id=str(entry.get("client_id", "")),
                source=name,
                secret_source=f'"secret" in {name}' if entry.get("secret") else "",
                app_settings=entry.get("settings") or {},
                provider_settings=options,
            )


def _iter_stored(declared: Mapping[str, Any]) -> Iterator[SocialApplication]:
    if not has_accounts():
        return
    try:
        rows = list(
            apps.get_model(APP_LABEL, "SocialApp")
            ._base_manager.order_by("pk")
            .values("pk", "provider", "provider_id", "client_id", "settings")
        )
    except DatabaseError:
        return
    for row in rows:
        source = f"SocialApp {row['pk']}"
        yield SocialApplication(
            provider=row["provider"],
            account_provider=row["provider_id"] or row["provider"],
            client_id=row["client_id"],
            source=source,
            secret_source=f'"secret key" of {source} in the admin',
            app_settings=row["settings"] or {},
            provider_settings=declared.get(row["provider"]) or {},
        )


def _add_notes(plan: SettingsPlan) -> None:
    for name, text in SETTING_NOTES.items():
        if getattr(settings, name, None):
            plan.note(name, text)
    for name, text in APP_NOTES.items():
        if apps.is_installed(name):
            plan.note(name, text)
    for name in ("SOCIALACCOUNT_ADAPTER", "ACCOUNT_ADAPTER"):
        if path := getattr(settings, name, None):
            for subject, text in describe_overrides(path, PACKAGE, ADAPTER_HOOKS):
                plan.note(subject, text)


def _add_removals(plan: SettingsPlan) -> None:
    """allauth.socialaccount stays installed until its users are linked, because --apply reads its
    tables.
    """
    for path in settings.INSTALLED_APPS:
        if path.startswith(_PROVIDER_APPS):
            plan.removals.append(f"{path} in INSTALLED_APPS")
    for path in list_backends():
        text = "no account can sign in by password or by allauth then"
        plan.removals.append(f"{path} in AUTHENTICATION_BACKENDS: {text}")
    plan.removals.append(
        'include("allauth.urls") in the URLs: path("oidc/", include("django_phi_oidc.urls"))'
    )
    text = "{% url 'oidc_authentication_init' %}, and a form with POST to {% url 'oidc_logout' %}"
    plan.removals.append(
        f"{{% provider_login_url … %}} and {{% url 'account_logout' %}} in templates: {text}"
    )
    plan.removals.append("after --apply: allauth in INSTALLED_APPS and MIDDLEWARE, and its tables")


SETTING_NOTES = {
    "SOCIALACCOUNT_EMAIL_AUTHENTICATION": "users are found by issuer and sub. Link the existing "
    "users first, or use link_verified_email, for a limited time.",
    "SOCIALACCOUNT_STORE_TOKENS": "tokens are stored encrypted in the session's row. SocialToken "
    "rows are not read: they contain tokens in clear, so delete them after the change.",
    "SOCIALACCOUNT_FORMS": "there is no sign-up form: an account is created at "
    "the first sign-in, or by invitation.",
    "ACCOUNT_FORMS": "there is no sign-up form: an account is created at "
    "the first sign-in, or by invitation.",
}
APP_NOTES = {
    "allauth.mfa": 'the second factor is that of the provider: require it with "acr_values".',
    "allauth.usersessions": "sessions are listed and ended in the admin, and by phi_oidc sessions.",
    "allauth.headless": "there is no JSON API for sign-ins.",
}
"""Setting or app of allauth, and what this package does."""
