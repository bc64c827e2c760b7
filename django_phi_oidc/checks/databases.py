"""System checks of the databases."""

from collections.abc import Iterable, Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.checks import Tags
from django.db import DatabaseError, connections
from django.utils.module_loading import import_string

from .. import conf
from .._internal import clock
from .._internal.check_messages import (
    SET_WITNESS_FILE,
    Messages,
    error,
    in_settings,
    register_check,
    warning,
)
from .._internal.persistent_connections import list_leaking_aliases
from .._internal.sql import SUPPORTED_VENDORS
from ..audit import conf as audit_conf
from ..audit import db_privileges, partitions, triggers
from ..audit.models import AuditEvent
from ..audit.router import AUDIT_ALIAS, AuditRouter
from ..claims.categories import list_missing_categories
from ..claims.models import StoredClaim
from ..claims.retention import list_keys_in_use
from ..crypto import keyring, retention_keys
from ..crypto.conf import get_key_source
from ..errors import KeyMissing
from ..project_settings import MIN_SQLITE_TIMEOUT_SECONDS, add_audit_database
from ..subjects.models import SubjectDigest

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
DEFAULT_CONNECT_HINT = "The reason: manage.py dbshell"
CONNECT_HINT = f"{DEFAULT_CONNECT_HINT} --database {AUDIT_ALIAS}"
PERSON_KEY_SAMPLE_SIZE = 10


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
    routers = [
        import_string(router) if isinstance(router, str) else type(router) for router in declared
    ]
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
        ("auditlog", 'AUDITLOG_EXCLUDE_TRACKING_MODELS = ["django_phi_oidc"]'),
        ("easyaudit", "DJANGO_EASY_AUDIT_UNREGISTERED_CLASSES_EXTRA = " + _list_own_models()),
    ):
        if apps.is_installed(label):
            text = f"{label} copies changed fields: exclude the models of this app there."
            yield warning(8, text, in_settings(setting))


@register_check(Tags.security)
def check_asgi_connections(**kwargs: Any) -> Messages:
    """W043: under ASGI, each request would leave its connections open."""
    if not getattr(settings, "ASGI_APPLICATION", None):
        return
    for alias in list_leaking_aliases():
        text = (
            "Under ASGI, each request leaves its connection to "
            f"{alias!r} open, until the server has no more."
        )
        yield warning(43, text, in_settings(f'DATABASES["{alias}"]["CONN_MAX_AGE"] = 0'))


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


def _list_own_models() -> str:
    return str([model._meta.label for model in apps.get_app_config("django_phi_oidc").get_models()])


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
        and not (audit_conf.witness_file() or audit_conf.witnesses())
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


@register_check(Tags.database, deploy=True)
def check_local_accounts(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """W061: a local account can't sign in."""
    names = conf.break_glass_accounts()
    model = get_user_model()
    if not names or "default" not in (databases or ()):
        return
    try:
        rows = model._default_manager.filter(**{f"{model.USERNAME_FIELD}__in": names})
        accounts: dict[str, Any] = {account.get_username(): account for account in rows}
        for name in names:
            account = accounts.get(name)
            if account is None or not account.is_active or not account.has_usable_password():
                if account is None:
                    command = "createsuperuser --username"
                else:
                    command = "changepassword"

                hint = f"manage.py {command} {name}"
                yield warning(
                    61,
                    f"The local account {name!r} does not exist, is inactive or has no password.",
                    hint,
                )
    except DatabaseError as fault:
        yield warning(
            61,
            f"The local accounts can't be checked: {type(fault).__name__}.",
            DEFAULT_CONNECT_HINT,
        )


@register_check(Tags.database)
def check_audit_tables(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """E017, W010: the audit log can be read and exists; E018: the key of each subject digest is
    configured.

    W048: the store lacks retention keys of claims. A warning, because it is so after a backup was
    restored.
    W080: the permission of a category of claims does not exist. A warning, because `migrate`
    creates it.
    """
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
    if "default" in (databases or ()):
        yield from _check_subject_digest_keys()
        yield from _check_retention_keys()
        yield from _check_category_permissions()


def _check_category_permissions() -> Messages:
    try:
        if Permission._meta.db_table in connections["default"].introspection.table_names():
            for category in list_missing_categories(using="default"):
                text = (
                    f"There is no permission for the category {category!r}: "
                    "only superusers can reveal its claims."
                )
                yield warning(80, text, "Create it: manage.py migrate")
    except DatabaseError:
        # E018 reports it.
        return


def _check_subject_digest_keys() -> Messages:
    try:
        if SubjectDigest._meta.db_table not in connections["default"].introspection.table_names():
            return
        configured = [key.id for key in keyring.get_keys("subject")]
        orphaned = (
            SubjectDigest.objects.exclude(key_id__in=configured)
            .values_list("key_id", flat=True)
            .distinct()
        )
        for key_id in orphaned:
            hint = "Append that key, from a copy of your keys, to the list PHI_SUBJECT_KEYS."
            yield error(
                18, f"Subject digests were made with key {key_id}, which is not configured.", hint
            )
    except (DatabaseError, KeyMissing) as fault:
        yield error(
            18,
            f"The subject digests can't be checked: {type(fault).__name__}.",
            DEFAULT_CONNECT_HINT,
        )


def _check_retention_keys() -> Messages:
    """Find keys that were lost, and a folder or vault of another portal: its marker is right, and
    its keys are not.
    """
    try:
        if StoredClaim._meta.db_table not in connections["default"].introspection.table_names():
            return
        # In this order: a key that is created meanwhile is not missing.
        in_use = list_keys_in_use()
        if not in_use:
            return
        person_keys = _select_person_keys(in_use)
        store = retention_keys.get_store()
        missing = in_use.difference(store.names()) | {
            name for name in person_keys if store.get(name) is None
        }
        if missing:
            text = (
                f"KEYS['retention'] lacks {len(missing)} of "
                f"{len(in_use | person_keys)} keys that encrypt claims."
            )
            hint = (
                "If it is another folder or vault, correct that before "
                "the next sign-in creates other keys in it."
            )
            yield warning(48, text, hint)
    except (DatabaseError, KeyMissing) as fault:
        yield warning(
            48,
            f"The retention keys can't be checked: {type(fault).__name__}.",
            DEFAULT_CONNECT_HINT,
        )


def _select_person_keys(names_in_use: Iterable[str]) -> set[str]:
    """Return the names of a few keys of persons: there may be millions. Unlike those of days, they
    are random.
    """
    days = [name for name in names_in_use if not name.startswith(retention_keys.HOLD_PREFIX)]
    if not days:
        return set()
    claims = StoredClaim.objects.filter(bucket=max(days)).values_list(
        "subject__retention_key_id", flat=True
    )
    return {retention_keys.person_key_name(key_id) for key_id in claims[:PERSON_KEY_SAMPLE_SIZE]}
