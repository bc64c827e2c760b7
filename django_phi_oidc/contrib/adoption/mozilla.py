"""Read the settings of a project that uses mozilla-django-oidc."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse

from .issuer_discovery import ConnectionOptions, DiscoveredProvider, find_provider_of_endpoints
from .overridden_hooks import describe_overrides, find_base, find_class
from .settings_plan import SettingsPlan, build_provider_options

PACKAGE = "mozilla_django_oidc"
OWN_PACKAGE = "django_phi_oidc"
ENDPOINTS = {
    "OIDC_OP_AUTHORIZATION_ENDPOINT": "authorization_endpoint",
    "OIDC_OP_TOKEN_ENDPOINT": "token_endpoint",
    "OIDC_OP_USER_ENDPOINT": "userinfo_endpoint",
    "OIDC_OP_JWKS_ENDPOINT": "jwks_uri",
}
REPLACED_SETTINGS = (
    *(
        "OIDC_RP_CLIENT_ID",
        "OIDC_RP_CLIENT_SECRET",
        "OIDC_RP_SCOPES",
        "OIDC_RP_SIGN_ALGO",
        "OIDC_RP_IDP_SIGN_KEY",
    ),
    *ENDPOINTS,
    *("OIDC_OP_LOGOUT_ENDPOINT", "OIDC_OP_LOGOUT_URL_METHOD"),
    *("OIDC_ALLOW_UNSECURED_JWT", "OIDC_AUTHENTICATE_CLASS", "OIDC_AUTHENTICATION_CALLBACK_URL"),
    *(
        "OIDC_AUTH_REQUEST_EXTRA_PARAMS",
        "OIDC_CALLBACK_CLASS",
        "OIDC_CREATE_USER",
        "OIDC_DRF_AUTH_BACKEND",
    ),
    *("OIDC_EXEMPT_URLS", "OIDC_MAX_STATES", "OIDC_NONCE_SIZE", "OIDC_PKCE_CODE_CHALLENGE_METHOD"),
    *(
        "OIDC_PKCE_CODE_VERIFIER_SIZE",
        "OIDC_PROXY",
        "OIDC_REDIRECT_ALLOWED_HOSTS",
        "OIDC_REDIRECT_FIELD_NAME",
    ),
    *("OIDC_REDIRECT_REQUIRE_HTTPS", "OIDC_RENEW_ID_TOKEN_EXPIRY_SECONDS", "OIDC_STATE_SIZE"),
    *(
        "OIDC_STORE_ACCESS_TOKEN",
        "OIDC_STORE_ID_TOKEN",
        "OIDC_TIMEOUT",
        "OIDC_TOKEN_USE_BASIC_AUTH",
        "OIDC_USE_NONCE",
    ),
    *("OIDC_USE_PKCE", "OIDC_USERNAME_ALGO", "OIDC_VERIFY_KID", "OIDC_VERIFY_SSL"),
)
"""The settings of mozilla-django-oidc whose names begin with OIDC_. None has an effect on this
package.
"""
ENVIRONMENT_OPTIONS = {
    "HTTPS_PROXY": "proxy",
    "https_proxy": "proxy",
    "REQUESTS_CA_BUNDLE": "ca_bundle",
}
"""What the library requests reads, and the option of a provider."""
CALLBACK_PATH = "/oidc/callback/"
OWN_BACKEND = f"{OWN_PACKAGE}.backends.OIDCAuthenticationBackend"
SUPPORTED_HOOK = f"still called, with the declared claims, if the class derives from {OWN_BACKEND}."
PROTOCOL_CODE = "part of the protocol code, which is not replaceable."
BACKEND_HOOKS = {
    **dict.fromkeys(("create_user", "update_user", "get_username"), SUPPORTED_HOOK),
    "filter_users_by_claims": "users are found by issuer and sub. Link the existing users first.",
    "verify_claims": 'declare claims as "essential", or raise '
    "PermissionDenied in create_user and update_user.",
    "get_userinfo": "declare the claims in CLAIMS; create_user and update_user get them.",
    "get_or_create_user": "users are found by issuer and sub; "
    "create_user and update_user are called.",
    "store_tokens": "tokens are stored encrypted; "
    "sessions.access_tokens.get_access_token returns one.",
    "describe_user_by_claims": "log lines never describe a person.",
    "get_settings": "only the settings themselves were read. Declare what this method returns.",
    "get_user": "a deactivated user's sessions end at the next request.",
    **dict.fromkeys(
        ("authenticate", "get_token", "verify_token", "get_payload_data"), PROTOCOL_CODE
    ),
    **dict.fromkeys(
        ("retrieve_matching_jwk", "_verify_jws", "raise_token_response_error"), PROTOCOL_CODE
    ),
}
VIEW_HOOKS = {
    "get_extra_params": 'use "authorization_parameters" of the provider: the same for all users.',
    "login_success": "receive django.contrib.auth.signals.user_logged_in, or override update_user.",
    "success_url": "set LOGIN_REDIRECT_URL.",
    "login_failure": "receive "
    "django_phi_oidc.signals.sign_in_refused, and override login_failed.html.",
    "failure_url": "override the template django_phi_oidc/login_failed.html.",
}


def has_settings() -> bool:
    """Return whether the project has settings of mozilla-django-oidc."""
    return bool(
        _get("OIDC_RP_CLIENT_ID") or _get("OIDC_OP_AUTHORIZATION_ENDPOINT") or list_backends()
    )


def list_replaced_settings() -> list[str]:
    """Return the names of the settings of mozilla-django-oidc that the project has."""
    replaced_settings = []
    for name in REPLACED_SETTINGS:
        if hasattr(settings, name):
            replaced_settings.append(name)
    return replaced_settings


def read_mozilla_settings() -> SettingsPlan:
    """Return the plan for the present settings. Requests the metadata of the provider."""
    plan = SettingsPlan(library="mozilla-django-oidc")
    secret = plan.read_variable("OIDC_CLIENT_SECRET", "the value of OIDC_RP_CLIENT_SECRET")
    endpoints = _read_endpoints()
    connection = _read_connection(plan)
    discovered = find_provider_of_endpoints(endpoints, connection=connection)
    if discovered is None:
        text = "the issuer in the provider's metadata, which could not be found from the endpoints"
        issuer: Any = plan.read_variable("OIDC_ISSUER", text)
    else:
        issuer = discovered.issuer
    options = build_provider_options(
        plan,
        source="the provider",
        issuer=issuer,
        client_id=_get("OIDC_RP_CLIENT_ID")
        or plan.read_variable("OIDC_CLIENT_ID", "the client id"),
        client_secret=secret,
        discovered=discovered,
        keeps_subjects=False,
    )
    if isinstance(_get("OIDC_VERIFY_SSL"), str):
        options["ca_bundle"] = connection.ca_bundle
    if connection.proxy:
        options["proxy"] = plan.read_variable("OIDC_PROXY", "the URL in OIDC_PROXY for https")
    _add_options(plan, options, discovered, endpoints)
    plan.providers["default"] = options
    if _get_callback_path() != CALLBACK_PATH:
        plan.redirect_uris.append(CALLBACK_PATH)
    for name, applies, text in SETTING_NOTES:
        if applies(_get(name)):
            plan.note(name, text)
    _add_classes(plan)
    _add_removals(plan)
    return plan


def _get(name: str, default: Any = None) -> Any:
    return getattr(settings, name, default)


def _read_endpoints() -> dict[str, str]:
    """Return the endpoints that the settings declare, by the names of the metadata."""
    endpoints = {}
    for name, member in ENDPOINTS.items():
        url = _get(name)
        if isinstance(url, str) and url:
            endpoints[member] = url
    return endpoints


def _get_callback_path() -> str:
    """Return the path of the present redirect URI; empty if it is not known."""
    try:
        return reverse(
            str(_get("OIDC_AUTHENTICATION_CALLBACK_URL", "oidc_authentication_callback"))
        )
    except (NoReverseMatch, ImproperlyConfigured, ImportError):
        return ""


def _read_connection(plan: SettingsPlan) -> ConnectionOptions:
    verify = _get("OIDC_VERIFY_SSL", True)
    proxies = _get("OIDC_PROXY") or {}

    if isinstance(verify, str):
        ca_bundle = verify
    else:
        ca_bundle = os.environ.get("REQUESTS_CA_BUNDLE", "")

    if verify is False:
        text = (
            'certificates are always verified. Set "ca_bundle" '
            "of the provider to the file of its CA."
        )
        plan.note("OIDC_VERIFY_SSL", text)
    for name, option in ENVIRONMENT_OPTIONS.items():
        if os.environ.get(name):
            plan.note(
                name,
                "this environment variable is not read. Set "
                f'"{option}" of the provider if it is needed.',
            )

    if isinstance(proxies, Mapping):
        proxy = str(proxies.get("https") or "")
    else:
        proxy = ""

    if proxy and not proxy.startswith(("http://", "https://")):
        plan.note("OIDC_PROXY", "only a proxy with an http or https URL is supported.")
        proxy = ""
    return ConnectionOptions(ca_bundle=ca_bundle, proxy=proxy)


def _add_options(
    plan: SettingsPlan,
    options: dict[str, Any],
    discovered: DiscoveredProvider | None,
    endpoints: Mapping[str, str],
) -> None:
    if not _get("OIDC_TOKEN_USE_BASIC_AUTH", False):
        options["token_endpoint_auth_method"] = "client_secret_post"
    if not _get("OIDC_CREATE_USER", True):
        options["provisioning"] = "existing"
    plan.add_scopes(
        str(_get("OIDC_RP_SCOPES", "openid email")).split(), options, source="OIDC_RP_SCOPES"
    )
    extra = _get("OIDC_AUTH_REQUEST_EXTRA_PARAMS") or {}
    plan.add_authorization_parameters(extra, options, source="OIDC_AUTH_REQUEST_EXTRA_PARAMS")
    if discovered is None:
        return
    for name, member in ENDPOINTS.items():
        if member not in endpoints:
            continue
        published = discovered.members.get(member)
        if published != endpoints[member]:
            text = (
                f"the metadata has {published}, which is used. "
                '"metadata_overrides" can replace it (W045).'
            )
            plan.note(name, text)


def _add_classes(plan: SettingsPlan) -> None:
    """Name what the project's subclasses override."""
    for path in list_backends():
        for subject, text in describe_overrides(path, PACKAGE, BACKEND_HOOKS):
            plan.note(subject, text)
    for name in ("OIDC_CALLBACK_CLASS", "OIDC_AUTHENTICATE_CLASS"):
        if path := _get(name):
            plan.note(name, "the views are those of django_phi_oidc.urls.")
            for subject, text in describe_overrides(path, PACKAGE, VIEW_HOOKS):
                plan.note(subject, text)
    for path in list_middleware():
        seconds = _get("OIDC_RENEW_ID_TOKEN_EXPIRY_SECONDS", 900)
        text = (
            f"the provider is not asked again every {seconds} s. "
            "Instead, sessions end by SESSIONS (idle_timeout,"
        )
        plan.note(path, f"{text} absolute_timeout) and by back-channel logout.")
    for path in list_api_authentication():
        plan.note(
            path, "declare API, and use contrib.rest_framework.authentication.BearerAuthentication."
        )


def _add_removals(plan: SettingsPlan) -> None:
    for path in settings.INSTALLED_APPS:
        if path.split(".")[0] == PACKAGE:
            plan.removals.append(f"{path} in INSTALLED_APPS")
    for path in list_middleware():
        plan.removals.append(f"{path} in MIDDLEWARE")
    for path in list_backends():
        plan.removals.append(f"{path} in AUTHENTICATION_BACKENDS: {OWN_BACKEND}, or a subclass")
    for path in list_api_authentication():
        plan.removals.append(f"{path} in REST_FRAMEWORK")
    if "django.contrib.auth.backends.ModelBackend" in settings.AUTHENTICATION_BACKENDS:
        text = "no account can sign in by password then, except for those in BREAK_GLASS_ACCOUNTS"
        plan.removals.append(
            f"django.contrib.auth.backends.ModelBackend in AUTHENTICATION_BACKENDS: {text}"
        )
    plan.removals.append(
        'include("mozilla_django_oidc.urls") in the URLs: include("django_phi_oidc.urls")'
    )
    if names := list_replaced_settings():
        plan.removals.append(f"the settings {', '.join(names)}")


def list_backends() -> list[str]:
    """Return the authentication backends that derive from that of mozilla-django-oidc, but not from
    this package's.
    """
    return _list_derived(settings.AUTHENTICATION_BACKENDS, f"{PACKAGE}.auth")


def list_middleware() -> list[str]:
    """Return the middleware of mozilla-django-oidc, and its subclasses."""
    return _list_derived(settings.MIDDLEWARE, f"{PACKAGE}.middleware")


def list_api_authentication() -> list[str]:
    """Return the authentication classes of mozilla-django-oidc among the defaults of Django REST
    framework.
    """
    declared = _get("REST_FRAMEWORK")
    paths = None
    if isinstance(declared, Mapping):
        paths = declared.get("DEFAULT_AUTHENTICATION_CLASSES")

    return _list_derived(paths or (), f"{PACKAGE}.contrib.drf")


def _list_derived(paths: Any, module: str) -> list[str]:
    classes = ((path, find_class(path)) for path in paths)
    derived = []
    for path, cls in classes:
        if cls and find_base(cls, module) and find_base(cls, OWN_PACKAGE) is None:
            derived.append(path)
    return derived


def _is_weak_algorithm(value: Any) -> bool:
    return value is None or str(value).startswith("HS")


SETTING_NOTES: tuple[tuple[str, Callable[[Any], Any], str], ...] = (
    (
        "OIDC_RP_SIGN_ALGO",
        _is_weak_algorithm,
        "HS256, also the default, verifies ID Tokens with the client secret, which is not "
        "supported. "
        "Configure the provider to sign them with RS256, PS256, ES256 or EdDSA.",
    ),
    (
        "OIDC_RP_SIGN_ALGO",
        lambda value: (
            value and not _is_weak_algorithm(value) and value not in ("RS256", "ES256", "PS256")
        ),
        "not supported: configure the provider to sign ID "
        "Tokens with RS256, PS256, ES256 or EdDSA.",
    ),
    (
        "OIDC_RP_CLIENT_SECRET",
        lambda value: not value,
        "a client without a secret is not supported: create one "
        "at the provider, or use private_key_jwt.",
    ),
    ("OIDC_RP_IDP_SIGN_KEY", bool, "the keys are those at the provider's jwks_uri."),
    ("OIDC_ALLOW_UNSECURED_JWT", bool, "ID Tokens without a signature are refused."),
    (
        "OIDC_USE_NONCE",
        lambda value: value is False,
        "each request has a nonce, which the ID Token must repeat.",
    ),
    (
        "OIDC_PKCE_CODE_CHALLENGE_METHOD",
        lambda value: value == "plain",
        "each request uses PKCE with S256.",
    ),
    ("OIDC_USERNAME_ALGO", bool, "user names are random; override get_username for others."),
    ("OIDC_EXEMPT_URLS", bool, "no page is redirected to renew a session."),
    (
        "OIDC_OP_LOGOUT_URL_METHOD",
        bool,
        'the logout is built from the metadata; see "end_session_parameters".',
    ),
    (
        "ALLOW_LOGOUT_GET_METHOD",
        bool,
        "the logout is a form with POST: with GET, any page could sign users out.",
    ),
    (
        "OIDC_STORE_ACCESS_TOKEN",
        bool,
        "sessions.access_tokens.get_access_token(request) returns the access token.",
    ),
    (
        "OIDC_STORE_ID_TOKEN",
        bool,
        "no ID Token is in request.session; what is needed of it is stored encrypted.",
    ),
    ("OIDC_REDIRECT_ALLOWED_HOSTS", bool, "?next= leads to this host only."),
    (
        "OIDC_REDIRECT_FIELD_NAME",
        lambda value: value not in (None, "next"),
        "the parameter is next.",
    ),
    ("OIDC_TIMEOUT", bool, "a sign-in waits for the provider for a few seconds at most."),
    (
        "LOGIN_REDIRECT_URL_FAILURE",
        bool,
        "a refused sign-in shows django_phi_oidc/login_failed.html with status 403.",
    ),
)
"""Setting, whether its value differs from what this package does, and what this package does."""
