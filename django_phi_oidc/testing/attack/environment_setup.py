"""Sets up an attack environment: temporary databases, caches, keys and broker, otherwise the
project's settings.
"""

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
from django.test.utils import (
    setup_databases,
    setup_test_environment,
    teardown_databases,
    teardown_test_environment,
)
from django.urls import get_resolver, include, path

from ..._internal import randomness
from ...config.claims import ClaimDeclaration
from ...config.providers import ProviderDeclaration
from ...contrib.common.retention_key_folder import prepare_folder
from ..mock_provider import Account, DemoProvider, TLSFiles, demo_accounts
from .environment import (
    GUARDED_PATH,
    WHOAMI_PATH,
    AttackEnvironment,
    Portal,
    guarded_view,
    whoami_view,
)
from .throwaway_ca import create_certificate_authority

LOCMEM_CACHE_BACKEND = "django.core.cache.backends.locmem.LocMemCache"
DEMO_ACR = demo_accounts()[0].acr
_BROKER_SETTINGS = ("broker_url", "broker_read_url", "broker_write_url")
_ERROR_HANDLERS = ("handler400", "handler403", "handler404", "handler500")


@contextmanager
def set_up_attack_environment(
    portal: Portal, claim_declarations: Mapping[str, ClaimDeclaration]
) -> Iterator[AttackEnvironment]:
    """Connect the project to the mock provider for the duration of the block, without writing to
    its own data.

    Settings, middleware, URLs, backends and templates are those of the project. Replaced are: the
    databases, by new ones that are destroyed afterwards; caches, mails and Celery's broker, by ones
    in memory; the directory of `KEYS['retention']`; the issuer; and `provisioning`, because the
    controls need new accounts.
    Raises: ImproperlyConfigured if a database would be an existing one.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="phi-oidc-attack-")))
        setup_test_environment(debug=False)
        stack.callback(teardown_test_environment)
        stack.enter_context(create_throwaway_databases(folder))
        stack.enter_context(_suppress_logging())
        stack.enter_context(_use_in_memory_broker())
        stack.enter_context(override_settings(**_create_isolation_settings(folder)))
        yield stack.enter_context(
            run_attack_provider(folder, portal, create_claim_values(claim_declarations))
        )


@contextmanager
def run_attack_provider(
    directory: Path, portal: Portal, claims: Mapping[str, Any]
) -> Iterator[AttackEnvironment]:
    """Run the mock provider over TLS. directory: for its certificates."""
    authority = create_certificate_authority(directory, "attack")
    certificate = authority.create_server_certificate("127.0.0.1")
    op = DemoProvider(
        accounts=_create_accounts(portal.declaration), tls=TLSFiles(certificate, certificate)
    )
    op.state.trust_mark = portal.declaration.vtm
    untrusted = create_certificate_authority(directory, "untrusted")
    with op.running():
        yield AttackEnvironment(
            op, portal, authority.certificate_path, untrusted.certificate_path, claims
        )


def _create_accounts(declaration: ProviderDeclaration) -> list[Account]:
    """Return accounts whose sign-ins have the levels that the project requires."""
    acr = next(iter(declaration.accepted_acr_values), DEMO_ACR)
    vot = next(iter(declaration.vtr), "")
    accounts = []
    for account in demo_accounts():
        accounts.append(
            Account(
                account.username, account.password, acr=acr, vot=vot, amr=declaration.amr_required
            )
        )
    return accounts


@contextmanager
def create_throwaway_databases(directory: Path) -> Iterator[None]:
    """Create an empty database for each alias, and destroy it afterwards. SQLite files are in
    directory.

    Their names contain the process id, so that they do not collide with a test run of the project.
    Raises: ImproperlyConfigured if an alias still refers to its own database.
    """
    names = {alias: str(connections[alias].settings_dict["NAME"]) for alias in connections}
    with ExitStack() as stack:
        for alias, name in names.items():
            if connections[alias].vendor == "sqlite":
                # Durability is not needed.
                command = connections[alias].settings_dict["OPTIONS"].get("init_command", "")
                command = f"{command};PRAGMA synchronous=OFF"
                stack.enter_context(
                    _override_connection_settings(alias, "OPTIONS", init_command=command)
                )
                test_name = str(directory / f"{alias}.sqlite3")
            else:
                test_name = f"attack_{os.getpid()}_{name}"
            stack.enter_context(_override_connection_settings(alias, "TEST", NAME=test_name))
        created = setup_databases(verbosity=0, interactive=False, serialized_aliases=())
        stack.callback(teardown_databases, created, verbosity=0)
        # Django closes only one alias before it drops a database, but PostgreSQL does not drop a
        # database with open connections.
        stack.callback(connections.close_all)
        unchanged = []
        for alias, name in names.items():
            if connections[alias].settings_dict["NAME"] == name:
                unchanged.append(alias)
        if unchanged:
            raise ImproperlyConfigured(
                f"No temporary database could be created for {', '.join(unchanged)}."
            )
        yield


@contextmanager
def _override_connection_settings(alias: str, key: str, **overrides: str) -> Iterator[None]:
    settings_dict: Any = connections[alias].settings_dict
    previous = settings_dict[key]
    settings_dict[key] = {**previous, **overrides}
    try:
        yield
    finally:
        settings_dict[key] = previous


def create_claim_values(claim_declarations: Mapping[str, ClaimDeclaration]) -> dict[str, Any]:
    """Return an invented, plausible value for each claim."""
    claim_values = {}
    for name, claim in claim_declarations.items():
        claim_values[name] = _create_claim_value(name, claim)
    return claim_values


def _create_claim_value(name: str, claim: ClaimDeclaration) -> Any:
    text = f"Kanarienvögel & {randomness.token_b64url(12)}"
    if name.endswith("_verified"):
        return True
    if name.endswith("date"):
        year, month, day = randomness.token_bytes(3)
        return f"18{year % 100:02}-{1 + month % 12:02}-{1 + day % 28:02}"
    if name == "email":
        return f"{randomness.token_b64url(12)}@example.org".lower()
    if claim.members or name == "address":
        claim_value = {}
        for member in claim.members or ("street_address", "locality"):
            claim_value[member] = f"{text} {member}"
        return claim_value
    return text


def _create_isolation_settings(directory: Path) -> dict[str, Any]:
    """Return the settings that keep an attack away from the project's data."""
    caches = {}
    for alias in settings.CACHES:
        caches[alias] = {"BACKEND": LOCMEM_CACHE_BACKEND, "LOCATION": f"attack-{alias}"}
    overrides: dict[str, Any] = {"ROOT_URLCONF": _create_urlconf(), "CACHES": caches}
    declared = getattr(settings, "PHI_OIDC", {})
    if "retention" in declared.get("KEYS", {}):
        keys = directory / "retention-keys"
        prepare_folder(keys)
        overrides["PHI_OIDC"] = {**declared, "KEYS": {**declared["KEYS"], "retention": keys}}
    return overrides


def _create_urlconf() -> types.ModuleType:
    """Return the project's URLs, and two that return the signed-in user."""
    project: Any = get_resolver().urlconf_module
    urls: Any = types.ModuleType("django_phi_oidc_attack_urls")
    urls.urlpatterns = [
        path(WHOAMI_PATH.removeprefix("/"), login_not_required(whoami_view)),
        path(GUARDED_PATH.removeprefix("/"), guarded_view),
        path("", include(settings.ROOT_URLCONF)),
    ]
    for handler in _ERROR_HANDLERS:
        if hasattr(project, handler):
            setattr(urls, handler, getattr(project, handler))
    return urls  # type: ignore[no-any-return]  # a module


@contextmanager
def _use_in_memory_broker() -> Iterator[None]:
    """Keep messages away from the project's broker."""
    previous = {name: current_app.conf.get(name) for name in _BROKER_SETTINGS}
    # Environment variables take precedence over Celery's settings.
    names = []
    for name in _BROKER_SETTINGS:
        names.append(f"CELERY_{name.upper()}")
    variables = {}
    for name in names:
        if name in os.environ:
            variables[name] = os.environ.pop(name)
    current_app.conf.update(dict.fromkeys(_BROKER_SETTINGS, "memory://"))
    try:
        if not current_app.connection_for_write().as_uri().startswith("memory:"):
            raise ImproperlyConfigured("Celery would send messages to a broker.")
        yield
    finally:
        current_app.conf.update(previous)
        os.environ.update(variables)


@contextmanager
def _suppress_logging() -> Iterator[None]:
    """Keep log records of the attacks out of the project's logs."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    handlers = set()
    for logger in loggers:
        handlers.update(logger.handlers)
    for handler in handlers:
        handler.addFilter(_reject_record)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(_reject_record)


def _reject_record(record: logging.LogRecord) -> bool:
    return False
