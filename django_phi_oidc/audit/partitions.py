"""Partitions of the audit events and their leaves on PostgreSQL: one table a month, which leaves by
a short statement.

`phi_oidc audit partition` turns the tables of the events and the leaves into tables with partitions
by the id of the event, which is a UUIDv7 and thus a time. The former table becomes the first
partition: no row is copied. Models and queries stay as they are. Events of a month without a
partition are stored in a default partition, so none is refused: late ones, and those that come
while the task that creates partitions does not run. `phi_oidc audit partition` moves them then.

An index of a table with partitions is unique only if it contains the id. So the database refuses a
second leaf of an event, and a second leaf with the same index only in the same partition: `audit
verify` finds others.

Only the owner of the tables can do this, and detach partitions. Partitions ahead are created by a
function with the owner's rights and without arguments, because no process of the application should
own the tables. Only the sealer's role may call it.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from time import sleep
from typing import Any
from uuid import UUID

from django.db import OperationalError, connections, transaction

from .._internal.sql import is_lock_timeout
from .partition_catalogue import DEFINITIONS_SQL, MISSING_INDEXES_SQL, PARTITION_SQL
from .router import AUDIT_ALIAS

EVENT_TABLE = "phi_oidc_audit_auditevent"
LEAF_TABLE = "phi_oidc_audit_auditleaf"
_KEYS = {EVENT_TABLE: "id", LEAF_TABLE: "event_id"}
"""The tables that can have partitions, and the column with the id of the event."""
DEFAULT_PARTITION = f"{EVENT_TABLE}_rest"
LOCK_SECONDS = 0.2
"""How long a statement that blocks writers waits for its lock, and so how long it delays them. Then
it tries again.
"""
LOCK_ATTEMPTS = 100
_MONTHS_AHEAD = 3
_LOWEST_ID = UUID(int=0)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LAST_MONTH = datetime(9999, 11, 1, tzinfo=UTC)
"""Python cannot represent the end of the next one, and of those after it."""
_CHECK_NAME = "phi_oidc_auditevent_range"
_AHEAD_NAME = "phi_oidc_auditevent_ahead"
_AHEAD_SQL = """
    id < rpad(lpad(to_hex((extract(epoch FROM now() + interval '1 day') * 1000)::bigint), 12, '0'),
        32, '0')::uuid"""
"""Of the default partition of the events: its rows prevent that their month gets a partition, so it
accepts none of a month that begins in more than a day. A row fulfils this from then on.
"""
_DROP_CHECK_SQL = f"ALTER TABLE {{}} DROP CONSTRAINT IF EXISTS {_CHECK_NAME}"
CREATE_FUNCTION = "phi_oidc_audit_create_partitions"
"""Locks both default partitions, so only the sealer's role may call it."""
_CREATE_ONE_FUNCTION = "phi_oidc_audit_create_partition"
"""Creates the partition of one month, with the rights of its caller: the owner."""
# ALTER DEFAULT PRIVILEGES must not give a role more than it has on the table.
_CREATE_ONE_FUNCTION_SQL = f"""
CREATE OR REPLACE FUNCTION {{schema}}.{_CREATE_ONE_FUNCTION}(base text, month timestamp) RETURNS void LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    parent text := format('{{schema}}.%I', base);
    name text := format('{{schema}}.%I', base || '_' || to_char(month, 'YYYYMM'));
    other text;
    bounds text[] := ARRAY(
        SELECT rpad(lpad(to_hex((extract(epoch FROM m) * 1000)::bigint), 12, '0'), 32, '0')::uuid::text
        FROM unnest(ARRAY[month, month + interval '1 month']) WITH ORDINALITY AS o(m, n) ORDER BY n);
BEGIN
    EXECUTE format('CREATE TABLE %s (LIKE %s INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', name, parent);
    IF base = '{LEAF_TABLE}' THEN
        EXECUTE format('ALTER TABLE %s ADD PRIMARY KEY (leaf_index)', name);
    END IF;
    FOR other IN SELECT DISTINCT CASE a.grantee WHEN 0 THEN 'PUBLIC'
        ELSE quote_ident(pg_get_userbyid(a.grantee)) END
        FROM pg_class c, aclexplode(c.relacl) a WHERE c.oid = name::regclass AND a.grantee <> c.relowner
    LOOP
        EXECUTE format('REVOKE ALL ON %s FROM %s', name, other);
    END LOOP;
    EXECUTE format('ALTER TABLE %s ATTACH PARTITION %s FOR VALUES FROM (%L) TO (%L)',
        parent, name, bounds[1], bounds[2]);
    -- Attaching creates the triggers for rows.
    SELECT tgname INTO STRICT other FROM pg_trigger
        WHERE tgrelid = parent::regclass AND tgname ~ '^phi_oidc_.*_refuse_truncate$';
    EXECUTE format('CREATE TRIGGER %I BEFORE TRUNCATE ON %s '
        'FOR EACH STATEMENT EXECUTE FUNCTION {{schema}}.phi_oidc_audit_refuse()', other, name);
    FOR other IN SELECT tgname FROM pg_trigger WHERE tgrelid = name::regclass AND tgname ~ '^phi_oidc_' LOOP
        EXECUTE format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', name, other);
    END LOOP;
END
$$
"""  # noqa: E501, S608
# Past months without a partition were detached, or need none. A month of which the default
# partition has rows gets one by `audit partition`, which moves the rows.
_CREATE_FUNCTION_SQL = f"""
CREATE OR REPLACE FUNCTION {{schema}}.{CREATE_FUNCTION}() RETURNS integer LANGUAGE plpgsql SECURITY DEFINER
SET search_path = pg_catalog, pg_temp SET lock_timeout = '2s' AS $$
DECLARE
    base text;
    parent regclass;
    this_month timestamp := date_trunc('month', now() AT TIME ZONE 'UTC');
    month timestamp;
    created integer := 0;
BEGIN
    FOR base, parent IN SELECT c.relname, c.oid FROM pg_class c WHERE c.relkind = 'p'
        AND c.oid IN ('{{schema}}.{EVENT_TABLE}'::regclass, '{{schema}}.{LEAF_TABLE}'::regclass)
        -- Readers lock the events first, too.
        ORDER BY c.relname
    LOOP
        SELECT greatest(this_month, max(to_date(right(c.relname, 6), 'YYYYMM'))) INTO month
        FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
        WHERE i.inhparent = parent AND c.relname ~ '_until_[0-9]{{{{6}}}}$';
        WHILE month <= this_month + interval '{_MONTHS_AHEAD} months' LOOP
            IF to_regclass(format('{{schema}}.%I', base || '_' || to_char(month, 'YYYYMM'))) IS NULL THEN
                BEGIN
                    PERFORM {{schema}}.{_CREATE_ONE_FUNCTION}(base, month);
                    created := created + 1;
                EXCEPTION WHEN check_violation THEN
                    RAISE WARNING 'The default partition of % has rows of %.', base, to_char(month, 'YYYY-MM');
                END;
            END IF;
            month := month + interval '1 month';
        END LOOP;
    END LOOP;
    RETURN created;
END
$$
"""  # noqa: E501, S608


@dataclass(frozen=True, slots=True, kw_only=True)
class Partition:
    """A partition of the events, or of their leaves."""

    name: str
    first_id: UUID | None
    """None: from the first event on, or the default partition."""
    end_id: UUID | None
    """None: the default partition."""

    @property
    def suffix(self) -> str:
        """The name without that of the table, such as `202610`."""
        return self.name.removeprefix(f"{EVENT_TABLE}_").removeprefix(f"{LEAF_TABLE}_")

    @property
    def bounds(self) -> tuple[str, str]:
        """Its lowest id, and the one after its highest, as texts. Requires: not the default
        partition.
        """
        return str(self.first_id or _LOWEST_ID), str(self.end_id)

    def has_id(self, event_id: UUID) -> bool:
        """Return whether the id is in the range of the partition; the default one has no range."""
        if self.end_id is None:
            return False
        return (self.first_id or _LOWEST_ID) <= event_id < self.end_id


def is_partitioned(table: str = EVENT_TABLE) -> bool:
    """Return whether the events, or the leaves, have partitions. Raises: DatabaseError."""
    connection = connections[AUDIT_ALIAS]
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relkind::text FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass(%s)",
            [table],
        )
        kind = cursor.fetchone()
    return kind is not None and kind[0] == "p"


def list_partitions(table: str = EVENT_TABLE) -> list[Partition]:
    """Return the partitions of the events, or the leaves, by name, with the default one. Raises:
    DatabaseError.
    """
    if connections[AUDIT_ALIAS].vendor != "postgresql":
        return []
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(PARTITION_SQL, [table])
        return [_parse_partition(name, bound) for name, bound in cursor.fetchall()]


def list_partition_names() -> dict[str, list[str]]:
    """Return the names of the partitions by table; empty for a table without. Raises:
    DatabaseError.
    """
    partition_names = {}
    for table in _KEYS:
        partition_names[table] = [partition.name for partition in list_partitions(table)]
    return partition_names


def create_partitions() -> int:
    """Create the partitions of the months ahead, and return how many were missing; 0 without
    partitions.

    Requires: the sealer's role, or the owner. Raises: DatabaseError.
    """
    if not is_partitioned():
        return 0
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(f"SELECT {CREATE_FUNCTION}()")
        return int(cursor.fetchone()[0])


def list_problems(*, now: datetime) -> list[str]:
    """Return what is wrong with the partitions: sentences without a period. Raises:
    DatabaseError.
    """
    if not is_partitioned():
        text = (
            "audit partition was interrupted, and events of later "
            "months will be refused: run it again"
        )
        if _has_check():
            return [text]
        return []
    problems = []
    if not is_partitioned(LEAF_TABLE):
        problems.append("the leaves have no partitions: run audit partition again")
    months = _list_stray_months(EVENT_TABLE)
    next_month = _get_month(now, 1)
    partitions = list_partitions()
    if next_month not in months and not any(
        partition.has_id(_get_bound(next_month)) for partition in partitions
    ):
        problems.append(
            "the partition of the next month is missing: the task "
            "phi_oidc.create_partitions does not run"
        )
    if months:
        names = ", ".join(f"{month:%Y-%m}" for month in months)
        problems.append(
            f"{DEFAULT_PARTITION} has events of {names}: run audit partition, which moves them "
            "into partitions of these months"
        )
    return problems


def partition_log(
    *, now: datetime, progress: Callable[[str], None] = lambda step: None
) -> list[str]:
    """Turn the tables of events and leaves into ones with partitions, while others write, and
    return their names.

    Until it is done, an event with an id of the month after the next or later is refused. A run
    that was interrupted can be repeated. If both have partitions, those of the months are created
    of which the default partitions have rows, and get these rows; writers wait until then.
    progress: called with a sentence about each step.
    Requires: PostgreSQL, and the role owns the tables. Raises: ValueError if nothing is to be done,
    or a detached table has the name of a partition to be created; DatabaseError.
    """
    tables = [table for table in _KEYS if not is_partitioned(table)]
    if not tables:
        return _move_stray_rows(progress)
    end = _get_month(now, 2)
    try:
        progress("All events and leaves are read once, while others write.")
        for table in tables:
            _check_range(table, f"{_KEYS[table]} < '{_get_bound(end)}'")
        progress("The tables become the first partitions.")
        for table in tables:
            _run_with_short_locks(partial(_replace_table, table=table, end=end))
    except BaseException:
        # With the constraint, all events would be refused from that month on.
        for table in tables:
            _run_with_short_locks(partial(_drop_check, table=table))
        raise
    return sorted(name for names in list_partition_names().values() for name in names)


def _list_stray_months(table: str) -> list[datetime]:
    """Return the months of the rows in the default partition. Their ids are read through the table:
    the application has no privilege on a partition. Raises: DatabaseError.
    """
    key = _KEYS[table]
    months = []
    with connections[AUDIT_ALIAS].cursor() as cursor:
        for first, end in list_gaps(table):
            start = first
            while start < end:
                cursor.execute(
                    f"SELECT {key} FROM {table} WHERE {key} >= %s AND {key} < %s "  # noqa: S608 -- constants
                    f"ORDER BY {key} LIMIT 1",
                    [str(start), str(end)],
                )
                row = cursor.fetchone()
                if row is None or row[0] >= _get_bound(_get_month(_LAST_MONTH, 1)):
                    break
                month = _get_month(_EPOCH + timedelta(milliseconds=row[0].int >> 80), 0)
                months.append(month)
                start = _get_bound(_get_month(month, 1))
    return months


def _move_stray_rows(progress: Callable[[str], None]) -> list[str]:
    """Move the rows of the default partitions into new partitions of their months, and return the
    names of these. Raises: ValueError; DatabaseError.
    """
    created = []
    for table in _KEYS:
        months = _list_stray_months(table)
        names = [f"{table}_{month:%Y%m}" for month in months]
        for name in names:
            if _exists(name):
                raise ValueError(
                    f"{name} was detached, and {table}_rest has later rows of its month: attach or "
                    "drop it, and repeat this."
                )
        if months:
            progress(f"The rows of {table}_rest move into partitions of their months.")
            _run_with_short_locks(partial(_move_rows, table=table, months=months))
            created += names
    if not created:
        raise ValueError("The audit log has partitions already.")
    return created


def _move_rows(cursor: Any, *, table: str, months: Sequence[datetime]) -> None:
    """Create the partitions of these months with the rows of the default partition. No trigger runs
    for them: they are in the log, and were queued for the sealer, before.
    """
    rest = f"{table}_rest"
    key = _KEYS[table]
    cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(f"ALTER TABLE {table} DETACH PARTITION {rest}")
    cursor.execute(f"ALTER TABLE {rest} DISABLE TRIGGER USER")
    for month in months:
        name = f"{table}_{month:%Y%m}"
        cursor.execute(
            f"SELECT {_CREATE_ONE_FUNCTION}(%s, %s::timestamp)", [table, f"{month:%Y-%m-%d}"]
        )
        cursor.execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        cursor.execute(
            f"WITH moved AS (DELETE FROM {rest} WHERE {key} >= %s AND {key} < %s RETURNING *) "  # noqa: S608 -- constants
            f"INSERT INTO {name} SELECT * FROM moved",
            [str(_get_bound(month)), str(_get_bound(_get_month(month, 1)))],
        )
        _enable_triggers(cursor, name)
    cursor.execute(f"ALTER TABLE {table} ATTACH PARTITION {rest} DEFAULT")
    _enable_triggers(cursor, rest)


def _exists(name: str) -> bool:
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute("SELECT pg_catalog.to_regclass(%s) IS NOT NULL", [name])
        return bool(cursor.fetchone()[0])


def detach_partition(partition: Partition, *, newest_leaf: int) -> None:
    """Detach a partition of the events by a short lock. It becomes a table that the application
    cannot read.

    newest_leaf: the last leaf when the caller made sure that all events of the partition are
    archived.
    Raises: ValueError if an event of it came since then; OperationalError if the lock was not free.
    """
    ids = partition.bounds

    def detach(cursor: Any) -> None:
        cursor.execute(f"LOCK TABLE {EVENT_TABLE} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM phi_oidc_audit_auditunsealed WHERE event_id >= %s AND "
            "event_id < %s) OR EXISTS (SELECT 1 FROM phi_oidc_audit_auditleaf "
            "WHERE leaf_index > %s AND event_id >= %s AND event_id < %s)",
            [*ids, newest_leaf, *ids],
        )
        if cursor.fetchone() == (True,):
            raise ValueError(f"A late event came into {partition.name}: archive again.")
        cursor.execute(f"ALTER TABLE {EVENT_TABLE} DETACH PARTITION {partition.name}")

    _run_with_short_locks(detach)


def detach_leaves(partition: Partition, *, end_leaf: int) -> None:
    """Detach a partition of the leaves by a short lock.

    end_leaf: the caller made sure that the tiles have the leaves before it.
    Raises: ValueError if the log has an event of it again, or it has a later leaf, or the last one
    of the log, from which the sequencer continues; OperationalError if the lock was not free.
    """
    ids = partition.bounds

    def detach(cursor: Any) -> None:
        cursor.execute(f"LOCK TABLE {LEAF_TABLE} IN ACCESS EXCLUSIVE MODE")
        cursor.execute(
            f"SELECT EXISTS (SELECT 1 FROM {partition.name} WHERE leaf_index >= %s) "  # noqa: S608 -- constants
            f"OR NOT EXISTS (SELECT 1 FROM {LEAF_TABLE} WHERE leaf_index >= %s) "
            f"OR EXISTS (SELECT 1 FROM {EVENT_TABLE} WHERE id >= %s AND id < %s)",
            [end_leaf, end_leaf, *ids],
        )
        if cursor.fetchone() == (True,):
            raise ValueError(
                f"The log has events of {partition.name} again, or no later leaves: archive again."
            )
        cursor.execute(f"ALTER TABLE {LEAF_TABLE} DETACH PARTITION {partition.name}")

    _run_with_short_locks(detach)


def list_past_partitions(table: str = EVENT_TABLE, *, now: datetime) -> list[Partition]:
    """Return the partitions of the events, or the leaves, whose months are over. Raises:
    DatabaseError.
    """
    current = _get_bound(_get_month(now, 0))
    past_partitions = []
    for partition in list_partitions(table):
        if partition.end_id and partition.end_id <= current:
            past_partitions.append(partition)
    return past_partitions


def attach_partition(name: str) -> list[str]:
    """Attach a table that was a partition again, for an investigation, and return the names of what
    is attached.

    With events, their leaves are attached, too. The rows are read once, without a lock on the log.
    NOT checked: that they are what was sealed. Raises: ValueError for another table, or without the
    leaves; DatabaseError.
    """
    if name.startswith(f"{LEAF_TABLE}_"):
        table = LEAF_TABLE
    else:
        table = EVENT_TABLE

    partition = _get_detached(name, table)
    leaves = name.replace(EVENT_TABLE, LEAF_TABLE)
    names = [(name, table)]
    if table == EVENT_TABLE and not _has_leaves_of(partition):
        with connections[AUDIT_ALIAS].cursor() as cursor:
            cursor.execute("SELECT to_regclass(%s) IS NULL", [leaves])
            if cursor.fetchone() == (True,):
                raise ValueError(
                    f"There is no table {leaves} with its leaves: read the archive instead."
                )
        names.insert(0, (leaves, LEAF_TABLE))
    for detached, parent in names:
        _attach(_get_detached(detached, parent), parent)
    return [detached for detached, _ in names]


def _attach(partition: Partition, table: str) -> None:
    name = partition.name
    key = _KEYS[table]
    bounds = [
        f"{key} < '{partition.end_id}'",
        *([f"{key} >= '{partition.first_id}'"] if partition.first_id else []),
    ]
    _check_range(name, " AND ".join(bounds))
    _create_missing_indexes(name, table)

    def attach(cursor: Any) -> None:
        if partition.first_id:
            first = f"'{partition.first_id}'"
        else:
            first = "MINVALUE"

        cursor.execute(
            f"ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES FROM ({first}) TO "
            f"('{partition.end_id}')"
        )
        _enable_triggers(cursor, name)
        cursor.execute(f"ALTER TABLE {name} DROP CONSTRAINT {_CHECK_NAME}")

    _run_with_short_locks(attach)


def _create_missing_indexes(name: str, table: str) -> None:
    """Create the indexes of a table that one of its former partitions lacks, such as those of a
    later migration.

    Otherwise PostgreSQL creates them when it attaches the partition, while it locks the default
    one, and writers wait.
    """
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(MISSING_INDEXES_SQL, [table, name])
        for (definition,) in cursor.fetchall():
            cursor.execute(f"CREATE INDEX ON {name} {definition}")


def _has_leaves_of(partition: Partition) -> bool:
    """Return whether the leaves of a partition of the events are in the log: all of them, or
    none.
    """
    first = partition.first_id or _LOWEST_ID
    if not is_partitioned(LEAF_TABLE):
        return True
    return any(leaves.has_id(first) for leaves in list_partitions(LEAF_TABLE))


def _run_with_short_locks(work: Callable[[Any], None]) -> None:
    """Run `work` with a cursor in one transaction, whose statements wait only LOCK_SECONDS for a
    lock.

    A statement that waits for ACCESS EXCLUSIVE makes all later ones wait behind it. So it gives up,
    and tries again.
    """
    for attempt in range(1, LOCK_ATTEMPTS + 1):
        try:
            with (
                transaction.atomic(using=AUDIT_ALIAS, durable=True),
                connections[AUDIT_ALIAS].cursor() as cursor,
            ):
                cursor.execute(
                    "SELECT set_config('lock_timeout', %s, true)", [str(round(LOCK_SECONDS * 1000))]
                )
                work(cursor)
        except OperationalError as error:
            if not is_lock_timeout(error) or attempt == LOCK_ATTEMPTS:
                raise
            sleep(LOCK_SECONDS)
        else:
            return


def _check_range(table: str, condition: str) -> None:
    """Add a constraint and validate it while others write: PostgreSQL attaches such a table without
    reading it.
    """

    def add(cursor: Any) -> None:
        cursor.execute(_DROP_CHECK_SQL.format(table))
        cursor.execute(
            f"ALTER TABLE {table} ADD CONSTRAINT {_CHECK_NAME} CHECK ({condition}) NOT VALID"
        )

    _run_with_short_locks(add)
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT {_CHECK_NAME}")


def _drop_check(cursor: Any, *, table: str) -> None:
    cursor.execute(_DROP_CHECK_SQL.format(table))


def _has_check() -> bool:
    """Return whether the table of the events still has the constraint of a conversion that was
    killed.
    """
    if connections[AUDIT_ALIAS].vendor != "postgresql":
        return False
    with connections[AUDIT_ALIAS].cursor() as cursor:
        cursor.execute(
            "SELECT EXISTS (SELECT 1 FROM pg_catalog.pg_constraint "
            "WHERE conrelid = pg_catalog.to_regclass(%s) AND conname = %s)",
            [EVENT_TABLE, _CHECK_NAME],
        )
        return bool(cursor.fetchone()[0])


def _replace_table(cursor: Any, *, table: str, end: datetime) -> None:
    """Rename the table, create one with partitions in its place, and attach it. Changes only the
    catalogue.
    """
    cursor.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
    cursor.execute(DEFINITIONS_SQL, [table])
    schema, owner, indexes, triggers, grants = cursor.fetchone()
    parent = f"{schema}.{table}"
    suffix = f"until_{end:%Y%m}"
    key = _KEYS[table]
    first = f"{parent}_{suffix}"
    rest = f"{parent}_rest"
    cursor.execute(f"ALTER TABLE {parent} RENAME TO {table}_{suffix}")
    for name, _, _ in indexes:
        cursor.execute(f"ALTER INDEX {schema}.{name} RENAME TO {name}_{end:%Y%m}")
    for name, definition, is_row_trigger in triggers:
        if is_row_trigger and definition:
            # Attaching creates it again.
            cursor.execute(f"DROP TRIGGER {name} ON {first}")
    cursor.execute(
        f"CREATE TABLE {parent} (LIKE {first} INCLUDING DEFAULTS "
        f"INCLUDING CONSTRAINTS) PARTITION BY RANGE ({key})"
    )
    cursor.execute(f"ALTER TABLE {parent} DROP CONSTRAINT {_CHECK_NAME}")
    cursor.execute(f"ALTER TABLE {parent} OWNER TO {owner}")
    for name, definition, constraint in indexes:
        # The primary key of the leaves cannot be one of all partitions.
        if constraint != "PRIMARY KEY (leaf_index)":
            cursor.execute(
                f"ALTER TABLE {parent} ADD CONSTRAINT {name} {constraint}"
                if constraint
                else definition
            )
    for name, definition, _ in triggers:
        cursor.execute(definition)
        cursor.execute(f"ALTER TABLE {parent} ENABLE ALWAYS TRIGGER {name}")
    for privilege, role in grants:
        cursor.execute(f"GRANT {privilege} ON {parent} TO {role}")
        cursor.execute(f"REVOKE {privilege} ON {first} FROM {role}")
    bound = _get_bound(end)
    cursor.execute(
        f"ALTER TABLE {parent} ATTACH PARTITION {first} FOR VALUES FROM (MINVALUE) TO ('{bound}')"
    )
    cursor.execute(f"ALTER TABLE {first} DROP CONSTRAINT {_CHECK_NAME}")
    _enable_triggers(cursor, first)
    cursor.execute(f"CREATE TABLE {rest} PARTITION OF {parent} DEFAULT")
    if table == EVENT_TABLE:
        cursor.execute(f"ALTER TABLE {rest} ADD CONSTRAINT {_AHEAD_NAME} CHECK ({_AHEAD_SQL})")
    if table == LEAF_TABLE:
        cursor.execute(f"ALTER TABLE {rest} ADD PRIMARY KEY (leaf_index)")
    (truncate,) = [name for name, _, is_row_trigger in triggers if not is_row_trigger]
    refuse = f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}.phi_oidc_audit_refuse()"
    cursor.execute(f"CREATE TRIGGER {truncate} BEFORE TRUNCATE ON {rest} {refuse}")
    _enable_triggers(cursor, rest)
    for signature, definition in (
        (f"{schema}.{_CREATE_ONE_FUNCTION}(text, timestamp)", _CREATE_ONE_FUNCTION_SQL),
        (f"{schema}.{CREATE_FUNCTION}()", _CREATE_FUNCTION_SQL),
    ):
        cursor.execute(definition.format(schema=schema))
        cursor.execute(f"ALTER FUNCTION {signature} OWNER TO {owner}")
        cursor.execute(f"REVOKE ALL ON FUNCTION {signature} FROM PUBLIC")
    for privilege, role in grants:
        # The sealer is the role that inserts leaves.
        if table == LEAF_TABLE and privilege == "INSERT":
            cursor.execute(f"GRANT EXECUTE ON FUNCTION {schema}.{CREATE_FUNCTION}() TO {role}")
    cursor.execute(f"SELECT {schema}.{CREATE_FUNCTION}()")


def _enable_triggers(cursor: Any, table: str) -> None:
    """Make all triggers of a partition ENABLE ALWAYS, as those of the log are."""
    cursor.execute(
        "SELECT quote_ident(tgname) FROM pg_catalog.pg_trigger WHERE tgrelid = "
        "pg_catalog.to_regclass(%s) AND tgname LIKE 'phi_oidc_%%'",
        [table],
    )
    for (name,) in cursor.fetchall():
        cursor.execute(f"ALTER TABLE {table} ENABLE ALWAYS TRIGGER {name}")


def _get_bound(month: datetime) -> UUID:
    """Return the lowest id of a month: its time, and zeros."""
    return UUID(int=(month - _EPOCH) // timedelta(milliseconds=1) << 80)


def _get_month(moment: datetime, offset: int) -> datetime:
    months = moment.astimezone(UTC).year * 12 + moment.astimezone(UTC).month - 1 + offset
    return datetime(months // 12, months % 12 + 1, 1, tzinfo=UTC)


def _parse_partition(name: str, bound: str) -> Partition:
    """bound: such as `FOR VALUES FROM (MINVALUE) TO ('0199…')`, or `DEFAULT`."""
    if bound == "DEFAULT":
        return Partition(name=name, first_id=None, end_id=None)
    first, _, end = bound.removeprefix("FOR VALUES FROM (").removesuffix(")").partition(") TO (")
    if first == "MINVALUE":
        first_id = None
    else:
        first_id = UUID(first.strip("'"))

    return Partition(name=name, first_id=first_id, end_id=UUID(end.strip("'")))


def list_gaps(table: str = EVENT_TABLE) -> list[tuple[UUID, UUID]]:
    """Return the ranges of ids without a partition: their rows were detached, or are in the default
    partition.

    Empty without partitions. The end of a range is not in it. Raises: DatabaseError.
    """
    gaps = []
    covered = _LOWEST_ID
    partitions = list_partitions(table)
    ranges = []
    for partition in partitions:
        if partition.end_id:
            ranges.append((partition.first_id or _LOWEST_ID, partition.end_id))
    for first, end in sorted(ranges):
        if first > covered:
            gaps += [(covered, first)]
        covered = end

    if partitions:
        return [*gaps, (covered, UUID(int=(1 << 128) - 1))]
    return []


def _get_detached(name: str, table: str) -> Partition:
    month = name[-6:]
    if not name.startswith(f"{table}_") or not (month.isascii() and month.isdigit()):
        raise ValueError(f"{name!a} is not the name of a partition.")
    start = datetime(int(month[:4]), int(month[4:]), 1, tzinfo=UTC)
    if name == f"{table}_until_{month}":
        return Partition(name=name, first_id=None, end_id=_get_bound(start))
    if name != f"{table}_{month}":
        raise ValueError(f"{name!a} is not the name of a partition.")
    return Partition(name=name, first_id=_get_bound(start), end_id=_get_bound(_get_month(start, 1)))
