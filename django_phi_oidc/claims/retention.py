"""Erase claims when their session ends, when they expire, or on request.

Events never contain erased values. If an app supplies the keys of claims, it marks those of an
erased person in the same transaction, and destroys afterwards what no claim needs.
"""

import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from typing import Any

from django.apps import apps
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import connection, transaction
from django.db.models import OuterRef, Q, QuerySet, Subquery

from .._internal.sql import any_of, fetch
from ..audit.events import MAX_ITEMS, Action, NewEvent, Origin
from ..audit.outbox import batch_delivery, enqueue_many
from ..crypto import claim_keys
from ..errors import HeldForLegalReasons
from ..subjects.models import PairwiseSubject
from .models import NO_SESSION, StoredClaim, get_session_claim_condition
from .retention_limits import get_past_limit_condition

SCRUB_BATCH_SIZE = 10_000
"""Rows erased in one transaction."""
ORPHAN_BATCH_SIZE = 500
SCRUB_LOCK_ID = 0x7068695F73637275
"""PostgreSQL advisory lock, held by the worker that erases the first batch of expired claims."""


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
    _replace_person_keys(subjects, held_claims=held)
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


def destroy_unused_keys(*, now: datetime) -> list[str]:
    """Destroy the keys that an app supplies for claims and that no claim uses or will use; return
    their names.

    Raises: AuditUnavailable; KeyMissing, after the other keys were destroyed.
    """
    source = claim_keys.find_enabled_source()
    if source is None:
        return []
    return source.destroy_unused_keys(now=now)


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
    _replace_person_keys(subjects, held_claims=())
    return _delete_claims(rows, subjects, cause=cause, origin=origin, now=now)


def _has_held_subject(subjects: Iterable[PairwiseSubject], *, now: datetime) -> bool:
    return any(subject.is_held(now=now) for subject in subjects)


def _replace_person_keys(
    subjects: Sequence[PairwiseSubject], *, held_claims: Collection[int]
) -> None:
    """Mark the keys of these subjects as unused, if an app supplies them. Requires: the subjects
    are locked.
    """
    source = claim_keys.find_enabled_source()
    if source is not None:
        source.replace_person_keys(subjects, held_claims=held_claims)


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
