"""System checks. E: wrong or unsafe; W: a rule that a setting loosens, all in one place for an auditor.

docs/reference/checks.md explains each id.
"""

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from django.apps import apps
from django.conf import settings
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.contrib.sessions.middleware import SessionMiddleware
from django.core import checks
from django.core.checks import CheckMessage, Tags, register
from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError, connections
from django.utils.module_loading import import_string

from .. import conf
from ..access.policy import PURPOSES
from ..anomalies.tasks import get_declared_rules as declared_rules
from ..audit import db_privileges
from ..audit.log import signing_keys
from ..audit.models import AuditEvent
from ..audit.router import AUDIT_ALIAS, AuditRouter
from ..config.providers import ProviderDeclaration, is_loopback_http
from ..crypto import keyring, retention_keys
from ..errors import KeyMissing
from ..login.backend import BreakGlassBackend, OIDCAuthenticationBackend
from ..siem.tasks import get_declared_sinks as declared_sinks
from ..subjects.models import SubjectDigest

REVOCATION_MIDDLEWARE = "django_phi_oidc.middleware.RevocationMiddleware"
UNUSED_BACKEND_HOOKS = ("filter_users_by_claims", "verify_claims", "get_token", "verify_token", "store_tokens")
REQUIRED_SQLITE_OPTIONS = {
    "transaction_mode": ("IMMEDIATE", "without it, simultaneous writers fail"),
    "timeout": (5, "seconds at least, or writers give up on each other"),
    "init_command": (("journal_mode=wal", "secure_delete=on"), "PRAGMAs that must stand in it"),
}
ENCRYPTED_SSLMODES = ("require", "verify-ca", "verify-full")


def _error(number: int, message: str, hint: str | None = None) -> checks.Error:
    return checks.Error(message, hint=hint, id=f"django_phi_oidc.E{number:03}")


def _warning(number: int, message: str, hint: str | None = None) -> checks.Warning:
    return checks.Warning(message, hint=hint, id=f"django_phi_oidc.W{number:03}")


@register(Tags.security)
def check_declarations(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E001 to E007: PHI_OIDC, its providers, claims and keys; W001 to W006, W011 to W015, W022: its loosenings."""
    found: list[CheckMessage] = []
    try:
        unknown = sorted(set(getattr(settings, "PHI_OIDC", {})) - set(conf.OPTION_NAMES))
        if unknown:
            found.append(_error(1, f"PHI_OIDC has no option {', '.join(unknown)}."))
        conf.trusted_proxies()
        conf.sector_origins()
        conf.revocation_give_up_after()
        conf.idle_timeout()
        conf.absolute_timeout()
        conf.session_recheck()
        conf.end_sessions_on()
        conf.should_clear_all_cookies()
        conf.should_keep_offline_tokens()
        conf.break_glass_account()
        conf.resource_ids()
        conf.patient_resources()
        conf.activation_lifetime()
        conf.alert_recipients()
        declared_rules()
        conf.leakage_guard()
        conf.metrics()
        conf.export_folder()
        conf.roles()
        conf.apis()
        conf.emergency()
        keys_of_retention = [retention_keys.get_store()] if retention_keys.is_enabled() else []
        providers = conf.providers().values()
        claims = conf.claims().values()
    except ImproperlyConfigured as error:
        return [*found, _error(2, str(error))]
    if not providers:
        found.append(_error(3, "PHI_OIDC['PROVIDERS'] is empty: nobody can sign in."))
    rings = (*conf.KEY_RINGS, *([conf.PAIRWISE_KEY_RING] if conf.get_option(conf.PAIRWISE_KEY_RING) else []))
    for ring in rings:
        try:
            keyring.get_keys(ring)
        except KeyMissing as error:
            found.append(_error(4, str(error), "manage.py phi_oidc keys generate makes keys."))
    for store in keys_of_retention:
        try:
            store.names()
        except KeyMissing as error:
            found.append(_error(4, str(error)))
    for provider in providers:
        found += [*_check_insecure_options(provider), *_check_relaxed_options(provider)]
    found += _check_shared_issuers(providers)
    purposes = [(claim.name, claim.purpose) for claim in claims]
    purposes += [(scope.name, scope.purpose) for provider in providers for scope in provider.resource_scopes]
    found += [
        _error(7, f"PHI_OIDC: the purpose of {name!r} is no HL7 PurposeOfUse code that we know.")
        for name, purpose in purposes
        if purpose not in PURPOSES
    ]
    return found


def _check_shared_issuers(providers: Iterable[ProviderDeclaration]) -> Iterator[CheckMessage]:
    """People are known by issuer and sub: what one of these providers allows, it allows for the others' accounts."""
    named: dict[str, list[str]] = {}
    for provider in providers:
        named.setdefault(provider.issuer, []).append(repr(provider.name))
    for names in named.values():
        if len(names) > 1:
            yield _warning(
                15, f"Providers {', '.join(names)} have one issuer: whom one lets in has the accounts of all."
            )


def _check_insecure_options(provider: ProviderDeclaration) -> Iterator[CheckMessage]:
    if not provider.issuer.startswith("https:") and not (
        provider.allow_loopback_http and is_loopback_http(provider.issuer)
    ):
        yield _error(5, f"Provider {provider.name!r}: the issuer is not https.")
    if provider.allow_loopback_http and not settings.DEBUG:
        yield _error(6, f"Provider {provider.name!r}: allow_loopback_http is for development; DEBUG is off.")


def _check_relaxed_options(provider: ProviderDeclaration) -> Iterator[CheckMessage]:
    who = f"Provider {provider.name!r}:"
    if provider.subject_type == "public":
        yield _warning(1, f"{who} public subjects can be joined with those of other clients.")
    if provider.revocation == "best_effort":
        yield _warning(2, f"{who} tokens may outlive a logout where the provider has no revocation endpoint.")
    if provider.trusted_audiences:
        yield _warning(3, f"{who} ID Tokens for other audiences too are accepted.")
    if provider.leeway > timedelta(seconds=30):
        yield _warning(4, f"{who} clocks may differ by {provider.leeway.total_seconds():.0f} s.")
    if provider.max_access_token_lifetime > timedelta(hours=24):
        yield _warning(5, f"{who} access tokens may live longer than a day.")
    if provider.allow_loopback_http and settings.DEBUG:
        yield _warning(6, f"{who} http is accepted on loopback addresses.")
    if provider.token_endpoint_auth_signing_alg == "RS256":
        yield _warning(11, f"{who} client assertions are signed with RS256.")
    if provider.client_assertion_audience == "token_endpoint":
        yield _warning(12, f"{who} the audience of client assertions is an endpoint that the provider names itself.")
    if provider.par == "never":
        yield _warning(13, f"{who} authorization requests go through the browser, even where they could be pushed.")
    if provider.allow_auth_time_zero:
        yield _warning(14, f"{who} an auth_time of 0 passes max_age: nobody knows how long ago people signed in.")
    if provider.allow_logout_token_without_exp:
        yield _warning(22, f"{who} logout tokens without exp are taken for two minutes after their iat.")


@register(Tags.security)
def check_session_engine(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E008, E009: session engines that can't be ended from the server."""
    engine = settings.SESSION_ENGINE
    if engine == "django.contrib.sessions.backends.signed_cookies":
        return [_error(8, "signed_cookies sessions can't be ended: a copied cookie lives on.")]
    if engine in ("django.contrib.sessions.backends.cache", "django.contrib.sessions.backends.cached_db"):
        backend = settings.CACHES.get(settings.SESSION_CACHE_ALIAS, {}).get("BACKEND", "")
        if backend.rpartition(".")[2] in ("LocMemCache", "DummyCache"):
            return [_error(9, "Sessions on a per-process cache live on in the other processes.")]
    return []


@register(Tags.security)
def check_middleware(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E010: RevocationMiddleware is there and sees what the session and the user were."""
    order = list(settings.MIDDLEWARE)
    if REVOCATION_MIDDLEWARE not in order:
        return [
            _error(10, f"{REVOCATION_MIDDLEWARE} is not in MIDDLEWARE: sessions can be lost with their tokens alive.")
        ]
    classes = [import_string(path) for path in order]
    position = order.index(REVOCATION_MIDDLEWARE)
    return [
        _error(10, f"{REVOCATION_MIDDLEWARE} must stand after {needed.__name__}.")
        for needed in (SessionMiddleware, AuthenticationMiddleware)
        if not any(isinstance(each, type) and issubclass(each, needed) for each in classes[:position])
    ]


@register(Tags.security)
def check_backends(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E011: our backend is in use; E012: no dead hook is overridden; W007, W023, E024: passwords beside it."""
    found: list[CheckMessage] = []
    backends = [import_string(path) for path in settings.AUTHENTICATION_BACKENDS]
    ours = [backend for backend in backends if issubclass(backend, OIDCAuthenticationBackend)]
    if not ours:
        found.append(_error(11, "AUTHENTICATION_BACKENDS lacks django_phi_oidc.backends.OIDCAuthenticationBackend."))
    found += [
        _error(12, f"{backend.__name__}.{hook} is never called here.", "Hooks: create_user, update_user, get_username.")
        for backend in ours
        for hook in UNUSED_BACKEND_HOOKS
        if getattr(backend, hook) is not getattr(OIDCAuthenticationBackend, hook)
    ]
    if "django.contrib.auth.backends.ModelBackend" in settings.AUTHENTICATION_BACKENDS:
        found.append(_warning(7, "ModelBackend lets people in by password, past the provider."))
    has_door = any(issubclass(backend, BreakGlassBackend) for backend in backends)
    account = conf.get_option("BREAK_GLASS_ACCOUNT")
    if bool(account) != has_door:
        found.append(_error(24, "BREAK_GLASS_ACCOUNT and django_phi_oidc.backends.BreakGlassBackend need each other."))
    elif account:
        found.append(_warning(23, "A local account may sign in by password, past the provider."))
    return found


@register(Tags.security)
def check_sinks(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E021: SINKS; W016: a sink that is reached without TLS, by loopback."""
    try:
        sinks = declared_sinks().values()
    except ImproperlyConfigured as error:
        return [_error(21, str(error))]
    return [
        _warning(16, f"Sink {sink.name!r} is reached without TLS: what listens there must not pass it on so.")
        for sink in sinks
        if sink.is_plaintext and not settings.DEBUG
    ]


@register(Tags.security)
def check_audit_database(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E013 to E016, E019, E020: the trail has a connection of its own, and true times; W008, W009: what weakens it."""
    found: list[CheckMessage] = []
    if AUDIT_ALIAS not in settings.DATABASES:
        found.append(_error(13, f"DATABASES has no {AUDIT_ALIAS!r}: events would share a request's transaction."))
    elif settings.DATABASES[AUDIT_ALIAS].get("ATOMIC_REQUESTS"):
        found.append(_error(15, f"ATOMIC_REQUESTS on {AUDIT_ALIAS!r} would roll events back with the request."))
    declared: list[Any] = list(settings.DATABASE_ROUTERS)
    routers = [import_string(router) if isinstance(router, str) else type(router) for router in declared]
    if not any(issubclass(router, AuditRouter) for router in routers):
        found.append(_error(14, "DATABASE_ROUTERS lacks django_phi_oidc.audit.router.AuditRouter."))
    for alias in {"default", AUDIT_ALIAS} & set(settings.DATABASES):
        if connections[alias].vendor == "sqlite":
            found += _check_sqlite_options(alias, settings.DATABASES[alias].get("OPTIONS", {}))
    if not settings.USE_TZ:
        found.append(_error(20, "USE_TZ is off: the times of events, tokens and retentions are aware."))
    audit = settings.DATABASES.get(AUDIT_ALIAS, {})
    if "sqlite3" in audit.get("ENGINE", "") and audit.get("NAME") == settings.DATABASES["default"].get("NAME"):
        found.append(_error(19, f"'default' and {AUDIT_ALIAS!r} are one SQLite file: each waits for the other's lock."))
    if "postgresql" in audit.get("ENGINE", "") and not audit.get("OPTIONS", {}).get("connect_timeout"):
        found.append(_warning(9, f"{AUDIT_ALIAS!r} has no connect_timeout: a dead audit server holds up every logout."))
    for label in ("auditlog", "easyaudit"):
        if apps.is_installed(label):
            found.append(_warning(8, f"{label} copies changed fields: tell it to leave our models alone."))
    return found


def _check_sqlite_options(alias: str, options: dict[str, Any]) -> Iterator[CheckMessage]:
    for option, (wanted, why) in REQUIRED_SQLITE_OPTIONS.items():
        value = options.get(option)
        if isinstance(wanted, tuple):
            pragmas = str(value or "").lower().replace(" ", "")
            good = all(pragma in pragmas for pragma in wanted)
        elif isinstance(wanted, int):
            good = isinstance(value, int | float) and value >= wanted
        else:
            good = str(value).upper() == wanted
        if not good:
            yield _error(16, f"DATABASES[{alias!r}]['OPTIONS'][{option!r}] must be {wanted}: {why}.")


@register(Tags.security, deploy=True)
def check_connections(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W017, W018: databases and a broker that are reached through a network in clear."""
    found: list[CheckMessage] = []
    for alias in sorted({"default", AUDIT_ALIAS} & set(settings.DATABASES)):
        declared = settings.DATABASES[alias]
        options = declared.get("OPTIONS", {})
        # libpq takes several, and connects to hostaddr where it is given.
        hosts = options.get("hostaddr") or declared.get("HOST") or options.get("host") or ""
        is_near = all(_is_this_machine(host) for host in str(hosts).split(","))
        if (
            connections[alias].vendor == "postgresql"
            and not is_near
            and options.get("sslmode") not in ENCRYPTED_SSLMODES
        ):
            hint = f"DATABASES[{alias!r}]['OPTIONS']: sslmode verify-full, with sslrootcert."
            found.append(_warning(17, f"{alias!r} is reached in clear, or without noticing that it is.", hint))
    if not getattr(settings, "CELERY_BROKER_USE_SSL", None) and _is_broker_unencrypted(
        getattr(settings, "CELERY_BROKER_URL", "")
    ):
        found.append(_warning(18, "CELERY_BROKER_URL: the broker is reached in clear.", "amqps:// or rediss://"))
    return found


@register(Tags.security)
def check_audit_log_keys(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """E022: the keys of the audit log, and its name."""
    try:
        signing_keys.get_checkpoint_origin(1)
        if signing_keys.find_signing_key() is not None or conf.get_option("AUDIT_PUBLIC_KEYS"):
            signing_keys.get_public_keys()
    except KeyMissing as error:
        return [_error(22, str(error), "manage.py phi_oidc keys generate makes a signing key.")]
    return []


@register(Tags.security, deploy=True)
def check_signing_key(app_configs: Any, **kwargs: Any) -> list[CheckMessage]:
    """W019: this process could sign checkpoints."""
    if not conf.get_option("AUDIT_SIGNING_KEY"):
        return []
    hint = "Leave PHI_OIDC['AUDIT_SIGNING_KEY'] out where people are served, and name AUDIT_PUBLIC_KEYS there."
    return [_warning(19, "This process has the key that signs the audit log; only what seals needs it.", hint)]


@register(Tags.database, deploy=True)
def check_database_role(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """W020: this process's database roles could change the trail; W021: a restore would take all knowledge back."""
    aliases = [alias for alias in (AUDIT_ALIAS, "default") if alias in (databases or ()) and alias in connections]
    found: list[CheckMessage] = []
    if "default" in aliases and db_privileges.is_single_database() and not conf.get_option("AUDIT_WITNESS_FILE"):
        message = (
            "A restore of this one database takes back what the sinks know of the log: nobody would notice a fork."
        )
        found.append(_warning(21, message, "Set PHI_OIDC['AUDIT_WITNESS_FILE'], outside of the database."))
    for alias in aliases:
        try:
            if connections[alias].vendor != "postgresql" or (
                alias == "default" and not db_privileges.is_single_database()
            ):
                continue
            excess = db_privileges.list_excess_privileges(alias, is_sealer=bool(conf.get_option("AUDIT_SIGNING_KEY")))
        except DatabaseError as error:
            return [_error(17, f"The audit database can't be read: {type(error).__name__}.")]
        if excess:
            hint = "manage.py phi_oidc audit grants ROLE prints the SQL of a role that reads and inserts alone."
            found.append(_warning(20, f"The role of {alias!r} could change the trail: it {', '.join(excess)}.", hint))
    return found


def _is_broker_unencrypted(urls: Any) -> bool:
    """Say whether one of the broker's URLs is of a protocol without TLS and leads to another machine."""
    # Celery takes several, as a list or with semicolons.
    for url in ";".join([urls] if isinstance(urls, str) else urls or ()).split(";"):
        try:
            host = urlsplit(url.strip()).hostname or ""
        except ValueError:
            host = "unreadable"
        if url.strip().partition(":")[0] in ("amqp", "pyamqp", "redis") and not _is_this_machine(host):
            return True
    return False


def _is_this_machine(host: str) -> bool:
    """Say whether host is loopback, a Unix socket's directory, or empty, which is one of them."""
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


@register(Tags.database)
def check_audit_tables(app_configs: Any, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """E017, W010: the trail can be read and is there; E018: every subject digest's key is configured."""
    found: list[CheckMessage] = []
    if AUDIT_ALIAS in (databases or ()) and AUDIT_ALIAS in settings.DATABASES:
        try:
            present = AuditEvent._meta.db_table in connections[AUDIT_ALIAS].introspection.table_names()
        except DatabaseError as error:
            return [_error(17, f"The audit database can't be read: {type(error).__name__}.")]
        if not present:
            # No error: it would keep migrate from making the table.
            found.append(_warning(10, f"{AUDIT_ALIAS!r} has no trail.", f"manage.py migrate --database {AUDIT_ALIAS}"))
    if "default" in (databases or ()):
        found += _check_subject_digest_keys()
    return found


def _check_subject_digest_keys() -> list[CheckMessage]:
    try:
        if SubjectDigest._meta.db_table not in connections["default"].introspection.table_names():
            return []
        configured = [key.id for key in keyring.get_keys("SUBJECT_KEYS")]
        orphaned = SubjectDigest.objects.exclude(key_id__in=configured).values_list("key_id", flat=True).distinct()
        return [_error(18, f"Subject digests bear key {key_id}, which is not configured.") for key_id in orphaned]
    except (DatabaseError, KeyMissing) as error:
        return [_error(18, f"The subject digests can't be checked: {type(error).__name__}.")]
