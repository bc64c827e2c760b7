"""System checks of the providers, the keys, the sinks and Django's own settings; errors, or rules that are weakened."""

from collections.abc import Callable, Iterable, Iterator
from datetime import timedelta
from importlib.util import find_spec
from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Tags, register
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
from ._messages import error, warning

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
    (
        12,
        lambda p: p.client_assertion_audience == "token_endpoint",
        "the audience of client assertions is an endpoint from the provider's own metadata.",
    ),
    (13, lambda p: p.par == "never", "authorization requests go through the browser, even if they could be pushed."),
    (14, lambda p: p.allow_auth_time_zero, "an auth_time of 0 passes max_age: the time of authentication is unknown."),
    (
        22,
        lambda p: p.allow_logout_token_without_exp,
        "logout tokens without exp are accepted for two minutes after their iat.",
    ),
)
"""Number, condition and text of the warnings about a provider's options."""


@register(Tags.security)
def check_declarations(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E001 to E007, E021: PHI_OIDC, its providers, claims, sinks and keys; W001 to W006, W011 to W015, W022."""
    try:
        messages: list[CheckMessage] = [error(1, text) for text in conf.list_unknown_options()]
        mistakes = conf.list_mistakes()
    except ImproperlyConfigured as fault:
        return [error(2, str(fault))]
    messages += [error(21 if text.startswith("PHI_OIDC['AUDIT']['sinks']") else 2, text) for text in mistakes]
    reported = {message.msg for message in messages}
    for get in (conf.patient_resources, get_declared_rules, conf.emergency, _get_retention_key_stores):
        try:
            get()
        except ImproperlyConfigured as fault:
            messages += [error(2, text) for text in str(fault).split("\n") if text not in reported]
    if any(message.id == "django_phi_oidc.E002" for message in messages):
        return messages
    providers = conf.providers().values()
    if not providers:
        messages.append(error(3, "PHI_OIDC['PROVIDERS'] is empty: sign-in is impossible."))
    messages += _check_keys(_get_retention_key_stores())
    for provider in providers:
        messages += _check_provider(provider)
    messages += _check_shared_issuers(providers)
    purposes = [(claim.name, claim.purpose) for claim in conf.claims().values()]
    purposes += [(scope.name, scope.purpose) for provider in providers for scope in provider.resource_scopes]
    return messages + [
        error(7, f"PHI_OIDC: the purpose of {name!r} is not a known HL7 PurposeOfUse code.")
        for name, purpose in purposes
        if purpose not in PURPOSES
    ]


def _get_retention_key_stores() -> list[retention_keys.RetentionKeyStore]:
    return [retention_keys.get_store()] if retention_keys.is_enabled() else []


def _check_keys(stores: Iterable[retention_keys.RetentionKeyStore]) -> Iterator[CheckMessage]:
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


def _check_shared_issuers(providers: Iterable[ProviderDeclaration]) -> Iterator[CheckMessage]:
    """Accounts are found by issuer and sub, so providers with one issuer share them."""
    names_by_issuer: dict[str, list[str]] = {}
    for provider in providers:
        names_by_issuer.setdefault(provider.issuer, []).append(repr(provider.name))
    for names in names_by_issuer.values():
        if len(names) > 1:
            text = f"Providers {', '.join(names)} have one issuer: a sign-in by one gives access to accounts of all."
            yield warning(15, text)


def _check_provider(provider: ProviderDeclaration) -> Iterator[CheckMessage]:
    subject = f"Provider {provider.name!r}:"
    allows_http = provider.allow_loopback_http and is_loopback_http(provider.issuer)
    if not provider.issuer.startswith("https:") and not allows_http:
        yield error(5, f"{subject} the issuer is not https.")
    if provider.allow_loopback_http and not settings.DEBUG:
        yield error(6, f"{subject} allow_loopback_http is for development; DEBUG is off.")
    for number, applies, text in _PROVIDER_WARNINGS:
        if applies(provider):
            yield warning(number, f"{subject} {text}")


@register(Tags.security)
def check_session_engine(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E008, E009: session engines whose sessions the server can't end."""
    engine = settings.SESSION_ENGINE
    if engine == "django.contrib.sessions.backends.signed_cookies":
        return [error(8, "signed_cookies sessions can't be ended: a copied cookie stays valid.")]
    if engine in ("django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db"):
        backend = settings.CACHES.get(settings.SESSION_CACHE_ALIAS, {}).get("BACKEND", "")
        if backend.rpartition(".")[2] in ("LocMemCache", "DummyCache"):
            return [error(9, "With a per-process cache, a session that was ended stays valid in other processes.")]
    return []


@register(Tags.security)
def check_backends(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E011: the OIDC backend is missing; E012: an override is never called; W007, W023, E024: sign-in by password."""
    messages: list[CheckMessage] = []
    backends = [import_string(path) for path in settings.AUTHENTICATION_BACKENDS]
    oidc_backends = [backend for backend in backends if issubclass(backend, OIDCAuthenticationBackend)]
    if not oidc_backends:
        messages.append(error(11, "AUTHENTICATION_BACKENDS lacks django_phi_oidc.backends.OIDCAuthenticationBackend."))
    hint = "Hooks: create_user, update_user, get_username."
    messages += [
        error(12, f"{backend.__name__}.{hook} is never called.", hint)
        for backend in oidc_backends
        for hook in UNUSED_BACKEND_HOOKS
        if getattr(backend, hook) is not getattr(OIDCAuthenticationBackend, hook)
    ]
    if "django.contrib.auth.backends.ModelBackend" in settings.AUTHENTICATION_BACKENDS:
        messages.append(warning(7, "ModelBackend permits sign-in by password, without the provider."))
    try:
        account = conf.break_glass_account()
    except ImproperlyConfigured:  # E002 reports it
        return messages
    if bool(account) != any(issubclass(backend, BreakGlassBackend) for backend in backends):
        text = "BREAK_GLASS_ACCOUNT and django_phi_oidc.backends.BreakGlassBackend require each other."
        messages.append(error(24, text))
    elif account:
        messages.append(warning(23, "A local account may sign in by password, without the provider."))
    return messages


@register(Tags.security)
def check_sinks(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W016: a sink without TLS, on a loopback address."""
    try:
        sinks = conf.sinks().values()
    except ImproperlyConfigured:  # E021 reports it
        return []
    return [
        warning(16, f"Sink {sink.name!r} has no TLS: the receiver on this machine must not forward events in clear.")
        for sink in sinks
        if sink.is_plaintext and not settings.DEBUG
    ]


@register(Tags.security)
def check_audit_log_keys(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E022: the keys of the audit log, and its name."""
    try:
        signing_keys.get_checkpoint_origin(1)
        if signing_keys.find_signing_key() is not None or conf.get_key_source("audit_public"):
            signing_keys.get_public_keys()
    except KeyMissing as fault:
        return [error(22, str(fault), "manage.py phi_oidc keys generate makes a signing key.")]
    except ImproperlyConfigured:  # E002 reports it
        pass
    return []


@register(Tags.security, deploy=True)
def check_signing_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W019: this process can sign checkpoints."""
    try:
        if not conf.get_key_source("audit_signing"):
            return []
    except ImproperlyConfigured:  # E002 reports it
        return []
    hint = "Omit PHI_OIDC['KEYS']['audit_signing'] in web processes, and set 'audit_public' there."
    return [warning(19, "This process has the key that signs the audit log; only the sealer needs it.", hint)]


@register(Tags.security)
def check_metrics(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E030: METRICS names a package that is not installed."""
    try:
        exporters = conf.metrics()
    except ImproperlyConfigured:  # E002 reports it
        return []
    return [
        error(30, f"PHI_OIDC['METRICS']: {name} is not installed.", f"pip install 'django-phi-oidc[{name}]'")
        for name in exporters
        if not _is_installed(METRICS_PACKAGES[name])
    ]


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False
