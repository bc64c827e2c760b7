"""Erase claims when their session ends, when they expire, or on request, and destroy unused
retention keys.

Events never contain erased values. Without one of its retention keys, a claim in a backup cannot be
decrypted. The key of a day is destroyed when no claim of that day is left, the key of a person when
all claims of the person are erased.
"""

import logging
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery

from .._internal import randomness
from .._internal.sql import any_of, fetch
from ..audit.events import MAX_ITEMS, Action, NewEvent, Origin
from ..audit.outbox import batch_delivery, enqueue_many
from ..audit.recorder import is_recorded, record_many
from ..crypto import retention_keys
from ..errors import Code, HeldForLegalReasons, KeyMissing
from ..extensions import retention_guards
from ..subjects.models import PairwiseSubject
from .models import NO_SESSION, StoredClaim, UnusedPersonKey, get_session_claim_condition
from .retention_limits import get_past_limit_condition

logger = logging.getLogger(__name__)
SCRUB_BATCH_SIZE = 10_000
"""Rows erased in one transaction."""
ORPHAN_BATCH_SIZE = 500
PERSON_KEY_BATCH_SIZE = 100
"""Keys of persons destroyed in one run."""
SCRUB_LOCK_ID = 0x7068695F73637275
"""PostgreSQL advisory lock, held by the worker that erases the first batch of expired claims."""
DESTRUCTION_MARGIN = timedelta(hours=1)
"""After the end of a day or of a hold. Claims obtained before that end are committed by then, by
any server's clock.
"""


def scrub_sessions(
    session_ids: Collection[uuid.UUID],
    *,
    origin: Origin,
    now: datetime,
    further_events: Sequence[NewEvent] = (),
) -> int:
    """Erase the claims of sessions in the caller's transaction; return their number.

    Claims on legal hold are marked as expired instead, and erased when the hold ends.
    further_events: of the same transaction, which are written to the outbox by the same statement.
    Requires: the caller has locked the sessions, so that nothing is stored into them meanwhile.
    """
    if NO_SESSION in session_ids:
        raise ValueError("NO_SESSION is not a session: its claims outlive all sessions.")
    claims = fetch(_build_session_claims_query, [*session_ids, NO_SESSION], using=connection.alias)
    rows, held = _split_by_hold(claims, now=now)
    _mark_expired(held, now=now)
    if rows:
        _delete_unheld_rows([pk for _, pk, _, _ in rows])
    events: list[NewEvent] = [*further_events]
    for session, group in groupby(sorted(rows), key=itemgetter(0)):
        erased = list(group)
        names = [name for *_, name, _ in erased]
        subject_uuid = str(erased[0][3])
        of_session = origin._replace(session=str(session))
        events += _create_scrub_events(
            names, cause="session_ended", subject=subject_uuid, origin=of_session, now=now
        )
    enqueue_many(events)
    return len(rows)


def _build_session_claims_query(*session_ids: uuid.UUID) -> QuerySet[Any]:
    """Return the query of the claims of these sessions: held until, session, key, name and UUID of
    the subject.

    session_ids: the last one is NO_SESSION, whose exclusion permits the use of the index.
    """
    # A subquery, because a join would lock the subject too, and block a sign-in of the same person.
    subject = PairwiseSubject.objects.filter(pk=OuterRef("subject")).values("uuid")
    # All code locks claims in this order, which prevents deadlocks.
    claims = StoredClaim.objects.filter(any_of("session", session_ids[:-1])).exclude(
        session=session_ids[-1]
    )
    claims = claims.order_by("pk").select_for_update()
    claims = claims.annotate(subject_uuid=Subquery(subject))
    return claims.values_list("held_until", "session", "pk", "name", "subject_uuid")


def scrub_user(user: AbstractBaseUser, *, origin: Origin, now: datetime) -> int:
    """Erase all claims of a person now, including those of active sessions and of their ID Tokens;
    return their number.

    Raises: HeldForLegalReasons, and then nothing was erased.
    """
    with transaction.atomic():
        subjects = lock_subjects_of_users([user.pk])
        in_tokens = _discard_id_tokens(subjects, cause="requested", origin=origin, now=now)
        return in_tokens + _scrub_subjects(subjects, cause="requested", origin=origin, now=now)


def _discard_id_tokens(
    subjects: Sequence[PairwiseSubject], *, cause: str, origin: Origin, now: datetime
) -> int:
    """Delete the ID Tokens of live sessions that have claims about these persons; return the number
    of the claims.

    Raises: HeldForLegalReasons.
    """
    # By name, because sessions are a layer above claims. They are locked before the claims.
    sessions = apps.get_model("django_phi_oidc", "OIDCSession")._default_manager
    discarded: dict[int, list[tuple[str, ...]]] = {}
    for subject_id, names in sessions.discard_personal_id_tokens(subjects):
        discarded.setdefault(subject_id, []).append(names)
    events = []
    for subject in subjects:
        if subject.pk not in discarded:
            continue
        if subject.is_held(now=now):
            raise HeldForLegalReasons
        for names in discarded[subject.pk]:
            scrubbed = _create_scrub_events(
                names, cause=cause, subject=str(subject.uuid), origin=origin, now=now
            )
            if not scrubbed:
                # A token that could not be decrypted has no names.
                nameless = NewEvent(
                    Action.CLAIM_SCRUBBED,
                    subject=str(subject.uuid),
                    origin=origin,
                    now=now,
                    detail={"cause": cause, "claims": [], "counts": []},
                )
                scrubbed = [nameless]
            for event in scrubbed:
                detail = {**(event.detail or {}), "place": "id_token"}
                events.append(event._replace(detail=detail))
    enqueue_many(events)
    count = 0
    for tokens in discarded.values():
        for names in tokens:
            count += len(names)
    return count


def scrub_subject(subject: PairwiseSubject, *, cause: str, origin: Origin, now: datetime) -> int:
    """Erase all claims of a subject in the caller's transaction; return their number.

    Requires: the caller has locked the subject. Raises: HeldForLegalReasons.
    """
    return _scrub_subjects([subject], cause=cause, origin=origin, now=now)


def lock_subjects_of_users(users: Collection[Any]) -> list[PairwiseSubject]:
    """Lock the subjects of these users until the end of the transaction, and return them.

    All code locks in this order, which prevents deadlocks: subjects, accounts, sessions, claims,
    each by primary key.
    A sign-in locks its claims by name, but after its subject.
    """
    return list(
        PairwiseSubject.objects.filter(user__in=users).order_by("pk").select_for_update(no_key=True)
    )


def scrub_inactive_users(users: Collection[Any], *, origin: Origin, now: datetime) -> int:
    """Erase all claims of deactivated accounts in the caller's transaction; return their number.

    Claims on legal hold are marked as expired instead, and erased when the hold ends.
    """
    subjects = lock_subjects_of_users(users)
    rows, held = _lock_subject_claims(subjects, now=now)
    _mark_expired(held, now=now)
    count = _delete_claims(rows, subjects, cause="user_inactive", origin=origin, now=now)
    # Held claims have the key of the hold, except claims that could not be decrypted when the hold
    # was placed.
    preserved = StoredClaim.objects.filter(pk__in=held).exclude(
        bucket__startswith=retention_keys.HOLD_PREFIX
    )
    kept = set(preserved.values_list("subject", flat=True))
    _replace_person_keys([subject for subject in subjects if subject.pk not in kept])
    return count


def count_claims_of_user(user: AbstractBaseUser, *, now: datetime) -> int:
    """Return how many claims `scrub_user` would erase. Raises: HeldForLegalReasons."""
    subjects = list(PairwiseSubject.objects.filter(user=user.pk))
    claims = StoredClaim.objects.filter(subject__in=subjects)
    if claims.filter(held_until__gt=now).exists() or _has_held_subject(subjects, now=now):
        raise HeldForLegalReasons
    tokens = apps.get_model(
        "django_phi_oidc", "OIDCSession"
    )._default_manager.list_personal_id_tokens(subjects)
    return claims.count() + sum(len(names) for _, names in tokens.values())


def scrub_due_claims(
    *,
    now: datetime,
    batch_size: int = SCRUB_BATCH_SIZE,
    report_progress: Callable[[int], None] = lambda erased: None,
) -> int:
    """Erase the expired claims that no legal hold preserves; return how many this run erased.

    Each batch and its event is one transaction, so a killed worker leaves nothing half done.
    Several workers share the work: on PostgreSQL they start at both ends and skip rows that another
    worker has locked, on SQLite they wait.
    report_progress: called after each batch with the number of erased claims.
    """
    erased = 0
    last_due_at = None
    newest_first = None
    with batch_delivery():
        while True:
            # Each batch continues where the last one ended, to avoid reading the deleted rows
            # again.
            with transaction.atomic():
                if newest_first is None:
                    newest_first = not _acquire_scrub_lock()

                counts, last_due_at = _delete_due_claims(
                    after=last_due_at, newest_first=newest_first, now=now, batch_size=batch_size
                )
                enqueue_many(
                    _create_scrub_events(counts, cause="due", subject="", origin=Origin(), now=now)
                )
            erased += counts.total()
            report_progress(erased)
            if counts.total() != batch_size:
                return erased


def scrub_past_limit(
    *,
    now: datetime,
    batch_size: int = SCRUB_BATCH_SIZE,
    report_progress: Callable[[int], None] = lambda erased: None,
) -> int:
    """Erase the claims of sessions that are gone, and those that the current declarations no longer
    permit to store.

    The latter are those after the retention in CLAIMS was shortened, or a claim removed. Claims on
    legal hold stay. Returns their number. Each batch and its event is one transaction; rows that
    another transaction has locked are left to the next run. Reads the whole table.
    """
    skip_locked = connection.features.has_select_for_update_skip_locked
    is_erasable = get_past_limit_condition(now=now) & (Q(held_until=None) | Q(held_until__lte=now))
    with batch_delivery():
        erased = _scrub_orphaned_claims(now=now)
        while True:
            with transaction.atomic():
                claims = (
                    StoredClaim.objects.filter(is_erasable)
                    .order_by("pk")
                    .select_for_update(skip_locked=skip_locked)
                )
                names_by_id = dict(claims.values_list("pk", "name")[:batch_size])
                _delete_unheld_rows(names_by_id)
                names = names_by_id.values()
                enqueue_many(
                    _create_scrub_events(
                        names, cause="declaration", subject="", origin=Origin(), now=now
                    )
                )
            erased += len(names_by_id)
            report_progress(erased)
            if len(names_by_id) != batch_size:
                return erased


def count_unused_keys(*, now: datetime, due: Q) -> int:
    """Return how many keys `destroy_unused_keys` would destroy after the erasure of the claims that
    meet the condition.

    Raises: KeyMissing.
    """
    if not retention_keys.is_enabled():
        return 0
    in_use = set(StoredClaim.objects.exclude(due).values_list("bucket", flat=True).distinct())
    names = []
    for name in retention_keys.get_store().names():
        if name not in in_use:
            names.append(name)
    count = 0
    for name in names:
        if not _can_be_in_use(name, now=now):
            count += 1
    return count + UnusedPersonKey.objects.count()


def destroy_unused_keys(*, now: datetime) -> list[str]:
    """Destroy the retention keys that no claim uses or will use; return their names: days, holds,
    erased persons.

    `retention.key_unused` is committed before a key is destroyed, and the result in
    `retention.key_destroyed` after it. A key that can't be destroyed does not prevent the
    destruction of the others. Each run tries it again, and once an hour its events and an alert are
    written.
    Raises: AuditUnavailable; KeyMissing, after the other keys were destroyed.
    """
    if not retention_keys.is_enabled():
        return []
    store = retention_keys.get_store()
    destroyed = list[str]()
    count = 0
    for unused in _iter_unused_keys(store, now=now):
        destroyed += _destroy_keys(store, unused, now=now)
        count += len(unused)
    kept = count - len(destroyed)
    if kept:
        raise KeyMissing(f"{kept} of {count} unused retention keys can't be destroyed.")
    return destroyed


def _destroy_keys(
    store: retention_keys.RetentionKeyStore,
    unused: Mapping[str, UnusedPersonKey | None],
    *,
    now: datetime,
) -> list[str]:
    """Destroy these keys, with their events, and return the names of those that are gone. Raises:
    AuditUnavailable.
    """
    new = []
    for name in unused:
        if not is_recorded(Action.RETENTION_KEY_UNUSED, "bucket", name, now=now):
            new.append(name)

    announcements = []
    for name in new:
        announcements.append(
            _create_key_event(Action.RETENTION_KEY_UNUSED, name, unused[name], now=now)
        )
    record_many(announcements)

    events: list[NewEvent] = []
    destroyed = []
    try:
        for name, person_key in unused.items():
            event = _create_key_event(Action.RETENTION_KEY_DESTROYED, name, person_key, now=now)
            if _destroy_key(store, name):
                destroyed.append(name)
                events.append(event)
            elif name in new:
                alert = NewEvent(
                    Action.ALERT_RAISED, Origin(), now, detail={"rule": "retention_key_kept"}
                )
                for item in (event, alert):
                    events.append(item._replace(outcome="failure", reason=Code.KEY_MISSING))
    finally:
        with transaction.atomic():
            person_key_ids = []
            for name in destroyed:
                person_key = unused[name]
                if person_key:
                    person_key_ids.append(person_key.pk)
            UnusedPersonKey.objects.filter(pk__in=person_key_ids).delete()
            enqueue_many(events)
    return destroyed


def _scrub_orphaned_claims(*, now: datetime) -> int:
    """Erase the claims of sessions that are gone, as their end would have done; return their
    number.
    """
    orphaned = StoredClaim.objects.filter(get_session_claim_condition(is_session_live=False))
    erased = 0
    while session_ids := set(orphaned.values_list("session", flat=True)[:ORPHAN_BATCH_SIZE]):
        with transaction.atomic():
            erased += scrub_sessions(session_ids, origin=Origin(), now=now)
    return erased


def _iter_unused_keys(
    store: retention_keys.RetentionKeyStore, *, now: datetime
) -> Iterator[dict[str, UnusedPersonKey | None]]:
    """Yield the names of the unused keys: those of days and holds, then batches of erased persons,
    with their rows.
    """
    names = list(store.names())
    names_in_use: Collection[str]
    if names:
        names_in_use = list_keys_in_use()
    else:
        names_in_use = ()

    unused = []
    for name in names:
        if name not in names_in_use and not _can_be_in_use(name, now=now):
            unused.append(name)
    if unused:
        yield dict.fromkeys(unused)
    # The store is not asked for the keys of persons: it may have millions of them.
    rows = UnusedPersonKey.objects.order_by("pk")
    batch = list(rows[:PERSON_KEY_BATCH_SIZE])
    while batch:
        yield {str(person_key): person_key for person_key in batch}
        # By primary key and not from the start: keys that can't be destroyed stay, and must not
        # block the others.
        batch = list(rows.filter(pk__gt=batch[-1].pk)[:PERSON_KEY_BATCH_SIZE])


def _create_key_event(
    action: Action, name: str, person_key: UnusedPersonKey | None, *, now: datetime
) -> NewEvent:
    if person_key:
        subject = str(person_key.subject_uuid)
    else:
        subject = ""
    return NewEvent(action, Origin(), now, subject=subject, detail={"bucket": name})


def _destroy_key(store: retention_keys.RetentionKeyStore, name: str) -> bool:
    """Destroy the key, and return whether it is gone."""
    try:
        store.destroy(name)
        return store.get(name) is None
    except KeyMissing as error:
        logger.error("The retention key %s can't be destroyed: %s", name, error)  # noqa: TRY400 -- the traceback may contain credentials of a key service
        return False


def _acquire_scrub_lock() -> bool:
    """Return whether no other worker is in its first batch. The lock is held until the transaction
    ends.
    """
    if connection.vendor != "postgresql":
        return True
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [SCRUB_LOCK_ID])
        return bool(cursor.fetchone()[0])


def _delete_due_claims(
    *, after: datetime | None, newest_first: bool, now: datetime, batch_size: int
) -> tuple[Counter[str], datetime | None]:
    """Delete at most batch_size due rows by one statement; return their number by name, and when
    the last was due.
    """
    table = connection.ops.quote_name(StoredClaim._meta.db_table)
    is_postgresql = connection.vendor == "postgresql"

    if newest_first:
        order = "DESC"
        edge = "min"
        on = "<="
    else:
        order = "ASC"
        edge = "max"
        on = ">="

    due = (
        f"SELECT {'ctid' if is_postgresql else 'id'} "  # noqa: S608
        f"FROM {table} WHERE expires_at <= %s"
        f"{f' AND expires_at {on} %s' if after else ''} AND (held_until IS NULL OR held_until <= "
        "%s)"
        f" ORDER BY expires_at {order} LIMIT %s"
    )
    if is_postgresql:
        # A concurrent hold waits for these row locks; or it has them first, and PostgreSQL checks
        # the rows again.
        statement = (
            f"WITH gone AS (DELETE FROM {table} WHERE ctid = "  # noqa: S608
            f"ANY(ARRAY({due} FOR UPDATE SKIP LOCKED))"
            " RETURNING name, expires_at) SELECT name, count(*), "
            f"{edge}(expires_at) FROM gone GROUP BY name"
        )
    else:
        statement = f"DELETE FROM {table} WHERE id IN ({due}) RETURNING name, 1, expires_at"  # noqa: S608
    parameters = []
    for value in (now, after, now):
        if value:
            parameters.append(connection.ops.adapt_datetimefield_value(value))
    counts: Counter[str] = Counter()
    edges = []
    with connection.cursor() as cursor:
        cursor.execute(statement, [*parameters, batch_size])
        for name, count, due_at in cursor.fetchall():
            counts[name] += count
            # SQLite stores no time zone; Django stores UTC there.
            edges.append(due_at if due_at.tzinfo else due_at.replace(tzinfo=UTC))
    return counts, (min if newest_first else max)(edges, default=None)


def _scrub_subjects(
    subjects: Sequence[PairwiseSubject], *, cause: str, origin: Origin, now: datetime
) -> int:
    rows, held = _lock_subject_claims(subjects, now=now)
    # A hold also counts without held claims: a backup may have claims that it preserves, under the
    # keys of the persons.
    if held or _has_held_subject(subjects, now=now):
        raise HeldForLegalReasons
    _replace_person_keys(subjects)
    return _delete_claims(rows, subjects, cause=cause, origin=origin, now=now)


def _has_held_subject(subjects: Iterable[PairwiseSubject], *, now: datetime) -> bool:
    return any(subject.is_held(now=now) for subject in subjects)


def _replace_person_keys(subjects: Sequence[PairwiseSubject]) -> None:
    """Mark the keys of these subjects as unused. A later sign-in uses a new one. Requires: the
    subjects are locked.

    This is also done without claims: a backup may have claims of the person that were erased for
    another reason.
    """
    if not retention_keys.is_enabled():
        return
    unused = [
        UnusedPersonKey(id=subject.retention_key_id, subject_uuid=subject.uuid)
        for subject in subjects
    ]
    # After a restore, the key of a person may be marked again before it was destroyed.
    UnusedPersonKey.objects.bulk_create(unused, ignore_conflicts=True)
    for subject in subjects:
        subject.retention_key_id = randomness.uuid4()
    PairwiseSubject.objects.bulk_update(subjects, ["retention_key_id"])


def _lock_subject_claims(
    subjects: Sequence[PairwiseSubject], *, now: datetime
) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Lock the claims of all subjects. Return session, key, name and subject of the erasable ones,
    and held keys.
    """
    claims = StoredClaim.objects.filter(subject__in=subjects).order_by("pk").select_for_update()
    return _split_by_hold(
        claims.values_list("held_until", "session", "pk", "name", "subject"), now=now
    )


def _split_by_hold(
    claim_rows: Iterable[Any], *, now: datetime
) -> tuple[list[tuple[Any, ...]], list[int]]:
    """Return the rows without an active hold, without their held_until, and the keys of the other
    rows.
    """
    rows = []
    held = []
    for held_until, *row in claim_rows:
        if held_until is None or held_until <= now:
            rows.append(tuple(row))
        else:
            held.append(row[1])
    return rows, held


def _mark_expired(claim_ids: Sequence[int], *, now: datetime) -> None:
    """Mark claims on hold as expired: they cannot be revealed, and `scrub_due_claims` erases them
    after the hold.
    """
    if claim_ids:
        StoredClaim.objects.filter(
            Q(expires_at=None) | Q(expires_at__gt=now), pk__in=claim_ids
        ).update(expires_at=now)


def _delete_claims(
    rows: Sequence[tuple[Any, ...]],
    subjects: Sequence[PairwiseSubject],
    *,
    cause: str,
    origin: Origin,
    now: datetime,
) -> int:
    if not rows:
        return 0
    _delete_unheld_rows([pk for _, pk, _, _ in rows])
    events: list[NewEvent] = []
    for subject in subjects:
        names = []
        for _, _, name, owner in rows:
            if owner == subject.pk:
                names.append(name)
        events += _create_scrub_events(
            names, cause=cause, subject=str(subject.uuid), origin=origin, now=now
        )
    enqueue_many(events)
    return len(rows)


def _delete_unheld_rows(claim_ids: Collection[int]) -> None:
    """Delete by one statement, without the signal that checks each row. Requires: the rows are
    locked and not held.
    """
    StoredClaim.objects.filter(pk__in=claim_ids)._raw_delete(using=connection.alias)


def _create_scrub_events(
    names: Iterable[str] | Counter[str], *, cause: str, subject: str, origin: Origin, now: datetime
) -> list[NewEvent]:
    counts = sorted(Counter(names).items())
    event = NewEvent(action=Action.CLAIM_SCRUBBED, origin=origin, now=now, subject=subject)
    events = []
    for start in range(0, len(counts), MAX_ITEMS):
        claim_names, numbers = zip(*counts[start : start + MAX_ITEMS], strict=True)
        detail = {"cause": cause, "claims": list(claim_names), "counts": list(numbers)}
        events.append(event._replace(detail=detail))
    return events


def list_keys_in_use() -> set[str]:
    """Return the names of the keys that encrypt claims. One statement, with one index lookup for
    each name.
    """
    table = connection.ops.quote_name(StoredClaim._meta.db_table)
    least = f"SELECT min(bucket) FROM {table} WHERE bucket <> ''"  # noqa: S608 -- the model's name
    with connection.cursor() as cursor:
        cursor.execute(
            f"WITH RECURSIVE used(name) AS (SELECT ({least}) UNION ALL"  # noqa: S608
            f" SELECT ({least} AND bucket > used.name) FROM used WHERE used.name IS NOT NULL)"
            " SELECT name FROM used WHERE name IS NOT NULL"
        )
        return {name for (name,) in cursor.fetchall()}


def _can_be_in_use(key_name: str, *, now: datetime) -> bool:
    day = retention_keys.parse_key_date(key_name)
    if day is not None:
        return day >= (now - DESTRUCTION_MARGIN).date()
    # Only a guard knows its holds. A process without the app must not destroy the key of a hold
    # that another process is just placing.
    if not retention_guards:
        return True
    return any(
        guard.may_need_key(key_name, now=now - DESTRUCTION_MARGIN) for guard in retention_guards
    )
