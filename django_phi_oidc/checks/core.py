"""System checks of the providers, the keys, the sinks and Django's own settings; errors, or rules that are weakened."""

import stat
from collections.abc import Callable, Iterable
from contextlib import suppress
from datetime import timedelta
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.checks import Tags
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .. import conf
from ..access.policy import PURPOSES
from ..anomalies.tasks import get_declared_rules
from ..audit.log import signing_keys
from ..config.providers import ProviderDeclaration, is_loopback_http
from ..crypto import keyring, retention_keys
from ..errors import KeyMissing
from ..login.backend import BreakGlassBackend, OIDCAuthenticationBackend
from ..subjects.account_fields import list_missing_fields
from ._messages import Messages, error, register_check, warning

UNUSED_BACKEND_HOOKS = ("filter_users_by_claims", "verify_claims", "get_token", "verify_token", "store_tokens")
METRICS_PACKAGES = {"prometheus": "prometheus_client", "opentelemetry": "opentelemetry.metrics"}
_PROVIDER_WARNINGS: tuple[tuple[int, Callable[[ProviderDeclaration], bool], str], ...] = (
    (1, lambda p: p.subject_type == "public", "other clients see the same public subject identifiers."),
    (2, lambda p: p.revocation == "best_effort", "without a revocation endpoint, tokens stay valid after a logout."),
    (3, lambda p: bool(p.trusted_audiences), "ID Tokens for other audiences too are accepted."),
    (4, lambda p: p.leeway > timedelta(seconds=30), "the accepted clock difference is more than 30 s."),
    (5, lambda p: p.max_access_token_lifetime > timedelta(hours=24), "access tokens may be valid for more than a day."),
    (6, lambda p: p.allow_loopback_http and settings.DEBUG, "http is accepted on loopback addresses."),
    (11, lambda p: p.token_endpoint_auth_signing_alg == "RS256", "client assertions are signed with RS256."),
    (12, lambda p: p.client_assertion_audience != "issuer", "client assertions name an endpoint from the metadata."),
    (13, lambda p: p.par == "never", "authorization requests go through the browser, even if they could be pushed."),
    (14, lambda p: p.allow_auth_time_zero, "an auth_time of 0 passes max_age: the time of authentication is unknown."),
    (22, lambda p: p.allow_logout_token_without_exp, "logout tokens without exp are valid for two minutes."),
    (34, lambda p: p.reauthentication != "verify", "after a timeout, single sign-on may suffice to sign in again."),
    (40, lambda p: p.id_token_hint == "always", "ID Tokens are stored with their claims about the person."),
)
"""Number, condition and text of the warnings about a provider's options."""


@register_check(Tags.security)
def check_declarations(**kwargs: Any) -> Messages:
    """PHI_OIDC, its providers, claims, sinks and keys.

    E001 to E007, E021; W001 to W006, W011 to W015, W022, W034, W040, W045.
    """
    try:
        unknown, mistakes = conf.list_unknown_options(), conf.list_mistakes()
    except ImproperlyConfigured as fault:
        yield error(2, str(fault))
        return
    yield from (error(1, text) for text in unknown)
    yield from (error(21 if text.startswith("PHI_OIDC['AUDIT']['sinks']") else 2, text) for text in mistakes)
    invalid = [text for text in mistakes if not text.startswith("PHI_OIDC['AUDIT']['sinks']")]
    for get in (
        conf.account_notices,
        conf.patient_resources,
        get_declared_rules,
        conf.emergency,
        _get_retention_key_stores,
    ):
        try:
            get()
        except ImproperlyConfigured as fault:
            new = [text for text in str(fault).split("\n") if text not in (*unknown, *mistakes)]
            invalid += new
            yield from (error(2, text) for text in new)
    if invalid:
        return
    providers = conf.providers().values()
    if not providers:
        yield error(3, "PHI_OIDC['PROVIDERS'] is empty: sign-in is impossible.")
    yield from _check_keys(_get_retention_key_stores())
    for provider in providers:
        yield from _check_provider(provider)
    yield from _check_shared_issuers(providers)
    purposes = [(claim.name, claim.purpose) for claim in conf.claims().values()]
    purposes += [(scope.name, scope.purpose) for provider in providers for scope in provider.resource_scopes]
    for name, purpose in purposes:
        if purpose not in PURPOSES:
            yield error(7, f"PHI_OIDC: the purpose of {name!r} is not a known HL7 PurposeOfUse code.")


def _get_retention_key_stores() -> list[retention_keys.RetentionKeyStore]:
    return [retention_keys.get_store()] if retention_keys.is_enabled() else []


def _check_keys(stores: Iterable[retention_keys.RetentionKeyStore]) -> Messages:
    for ring in conf.KEY_VARIABLES:
        if ring in conf.KEY_RINGS or conf.get_key_source(ring):
            try:
                keyring.get_keys(ring)
            except KeyMissing as fault:
                yield error(4, str(fault), "manage.py phi_oidc keys generate makes keys.")
    for store in stores:
        try:
            store.names()
        except KeyMissing as fault:
            yield error(4, str(fault))


def _check_shared_issuers(providers: Iterable[ProviderDeclaration]) -> Messages:
    """Accounts are found by issuer and sub, so providers with one issuer share them."""
    names_by_issuer: dict[str, list[str]] = {}
    for provider in providers:
        names_by_issuer.setdefault(provider.issuer, []).append(repr(provider.name))
    for names in names_by_issuer.values():
        if len(names) > 1:
            text = f"Providers {', '.join(names)} have one issuer: a sign-in by one gives access to accounts of all."
            yield warning(15, text)


def _check_provider(provider: ProviderDeclaration) -> Messages:
    subject = f"Provider {provider.name!r}:"
    allows_http = provider.allow_loopback_http and is_loopback_http(provider.issuer)
    if not provider.issuer.startswith("https:") and not allows_http:
        yield error(5, f"{subject} the issuer is not https.")
    if provider.allow_loopback_http and not settings.DEBUG:
        yield error(6, f"{subject} allow_loopback_http is for development; DEBUG is off.")
    for name, _ in provider.metadata_overrides:
        yield warning(45, f"{subject} metadata_overrides replaces {name} of the metadata.")
    for number, applies, text in _PROVIDER_WARNINGS:
        if applies(provider):
            yield warning(number, f"{subject} {text}")


@register_check(Tags.security)
def check_session_engine(**kwargs: Any) -> Messages:
    """E008, E009: session engines whose sessions the server can't end."""
    engine = settings.SESSION_ENGINE
    if engine == "django.contrib.sessions.backends.signed_cookies":
        yield error(8, "signed_cookies sessions can't be ended: a copied cookie stays valid.")
    if engine in ("django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db"):
        backend = settings.CACHES.get(settings.SESSION_CACHE_ALIAS, {}).get("BACKEND", "")
        if backend.rpartition(".")[2] in ("LocMemCache", "DummyCache"):
            yield error(9, "With a per-process cache, a session that was ended stays valid in other processes.")


@register_check(Tags.security)
def check_backends(**kwargs: Any) -> Messages:
    """E011: the OIDC backend is missing; E012: an override is never called; W007, W023, E024: sign-in by password."""
    backends = [import_string(path) for path in settings.AUTHENTICATION_BACKENDS]
    oidc_backends = [backend for backend in backends if issubclass(backend, OIDCAuthenticationBackend)]
    if not oidc_backends:
        yield error(11, "AUTHENTICATION_BACKENDS lacks django_phi_oidc.backends.OIDCAuthenticationBackend.")
    hint = "Hooks: create_user, update_user, get_username."
    for backend, hook in product(oidc_backends, UNUSED_BACKEND_HOOKS):
        if getattr(backend, hook) is not getattr(OIDCAuthenticationBackend, hook):
            yield error(12, f"{backend.__name__}.{hook} is never called.", hint)
    if "django.contrib.auth.backends.ModelBackend" in settings.AUTHENTICATION_BACKENDS:
        yield warning(7, "ModelBackend permits sign-in by password, without the provider.")
    accounts = conf.break_glass_accounts()
    if bool(accounts) != any(issubclass(backend, BreakGlassBackend) for backend in backends):
        yield error(24, "BREAK_GLASS_ACCOUNTS and django_phi_oidc.backends.BreakGlassBackend require each other.")
    elif accounts:
        hint = "" if conf.emergency() else "Without EMERGENCY, they see no record while the provider is unavailable."
        yield warning(23, "Local accounts may sign in by password, without the provider.", hint)


@register_check(Tags.security)
def check_new_accounts(**kwargs: Any) -> Messages:
    """E036: a first sign-in can't create an account; W036: only if the manager sets a field that it is not given."""
    if all(provider.provisioning != "create" for provider in conf.providers().values()):
        return
    base, hint = OIDCAuthenticationBackend, "Override create_user in a subclass of OIDCAuthenticationBackend."
    for backend in map(import_string, settings.AUTHENTICATION_BACKENDS):
        if not issubclass(backend, base) or backend.create_user is not base.create_user:
            continue
        has_own_username = backend.get_username is not base.get_username
        for missing in list_missing_fields(get_user_model(), has_own_username=has_own_username):
            yield error(36, missing.reason, hint) if missing.is_certain else warning(36, missing.reason, hint)


@register_check(Tags.security)
def check_sinks(**kwargs: Any) -> Messages:
    """W016: a sink without TLS, on a loopback address."""
    text = "has no TLS: the receiver on this machine must not forward events in clear."
    for sink in conf.sinks().values():
        if sink.is_plaintext and not settings.DEBUG:
            yield warning(16, f"Sink {sink.name!r} {text}")


@register_check(Tags.security, deploy=True)
def check_outside_copy(**kwargs: Any) -> Messages:
    """W065: no checkpoint outside of the audit database shows that its newest events were deleted."""
    if not conf.sinks() and not conf.witness_file():
        text = "Nothing outside of the audit database would show that its newest events and checkpoints were deleted."
        yield warning(65, text, "Declare a sink in PHI_OIDC['AUDIT']['sinks'], or set 'witness_file'.")


@register_check(Tags.security)
def check_audit_log_keys(**kwargs: Any) -> Messages:
    """E022: the keys of the audit log, and its name."""
    try:
        signing_keys.get_checkpoint_origin(1)
        if signing_keys.find_signing_key() is not None or conf.get_key_source("audit_public"):
            signing_keys.get_public_keys()
    except KeyMissing as fault:
        yield error(22, str(fault), "manage.py phi_oidc keys generate makes a signing key.")


@register_check(Tags.security, deploy=True)
def check_signing_key(**kwargs: Any) -> Messages:
    """W019: this process can sign checkpoints."""
    if conf.get_key_source("audit_signing"):
        hint = "Omit PHI_OIDC['KEYS']['audit_signing'] in web processes, and set 'audit_public' there."
        yield warning(19, "This process has the key that signs the audit log; only the sealer needs it.", hint)


@register_check(Tags.security, deploy=True)
def check_key_permissions(**kwargs: Any) -> Messages:
    """W047: every user of the server can open a key file, or the folder of the retention keys."""
    for ring in (*conf.KEY_VARIABLES, "audit_signing", "retention"):
        path = conf.get_key_source(ring)
        with suppress(OSError):
            if isinstance(path, Path) and (mode := stat.S_IMODE(path.stat().st_mode)) & stat.S_IRWXO:
                wanted = "0700" if ring == "retention" else "0600"
                text = f"PHI_OIDC['KEYS'][{ring!r}] has mode {mode:04o}: every user of this server can open it."
                yield warning(47, text, f"chmod {wanted}")


@register_check(Tags.security)
def check_trusted_proxies(**kwargs: Any) -> Messages:
    """W041: the portal is behind a proxy, and takes the proxy's address for that of each client."""
    if getattr(settings, "SECURE_PROXY_SSL_HEADER", None) and not conf.trusted_proxies():
        text = "SECURE_PROXY_SSL_HEADER is set, but TRUSTED_PROXIES is empty: events have the address of the proxy."
        yield warning(41, text, "All clients then also share the limits for one address.")


@register_check(Tags.security)
def check_metrics(**kwargs: Any) -> Messages:
    """E030: METRICS names a package that is not installed."""
    for name in conf.metrics():
        if not _is_installed(METRICS_PACKAGES[name]):
            hint = f"pip install 'django-phi-oidc[{name}]'"
            yield error(30, f"PHI_OIDC['METRICS']: {name} is not installed.", hint)


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
