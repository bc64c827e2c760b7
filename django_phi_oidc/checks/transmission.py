"""System checks of connections to other machines: data must not be sent in clear (45 CFR
164.312(e)).
"""

import ipaddress
import re
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from typing import Any
from urllib.parse import urlsplit

from celery import current_app
from django.conf import settings
from django.contrib.sessions.backends.cache import SessionStore as CacheStore
from django.contrib.sessions.backends.cached_db import SessionStore as CachedDatabaseStore
from django.core.checks import Tags
from django.core.mail.backends.smtp import EmailBackend
from django.db import connections
from django.utils.module_loading import import_string

from .._internal.check_messages import Messages, in_settings, register_check, warning
from ..audit.router import AUDIT_ALIAS

PLAINTEXT_SCHEMES = ("amqp", "pyamqp", "redis", "sentinel", "memcached")
"""Of Celery and of caches. Their TLS has a scheme of its own, or an option."""
_CELERY_LINES = {
    "broker": 'CELERY_BROKER_URL = "amqps://…"  # or rediss://',
    "result backend": 'CELERY_RESULT_BACKEND = "rediss://…"',
}


@register_check(Tags.security, deploy=True)
def check_transmission(**kwargs: Any) -> Messages:
    """W017, W018, W051, W052: connections to another machine that are not encrypted, or could be
    intercepted.
    """
    yield from _check_databases()
    # A project may have configured its Celery app without the settings, or may not have loaded the
    # app here.
    for name in sorted(
        {name for name, urls in _iter_celery_urls() if any(map(_is_plaintext, urls))}
    ):
        yield warning(
            18,
            f"The connection to the Celery {name} is not encrypted.",
            in_settings(_CELERY_LINES[name]),
        )
    alias = _find_session_cache_alias()
    if any(map(_is_plaintext, _list_cache_urls(settings.CACHES.get(alias, {})))):
        text = f"SESSION_ENGINE: sessions are sent unencrypted to the cache {alias!r}."
        hint = "Or the socket of a server on this machine. " + in_settings(
            f'CACHES["{alias}"]["LOCATION"] = "rediss://…"'
        )
        yield warning(51, text, hint)
    if any(_is_plaintext_mailer(path, options) for path, options in _iter_mailers()):
        text = (
            "Mail, such as error reports and notifications, is sent unencrypted to another machine."
        )
        has_mailers = getattr(settings, "MAILERS", None) is not None
        if has_mailers:
            line = 'MAILERS["default"]["OPTIONS"]["use_tls"] = True'
        else:
            line = "EMAIL_USE_TLS = True"

        yield warning(52, text, in_settings(line))


def _check_databases() -> Messages:
    for alias in sorted({"default", AUDIT_ALIAS} & set(settings.DATABASES)):
        declared = settings.DATABASES[alias]
        options = declared.get("OPTIONS", {})
        # libpq accepts several hosts, and connects to hostaddr if it is set.
        hosts = options.get("hostaddr") or declared.get("HOST") or options.get("host") or ""
        # A service of libpq may name any host.
        is_local = all(map(_is_this_machine, str(hosts).split(","))) and not options.get("service")
        # Other modes do not require TLS, or accept the certificate of another server.
        if (
            connections[alias].vendor == "postgresql"
            and not is_local
            and options.get("sslmode") != "verify-full"
        ):
            value = '{"sslmode": "verify-full", "sslrootcert": "/etc/ssl/…"}'
            hint = in_settings(f'DATABASES["{alias}"].setdefault("OPTIONS", {{}}).update({value})')
            yield warning(
                17,
                f"The connection to {alias!r} may be unencrypted, or reach another server.",
                hint,
            )


def _iter_celery_urls() -> Iterator[tuple[str, list[str]]]:
    """Yield which connection it is, and its URLs, for each that has no TLS options."""
    conf = current_app.conf
    if not getattr(settings, "CELERY_BROKER_USE_SSL", None):
        yield "broker", _split_urls(getattr(settings, "CELERY_BROKER_URL", ""))
    if not conf.broker_use_ssl:
        yield "broker", [*_split_urls(conf.broker_read_url), *_split_urls(conf.broker_write_url)]
    if not getattr(settings, "CELERY_REDIS_BACKEND_USE_SSL", None):
        yield "result backend", _split_urls(getattr(settings, "CELERY_RESULT_BACKEND", ""))
    if not conf.redis_backend_use_ssl:
        yield "result backend", _split_urls(conf.result_backend)


def _split_urls(urls: Any) -> list[str]:
    """Return the URLs: Celery accepts several, as a list or with semicolons."""
    texts: Iterable[str]
    if isinstance(urls, str):
        texts = [urls]
    else:
        texts = urls or ()
    result = []
    for text in texts:
        for url in text.split(";"):
            result.append(url.strip())
    return result


def _is_plaintext(url: str) -> bool:
    """Say whether the URL has a protocol without TLS and the host of another machine."""
    try:
        host = urlsplit(url).hostname or ""
    except ValueError:
        host = "unreadable"
    return url.partition(":")[0] in PLAINTEXT_SCHEMES and not _is_this_machine(host)


def _find_session_cache_alias() -> str:
    """Return the alias of the cache that stores sessions, also for a subclass of Django's engines;
    empty: none does.
    """
    store = import_module(settings.SESSION_ENGINE).SessionStore
    if issubclass(store, CacheStore | CachedDatabaseStore):
        return settings.SESSION_CACHE_ALIAS
    return ""


def _list_cache_urls(cache: Mapping[str, Any]) -> list[str]:
    """Return the URLs of the servers of the cache. Memcached has none, and an option for TLS."""
    declared = cache.get("LOCATION") or ()
    texts: Iterable[Any]
    if isinstance(declared, str):
        texts = re.split("[;,]", declared)
    else:
        texts = declared

    locations = [str(text).strip() for text in texts]
    if "memcache" not in cache.get("BACKEND", "").lower():
        return locations
    uses_tls = cache.get("OPTIONS", {}).get("tls_context")
    cache_urls = []
    for text in locations:
        if not uses_tls and not text.startswith(("unix:", "/")):
            cache_urls.append(f"memcached://{text}")
    return cache_urls


def _iter_mailers() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield backend and options of each mailer: from MAILERS, or the settings that it replaces in
    Django 6.1.
    """
    mailers: Any = getattr(settings, "MAILERS", None)
    if mailers is None:
        names = {"host": "EMAIL_HOST", "use_tls": "EMAIL_USE_TLS", "use_ssl": "EMAIL_USE_SSL"}
        yield (
            settings.EMAIL_BACKEND,
            {option: getattr(settings, name) for option, name in names.items()},
        )
        return
    for mailer in mailers.values():
        yield (
            mailer.get("BACKEND", f"{EmailBackend.__module__}.EmailBackend"),
            mailer.get("OPTIONS", {}),
        )


def _is_plaintext_mailer(backend: str, options: Mapping[str, Any]) -> bool:
    """Say whether the backend sends by SMTP in clear. Backends of other protocols are NOT
    checked.
    """
    is_encrypted = options.get("use_tls") or options.get("use_ssl")
    is_remote = not _is_this_machine(options.get("host") or "localhost")
    return is_remote and not is_encrypted and issubclass(import_string(backend), EmailBackend)


def _is_this_machine(host: str) -> bool:
    """Say whether host is loopback, the directory of a Unix socket, or empty, which means one of
    these.
    """
    if host in ("", "localhost") or host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
