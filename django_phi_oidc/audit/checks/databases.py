"""System checks of the audit database."""

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import Tags
from django.db import DatabaseError, connections
from django.utils.module_loading import import_string

from ..._internal import clock
from ..._internal.app_configs import list_installed_features
from ..._internal.check_messages import (
    DEFAULT_CONNECT_HINT,
    SET_WITNESS_FILE,
    Messages,
    error,
    in_settings,
    register_check,
    warning,
)
from ..._internal.sql import SUPPORTED_VENDORS
from ...crypto.conf import get_key_source
from ...project_settings import MIN_SQLITE_TIMEOUT_SECONDS, add_audit_database
from .. import conf, db_privileges, partitions, triggers
from ..models import AuditEvent
from ..router import AUDIT_ALIAS, AuditRouter

REQUIRED_SQLITE_OPTIONS = {
    "transaction_mode": ("IMMEDIATE", "without it, simultaneous writers fail"),
    "timeout": (
        MIN_SQLITE_TIMEOUT_SECONDS,
        "seconds at least, otherwise writers fail while they wait for each other",
    ),
    "init_command": (("journal_mode=wal", "secure_delete=on"), "these PRAGMAs are required"),
}
MIN_SQLITE_VERSION = (3, 37, 0)
"""The oldest version with which the tests run. RETURNING needs 3.35."""
SQLITE_OPTIONS = add_audit_database({"default": {"ENGINE": "sqlite3"}})["default"]["OPTIONS"]
ADD_AUDIT_DATABASE = (
    "from django_phi_oidc.project_settings import add_audit_database",
    "DATABASES = add_audit_database(DATABASES)",
)
CONNECT_HINT = f"{DEFAULT_CONNECT_HINT} --database {AUDIT_ALIAS}"


@register_check(Tags.security)
def check_audit_database(**kwargs: Any) -> Messages:
    """E013 to E016, E019, E020, E071, E072: the audit log has its own connection, and aware times;
    W008, W009.
    """
    audit = settings.DATABASES.get(AUDIT_ALIAS)
    if audit is None:
        text = f"DATABASES has no {AUDIT_ALIAS!r}: events would share a request's transaction."
        yield error(13, text, in_settings(*ADD_AUDIT_DATABASE))
        audit = {}
    elif audit.get("ATOMIC_REQUESTS"):
        hint = in_settings(f'DATABASES["{AUDIT_ALIAS}"]["ATOMIC_REQUESTS"] = False')
        yield error(
            15, f"ATOMIC_REQUESTS on {AUDIT_ALIAS!r} would roll events back with the request.", hint
        )
    declared: list[Any] = list(settings.DATABASE_ROUTERS)
    routers = []
    for router in declared:
        routers.append(import_string(router) if isinstance(router, str) else type(router))
    if not any(issubclass(router, AuditRouter) for router in routers):
        path = "django_phi_oidc.audit.router.AuditRouter"

        if declared:
            others = ", *DATABASE_ROUTERS"
        else:
            others = ""

        hint = in_settings(f'DATABASE_ROUTERS = ["{path}"{others}]')
        yield error(14, f"DATABASE_ROUTERS lacks {path}.", hint)
    for alias in {"default", AUDIT_ALIAS} & set(settings.DATABASES):
        if (vendor := connections[alias].vendor) not in SUPPORTED_VENDORS:
            text = f"DATABASES[{alias!r}] is {vendor}: the app needs PostgreSQL, or SQLite"
            hint = in_settings(
                f'DATABASES["{alias}"] = {{"ENGINE": "django.db.backends.postgresql", "NAME": "…"}}'
            )
            yield error(71, f"{text} for development.", hint)
        elif vendor == "sqlite":
            yield from _check_sqlite_version(alias)
            yield from _check_sqlite_options(alias, settings.DATABASES[alias].get("OPTIONS", {}))
    if not settings.USE_TZ:
        hint = in_settings("USE_TZ = True")
        yield error(
            20, "USE_TZ is off: the times of events, tokens and retentions are aware.", hint
        )
    if "sqlite3" in audit.get("ENGINE", "") and audit.get("NAME") == settings.DATABASES[
        "default"
    ].get("NAME"):
        hint = in_settings(f'DATABASES["{AUDIT_ALIAS}"]["NAME"] = BASE_DIR / "audit.sqlite3"')
        yield error(
            19, f"'default' and {AUDIT_ALIAS!r} are one SQLite file, and block each other.", hint
        )
    is_postgresql = audit and connections[AUDIT_ALIAS].vendor == "postgresql"
    if is_postgresql and not audit.get("OPTIONS", {}).get("connect_timeout"):
        text = (
            f"{AUDIT_ALIAS!r} has no connect_timeout: an "
            "unreachable server blocks tasks and admin pages."
        )
        yield warning(9, text, in_settings(_set_database_option(AUDIT_ALIAS, "connect_timeout", 2)))
    for label, setting in (
        ("auditlog", f"AUDITLOG_EXCLUDE_TRACKING_MODELS = {_list_own_labels()}"),
        ("easyaudit", f"DJANGO_EASY_AUDIT_UNREGISTERED_CLASSES_EXTRA = {_list_own_models()}"),
    ):
        if apps.is_installed(label):
            text = f"{label} copies changed fields: exclude the models of this app there."
            yield warning(8, text, in_settings(setting))


def _check_sqlite_version(alias: str) -> Messages:
    database: Any = connections[alias]
    if database.Database.sqlite_version_info < MIN_SQLITE_VERSION:
        version = database.Database.sqlite_version
        text = f"DATABASES[{alias!r}] uses SQLite {version}: the app needs 3.37 or newer."
        yield error(72, text, "Use the Python of a newer distribution, or PostgreSQL.")


def _check_sqlite_options(alias: str, options: dict[str, Any]) -> Messages:
    for option, (required, reason) in REQUIRED_SQLITE_OPTIONS.items():
        value = options.get(option)
        if isinstance(required, tuple):
            pragmas = str(value or "").lower().replace(" ", "")
            is_valid = all(pragma in pragmas for pragma in required)
        elif isinstance(required, int):
            is_valid = isinstance(value, int | float) and value >= required
        else:
            is_valid = str(value).upper() == required
        if not is_valid:
            hint = in_settings(_set_database_option(alias, option, SQLITE_OPTIONS[option]))
            yield error(
                16,
                f"DATABASES[{alias!r}]['OPTIONS'][{option!r}] must be {required}: {reason}.",
                hint,
            )


def _set_database_option(alias: str, option: str, value: Any) -> str:
    """Return the line that sets an option of a database."""
    if isinstance(value, str):
        text = f'"{value}"'
    else:
        text = value
    return f'DATABASES["{alias}"].setdefault("OPTIONS", {{}})["{option}"] = {text}'


def _list_own_labels() -> list[str]:
    return [config.label for config in list_installed_features()]


def _list_own_models() -> list[str]:
    own_models = []
    for config in list_installed_features():
        for model in config.get_models():
            own_models.append(model._meta.label)
    return own_models


@register_check(Tags.database, deploy=True)
def check_database_role(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """W020: the database roles of this process could change the audit log; W021: a restore could
    hide a fork.
    """
    aliases = [
        alias
        for alias in (AUDIT_ALIAS, "default")
        if alias in (databases or ()) and alias in connections
    ]
    if (
        "default" in aliases
        and db_privileges.is_single_database()
        and not (conf.witness_file() or conf.witnesses())
    ):
        text = (
            "A restore of this one database also restores what sinks "
            "confirmed: a fork of the log stays unnoticed."
        )
        yield warning(21, text, SET_WITNESS_FILE)
    is_sealer = bool(get_key_source("audit_signing"))
    for alias in aliases:
        if alias == "default" and not db_privileges.is_single_database():
            continue
        try:
            if connections[alias].vendor != "postgresql":
                continue
            excess = db_privileges.list_excess_privileges(alias, is_sealer=is_sealer)
        except DatabaseError as fault:
            yield error(
                17, f"The audit database can't be read: {type(fault).__name__}.", CONNECT_HINT
            )
            return
        if excess:
            hint = (
                "The SQL for a role that can only read and insert: "
                "manage.py phi_oidc audit grants ROLE"
            )
            yield warning(
                20, f"The role of {alias!r} could change the log: it {', '.join(excess)}.", hint
            )


@register_check(Tags.database, deploy=True)
def check_audit_triggers(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """E040: triggers, functions and persistence of the audit log are as the migrations made
    them.
    """
    if AUDIT_ALIAS not in (databases or ()) or AUDIT_ALIAS not in connections:
        return
    try:
        if AuditEvent._meta.db_table in connections[AUDIT_ALIAS].introspection.table_names():
            hint = (
                "As the owner of the tables: manage.py phi_oidc audit "
                "repair && manage.py phi_oidc audit verify"
            )
            for text in triggers.list_deviations():
                yield error(40, f"The audit log is not append-only: {text}.", hint)
    except DatabaseError as fault:
        yield error(17, f"The audit database can't be read: {type(fault).__name__}.", CONNECT_HINT)


@register_check(Tags.database, deploy=True)
def check_audit_partitions(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """W081: the partitions of the events are there ahead, and no event is outside of them."""
    if AUDIT_ALIAS not in (databases or ()) or AUDIT_ALIAS not in connections:
        return
    try:
        for text in partitions.list_problems(now=clock.now()):
            hint = "See docs/how-to/archive-the-audit-log.md, Partitions."
            yield warning(81, f"The partitions of the audit log need attention: {text}.", hint)
    except DatabaseError:
        # E017 reports it.
        return


@register_check(Tags.database, deploy=True)
def check_idle_transactions(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """W042: a process that was stopped inside a transaction would keep its locks."""
    for alias in (AUDIT_ALIAS, "default"):
        if (
            alias not in (databases or ())
            or alias not in connections
            or connections[alias].vendor != "postgresql"
        ):
            continue
        try:
            with connections[alias].cursor() as cursor:
                cursor.execute("SELECT current_setting('idle_in_transaction_session_timeout')")
                timeout = cursor.fetchone()
        except DatabaseError:
            # E017 reports it.
            continue
        if timeout == ("0",):
            user = settings.DATABASES[alias].get("USER") or "…"
            hint = f"In SQL: ALTER ROLE {user} SET idle_in_transaction_session_timeout = '60s'"
            yield warning(
                42,
                f"A process that is stopped in a transaction on {alias!r} keeps its locks forever.",
                hint,
            )


@register_check(Tags.database)
def check_audit_tables(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """E017, W010: the audit log can be read and exists."""
    if AUDIT_ALIAS in (databases or ()) and AUDIT_ALIAS in settings.DATABASES:
        try:
            exists = (
                AuditEvent._meta.db_table in connections[AUDIT_ALIAS].introspection.table_names()
            )
        except DatabaseError as fault:
            yield error(
                17, f"The audit database can't be read: {type(fault).__name__}.", CONNECT_HINT
            )
            return
        if not exists:
            # A warning, because an error would prevent migrate from creating the table.
            hint = f"Create it: manage.py migrate --database {AUDIT_ALIAS}"
            yield warning(10, f"{AUDIT_ALIAS!r} has no audit log.", hint)
