"""What an attack runs in: throw-away databases, caches, keys and messages, and of all else the project's own."""

import logging
import os
import types
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from celery import current_app
from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.db import connections
from django.test import override_settings
from django.test.utils import setup_databases, setup_test_environment, teardown_databases, teardown_test_environment
from django.urls import get_resolver, include, path

from .. import entropy
from ..declarations import ClaimDeclaration
from .authority import found_authority
from .op import Account, DemoProvider, TLSFiles, demo_accounts
from .scene import WHO, Portal, Scene, who

LOCAL_MEMORY = "django.core.cache.backends.locmem.LocMemCache"
DEMO_ACR = demo_accounts()[0].acr
_BROKERS = ("broker_url", "broker_read_url", "broker_write_url")
_HANDLERS = ("handler400", "handler403", "handler404", "handler500")


@contextmanager
def staged(portal: Portal, claims: Mapping[str, ClaimDeclaration]) -> Iterator[Scene]:
    """Lead the project to a provider that lies, for the length of the block; nothing of its own is written to.

    Its settings, middleware, URLs, backends and templates are as they are. Not its own are: the databases, which are
    made for this and destroyed; caches, mails and Celery's broker, which are in memory; the directory of
    `RETENTION_KEYS`; the issuer, and `provisioning`, without which no control could be accepted.
    Raises: ImproperlyConfigured when a database would be one that was there before.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="phi-oidc-attack-")))
        setup_test_environment(debug=False)
        stack.callback(teardown_test_environment)
        stack.enter_context(throw_away_databases(folder))
        stack.enter_context(_quiet())
        stack.enter_context(_messages_in_memory())
        stack.enter_context(override_settings(**_surroundings(folder)))
        yield stack.enter_context(scene_of(folder, portal, said_of(claims)))


@contextmanager
def scene_of(folder: Path, portal: Portal, claims: Mapping[str, Any]) -> Iterator[Scene]:
    """Run the provider that lies, over TLS. folder: for its certificates."""
    authority = found_authority(folder, "attack")
    certificate = authority.certify("127.0.0.1")
    acr = next(iter(portal.parsed.acr_values), DEMO_ACR)
    accounts = [Account(account.username, account.password, acr=acr) for account in demo_accounts()]
    op = DemoProvider(accounts=accounts, tls=TLSFiles(certificate, certificate))
    with op.running():
        yield Scene(op, portal, authority.path, found_authority(folder, "another").path, claims)


@contextmanager
def throw_away_databases(folder: Path) -> Iterator[None]:
    """Make an empty database for each alias, and destroy it; SQLite's lie in folder.

    They are named after this process, so that a test run of the project's beside this one loses nothing.
    Raises: ImproperlyConfigured when an alias still reaches what it reached before.
    """
    before = {alias: str(connections[alias].settings_dict["NAME"]) for alias in connections}
    with ExitStack() as stack:
        for alias, real in before.items():
            if connections[alias].vendor == "sqlite":
                # Nobody minds whether it survives a power cut.
                command = connections[alias].settings_dict["OPTIONS"].get("init_command", "")
                stack.enter_context(_with(alias, "OPTIONS", init_command=f"{command};PRAGMA synchronous=OFF"))
                test_name = str(folder / f"{alias}.sqlite3")
            else:
                test_name = f"attack_{os.getpid()}_{real}"
            stack.enter_context(_with(alias, "TEST", NAME=test_name))
        made = setup_databases(verbosity=0, interactive=False, serialized_aliases=())
        stack.callback(teardown_databases, made, verbosity=0)
        # Django closes one alias before it drops a database; PostgreSQL keeps one that another is still connected to.
        stack.callback(connections.close_all)
        same = [alias for alias, real in before.items() if connections[alias].settings_dict["NAME"] == real]
        if same:
            raise ImproperlyConfigured(f"No throw-away database could be made for {', '.join(same)}.")
        yield


@contextmanager
def _with(alias: str, key: str, **changed: str) -> Iterator[None]:
    """Change a connection's settings for the length of the block."""
    declared: Any = connections[alias].settings_dict
    before = declared[key]
    declared[key] = {**before, **changed}
    try:
        yield
    finally:
        declared[key] = before


def said_of(declared: Mapping[str, ClaimDeclaration]) -> dict[str, Any]:
    """Return what the provider says of whoever signs in: for each claim a value that is nobody's, of its own form."""
    return {name: _value(name, claim) for name, claim in declared.items()}


def _value(name: str, claim: ClaimDeclaration) -> Any:
    text = f"Kanarienvögel & {entropy.token_b64url(12)}"
    if name.endswith("_verified"):
        return True
    if name.endswith("date"):
        drawn = entropy.token_bytes(3)
        return f"18{drawn[0] % 100:02}-{1 + drawn[1] % 12:02}-{1 + drawn[2] % 28:02}"
    if name == "email":
        return f"{entropy.token_b64url(12)}@example.org".lower()
    if claim.members or name == "address":
        return {member: f"{text} {member}" for member in claim.members or ("street_address", "locality")}
    return text


def _surroundings(folder: Path) -> dict[str, Any]:
    """Return the settings that keep an attack away from what is the project's own."""
    caches = {alias: {"BACKEND": LOCAL_MEMORY, "LOCATION": f"attack-{alias}"} for alias in settings.CACHES}
    changed: dict[str, Any] = {"ROOT_URLCONF": _urls(), "CACHES": caches}
    if "RETENTION_KEYS" in getattr(settings, "PHI_OIDC", {}):
        keys = folder / "retention-keys"
        keys.mkdir()
        changed["PHI_OIDC"] = {**settings.PHI_OIDC, "RETENTION_KEYS": keys}
    return changed


def _urls() -> types.ModuleType:
    """Return the project's URLs, and one more that says who is signed in."""
    project: Any = get_resolver().urlconf_module
    urls: Any = types.ModuleType("django_phi_oidc_attack_urls")
    urls.urlpatterns = [path(WHO.lstrip("/"), login_not_required(who)), path("", include(settings.ROOT_URLCONF))]
    for handler in _HANDLERS:
        if hasattr(project, handler):
            setattr(urls, handler, getattr(project, handler))
    return urls  # type: ignore[no-any-return]  # a module


@contextmanager
def _messages_in_memory() -> Iterator[None]:
    """Let no message reach the project's broker."""
    before = {name: current_app.conf.get(name) for name in _BROKERS}
    # To Celery a variable says more than a setting.
    said = {
        name: os.environ.pop(f"CELERY_{name.upper()}") for name in _BROKERS if f"CELERY_{name.upper()}" in os.environ
    }
    current_app.conf.update(dict.fromkeys(_BROKERS, "memory://"))
    try:
        if not current_app.connection_for_write().as_uri().startswith("memory:"):
            raise ImproperlyConfigured("Celery's messages would reach a broker.")
        yield
    finally:
        current_app.conf.update(before)
        os.environ.update({f"CELERY_{name.upper()}": value for name, value in said.items()})


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the refusals' lines out of the project's logs."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    handlers = {handler for logger in loggers for handler in logger.handlers}
    for handler in handlers:
        handler.addFilter(_nothing)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_nothing)


def _nothing(record: logging.LogRecord) -> bool:
    return False
