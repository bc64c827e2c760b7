"""System checks of the providers, the keys and Django's own settings; errors, or rules
that are weakened.
"""

import re
import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from itertools import product
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import Tags
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .. import conf
from .._internal.check_messages import (
    DEBUG_AT_START,
    SET_WITNESS_FILE,
    Messages,
    error,
    in_settings,
    register_check,
    warning,
)
from ..audit import conf as audit_conf
from ..audit.log import signing_keys
from ..audit.purposes import PURPOSES
from ..config.client_keys import ClientKey
from ..config.loopback import is_loopback_http
from ..config.option_parsers import ADD_APP
from ..config.providers import ProviderDeclaration
from ..config.sections import get_group_members
from ..crypto import keyring
from ..crypto.conf import get_key_source
from ..errors import KeyMissing
from ..extensions import audit_log_copies
from ..login.backend import OIDCAuthenticationBackend
from ..options import list_mistakes, list_unknown_options
from ..project_settings import KEY_RINGS, KEY_VARIABLES
from ..subjects.account_fields import list_missing_fields

UNUSED_BACKEND_HOOKS = (
    *(
        "filter_users_by_claims",
        "describe_user_by_claims",
        "get_or_create_user",
        "verify_claims",
        "get_userinfo",
    ),
    *("get_token", "verify_token", "get_payload_data", "retrieve_matching_jwk", "store_tokens"),
)


_MISSING_APP = re.compile(rf" is an option of ([\w.]+)\. {re.escape(ADD_APP)}")
_PROVIDER_WARNINGS: tuple[tuple[int, str, Callable[[Any], bool], str], ...] = (
    (
        1,
        "subject_type",
        lambda v: v == "public",
        "other clients see the same public subject identifiers.",
    ),
    (
        2,
        "revocation",
        lambda v: v == "best_effort",
        "without a revocation endpoint, tokens stay valid after a logout.",
    ),
    (3, "trusted_audiences", bool, "ID Tokens for other audiences too are accepted."),
    (
        4,
        "leeway",
        lambda v: v > timedelta(seconds=30),
        "the accepted clock difference is more than 30 s.",
    ),
    (
        5,
        "max_access_token_lifetime",
        lambda v: v > timedelta(days=1),
        "access tokens may be valid for more than a day.",
    ),
    (
        6,
        "allow_loopback_http",
        lambda v: v and _is_development(),
        "http is accepted on loopback addresses.",
    ),
    (
        11,
        "token_endpoint_auth_signing_alg",
        lambda v: v.startswith("RS"),
        "client assertions are signed with PKCS #1 v1.5.",
    ),
    (
        12,
        "client_assertion_audience",
        lambda v: v != "issuer",
        "client assertions name an endpoint from the metadata.",
    ),
    (
        13,
        "par",
        lambda v: v == "never",
        "authorization requests go through the browser, even if they could be pushed.",
    ),
    (
        14,
        "allow_auth_time_zero",
        bool,
        "an auth_time of 0 passes max_age: the time of authentication is unknown.",
    ),
    (
        22,
        "allow_logout_token_without_exp",
        bool,
        "logout tokens without exp are valid for two minutes.",
    ),
    (
        34,
        "reauthentication",
        lambda v: v != "verify",
        "after a timeout, single sign-on may suffice to sign in again.",
    ),
    (
        40,
        "id_token_hint",
        lambda v: v == "always",
        "ID Tokens are stored with their claims about the person.",
    ),
    (
        108,
        "request_object_signing_alg",
        lambda v: v.startswith("RS"),
        "authorization requests are signed by PKCS #1 v1.5.",
    ),
    (
        120,
        "metadata_issuer",
        bool,
        "endpoints and keys come from metadata that name another issuer.",
    ),
)
"""Number, option, condition of its value, and text. The default of each of these options weakens
nothing.
"""


@register_check(Tags.security)
def check_declarations(**kwargs: Any) -> Messages:
    """PHI_OIDC, its providers, claims, sinks and keys.

    E001 to E007, E100; W001 to W006, W011 to W015, W022, W034, W040, W045, W091, W092, W108,
    W120.
    """
    try:
        unknown = list_unknown_options()
        mistakes = list_mistakes()
    except ImproperlyConfigured as fault:
        yield error(2, str(fault))
        return
    yield from (error(1, text, _find_hint(text)) for text in unknown)
    yield from (error(2, text, _find_hint(text)) for text in mistakes)
    invalid = list(mistakes)
    try:
        conf.person_label()
    except ImproperlyConfigured as fault:
        for text in str(fault).split("\n"):
            if text not in (*unknown, *mistakes):
                invalid.append(text)
                yield error(2, text)
    if invalid:
        return
    providers = conf.providers().values()
    if not providers:
        hint = in_settings(
            "from django_phi_oidc.project_settings import read_provider",
            'PHI_OIDC["PROVIDERS"] = {"default": read_provider()}',
        )
        yield error(3, "PHI_OIDC['PROVIDERS'] is empty: sign-in is impossible.", hint)
    yield from _check_keys()
    for provider in providers:
        yield from _check_provider(provider)
    yield from _check_shared_issuers(providers)
    yield from _check_client_key_ids(providers)
    purposes = []
    for claim in conf.claims().values():
        purposes.append((f'["CLAIMS"]["{claim.name}"]', claim.name, claim.purpose))
    for provider in providers:
        path = f'["PROVIDERS"]["{provider.name}"]["resource_scopes"]'
        for scope in provider.resource_scopes:
            purposes.append((f'{path}["{scope.name}"]', scope.name, scope.purpose))
    for path, name, purpose in purposes:
        if purpose not in PURPOSES:
            hint = f"One of {', '.join(PURPOSES)}. " + in_settings(
                f'PHI_OIDC{path}["purpose"] = "TREAT"'
            )
            yield error(
                7, f"PHI_OIDC: the purpose of {name!r} is not a known HL7 PurposeOfUse code.", hint
            )


def _find_hint(text: str) -> str | None:
    """Return the line that installs the app whose option a message names."""
    found = _MISSING_APP.search(text)
    if found is None:
        return None
    return in_settings(f'INSTALLED_APPS += ["{found[1]}"]')


def _check_keys() -> Messages:
    for ring in KEY_VARIABLES:
        if ring in KEY_RINGS or get_key_source(ring):
            try:
                keyring.get_keys(ring)
            except KeyMissing as fault:
                yield error(4, str(fault), "Make keys: manage.py phi_oidc keys generate")


def _check_shared_issuers(providers: Iterable[ProviderDeclaration]) -> Messages:
    """Accounts are found by issuer and sub, so providers with one issuer share them."""
    names_by_issuer: dict[str, list[str]] = {}
    for provider in providers:
        names_by_issuer.setdefault(provider.issuer, []).append(repr(provider.name))
    for names in names_by_issuer.values():
        if len(names) > 1:
            text = (
                f"Providers {', '.join(names)} have one issuer: a sign-in "
                "by one gives access to accounts of all."
            )
            hint = "Keep one of them, if that is not wanted. " + in_settings(
                f'del PHI_OIDC["PROVIDERS"][{names[-1]}]'
            )
            yield warning(15, text, hint)


def _check_client_key_ids(providers: Iterable[ProviderDeclaration]) -> Messages:
    """All keys are in one jwks.json, where a provider finds them by kid. Spec: RFC 7517 4.5."""
    keys_by_kid: dict[str, set[ClientKey]] = {}
    for provider in providers:
        for key in provider.client_keys:
            keys_by_kid.setdefault(key.kid, set()).add(key)
    if any(len(keys) > 1 for keys in keys_by_kid.values()):
        yield error(
            100,
            "Client keys of two providers have the same kid.",
            "Set another 'kid' in client_keys.",
        )


def _check_provider(provider: ProviderDeclaration) -> Messages:
    subject = f"Provider {provider.name!r}:"
    path = f'PHI_OIDC["PROVIDERS"]["{provider.name}"]'
    is_loopback = is_loopback_http(provider.issuer)
    if not provider.issuer.startswith("https:") and not (
        provider.allow_loopback_http and is_loopback
    ):
        is_allowable = is_loopback and _is_development()
        if is_allowable:
            line = '["allow_loopback_http"] = DEBUG'
        else:
            line = f'["issuer"] = "https{provider.issuer[4:]}"'

        yield error(5, f"{subject} the issuer is not https.", in_settings(f"{path}{line}"))
    if provider.allow_loopback_http and not _is_development():
        hint = in_settings(f'{path}["allow_loopback_http"] = DEBUG')
        yield error(6, f"{subject} allow_loopback_http is for development; DEBUG is off.", hint)
    for name, _ in provider.metadata_overrides:
        hint = "When the metadata is correct. " + in_settings(
            f'del {path}["metadata_overrides"]["{name}"]'
        )
        yield warning(45, f"{subject} metadata_overrides replaces {name} of the metadata.", hint)
    for number, option, applies, text in _PROVIDER_WARNINGS:
        if applies(getattr(provider, option)):
            yield warning(number, f"{subject} {text}", in_settings(f'del {path}["{option}"]'))


def _is_development() -> bool:
    return bool(settings.DEBUG or DEBUG_AT_START)


@register_check(Tags.security)
def check_session_engine(**kwargs: Any) -> Messages:
    """E008, E009: session engines whose sessions the server can't end."""
    engine = settings.SESSION_ENGINE
    hint = in_settings('SESSION_ENGINE = "django.contrib.sessions.backends.db"')
    if engine == "django.contrib.sessions.backends.signed_cookies":
        yield error(8, "signed_cookies sessions can't be ended: a copied cookie stays valid.", hint)
    if engine in (
        "django.contrib.sessions.backends.cache",
        "django.contrib.sessions.backends.cached_db",
    ):
        backend = settings.CACHES.get(settings.SESSION_CACHE_ALIAS, {}).get("BACKEND", "")
        if backend.rpartition(".")[2] in ("LocMemCache", "DummyCache"):
            yield error(
                9,
                "With a per-process cache, a session that was "
                "ended stays valid in other processes.",
                hint,
            )


@register_check(Tags.security)
def check_backends(**kwargs: Any) -> Messages:
    """E011: the OIDC backend is missing; E012: an override is never called; W007: sign-in by
    password.
    """
    backends = [import_string(path) for path in settings.AUTHENTICATION_BACKENDS]
    oidc_backends = [
        backend for backend in backends if issubclass(backend, OIDCAuthenticationBackend)
    ]
    if not oidc_backends:
        path = "django_phi_oidc.backends.OIDCAuthenticationBackend"
        yield error(
            11,
            f"AUTHENTICATION_BACKENDS lacks {path}.",
            in_settings(f'AUTHENTICATION_BACKENDS = ["{path}"]'),
        )
    hint = "Hooks: create_user, update_user, get_username."
    for backend, hook in product(oidc_backends, UNUSED_BACKEND_HOOKS):
        if getattr(backend, hook) is not getattr(OIDCAuthenticationBackend, hook):
            yield error(12, f"{backend.__name__}.{hook} is never called.", hint)
    if (path := "django.contrib.auth.backends.ModelBackend") in settings.AUTHENTICATION_BACKENDS:
        hint = in_settings(f'AUTHENTICATION_BACKENDS.remove("{path}")')
        yield warning(7, "ModelBackend permits sign-in by password, without the provider.", hint)


@register_check(Tags.security)
def check_new_accounts(**kwargs: Any) -> Messages:
    """E036: a first sign-in can't create an account; W036: only if the manager sets a field that it
    is not given.
    """
    if all(provider.provisioning != "create" for provider in conf.providers().values()):
        return
    base = OIDCAuthenticationBackend
    line = in_settings('AUTHENTICATION_BACKENDS = ["portal.backends.PortalBackend"]')
    hint = f"Override create_user in a subclass of OIDCAuthenticationBackend. {line}"
    for backend in map(import_string, settings.AUTHENTICATION_BACKENDS):
        if not issubclass(backend, base) or backend.create_user is not base.create_user:
            continue
        has_own_username = backend.get_username is not base.get_username
        for missing in list_missing_fields(get_user_model(), has_own_username=has_own_username):
            if missing.is_certain:
                yield error(36, missing.reason, hint)
            else:
                yield warning(36, missing.reason, hint)


@register_check(Tags.security, deploy=True)
def check_outside_copy(**kwargs: Any) -> Messages:
    """W065: no checkpoint outside of the audit database shows that its newest events were
    deleted.
    """
    is_copied = any(is_declared() for is_declared in audit_log_copies)
    if not is_copied and not audit_conf.witness_file() and not audit_conf.witnesses():
        text = (
            "Nothing outside of the audit database would show that its newest events and "
            "checkpoints were deleted."
        )
        hint = (
            "Declare witnesses in AUDIT['witnesses'], a sink, or a "
            f"file on another machine. {SET_WITNESS_FILE}"
        )
        yield warning(65, text, hint)


@register_check(Tags.security)
def check_audit_log_keys(**kwargs: Any) -> Messages:
    """E022: the keys of the audit log, and its name."""
    try:
        signing_keys.get_checkpoint_origin(1)
        if signing_keys.find_signing_key() is not None or get_key_source("audit_public"):
            signing_keys.get_public_keys()
    except KeyMissing as fault:
        yield error(22, str(fault), "Make a signing key: manage.py phi_oidc keys generate")


@register_check(Tags.security, deploy=True)
def check_signing_key(**kwargs: Any) -> Messages:
    """W019: this process can sign checkpoints."""
    if get_key_source("audit_signing"):
        hint = "Unset PHI_AUDIT_SIGNING_KEY for web processes, and set KEYS['audit_public'] there."
        yield warning(
            19, "This process has the key that signs the audit log; only the sealer needs it.", hint
        )


@register_check(Tags.security, deploy=True)
def check_key_permissions(**kwargs: Any) -> Messages:
    """W047: every user of the server can open a key file, or a folder of keys."""
    rings = (*KEY_VARIABLES, "audit_signing", *get_group_members("KEYS"))
    paths = {}
    for ring in rings:
        paths[f"['KEYS'][{ring!r}]"] = get_key_source(ring)
    for name, provider in conf.providers().items():
        key_file = provider.client_certificate_key or provider.client_certificate
        paths[f"['PROVIDERS'][{name!r}]: the file of the client certificate's key"] = key_file
    for option, path in paths.items():
        with suppress(OSError):
            if (
                isinstance(path, Path)
                and (mode := stat.S_IMODE(path.stat().st_mode)) & stat.S_IRWXO
            ):
                wanted = "0700" if path.is_dir() else "0600"
                text = (
                    f"PHI_OIDC{option} has mode {mode:04o}: every user of this server can open it."
                )
                yield warning(47, text, f"chmod {wanted} {path}")


@register_check(Tags.security)
def check_trusted_proxies(**kwargs: Any) -> Messages:
    """W041: the portal is behind a proxy, and takes the proxy's address for that of each client."""
    if getattr(settings, "SECURE_PROXY_SSL_HEADER", None) and not audit_conf.trusted_proxies():
        text = (
            "SECURE_PROXY_SSL_HEADER is set, but TRUSTED_PROXIES is "
            "empty: events have the address of the proxy."
        )
        text += " All clients share the limits for one address."
        yield warning(41, text, in_settings('PHI_OIDC["TRUSTED_PROXIES"] = ["10.0.0.0/24"]'))
