"""Deactivation, holds, erasure and sign-ins of one person at the same time: all lock rows in one order."""

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connection, connections, transaction

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.claims.retention import scrub_user
from django_phi_oidc.contrib.legal_holds.legal_holds import place_hold, release_hold
from django_phi_oidc.errors import HeldForLegalReasons
from django_phi_oidc.subjects.linking import mark_seen
from tests.support.session_fixtures import SignedIn, sign_in  # noqa: F401 -- a fixture

pytestmark = [
    pytest.mark.postgresql,
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
]
ROUNDS = 60
LONGEST_SECONDS = 30


@pytest.fixture
def person(sign_in: Callable[..., SignedIn]) -> SignedIn:
    """Return a person with two claims of the account, and after them, by primary key, one of the session."""
    person = sign_in()
    StoredClaim.objects.all().delete()
    store_claims(person, "address", "zip", of_session="birthdate")
    return person


def store_claims(person: SignedIn, *names: str, of_session: str) -> None:
    fields: dict[str, Any] = {"subject": person.subject, "value": '"x"', "purpose": "TREAT", "obtained_at": clock.now()}
    for name, session in (*((name, NO_SESSION) for name in names), (of_session, person.session.pk)):
        expires_at = clock.now() + timedelta(days=1) if session == NO_SESSION else None
        StoredClaim.objects.create(name=name, session=session, expires_at=expires_at, **fields)


def deactivate(person: SignedIn) -> None:
    user = get_user_model()._default_manager.get(pk=person.user.pk)
    user.is_active = False
    user.save()


def deactivate_in_a_transaction(person: SignedIn) -> None:
    """As the admin does."""
    with transaction.atomic():
        deactivate(person)


def hold(person: SignedIn) -> None:
    place_hold(person.subject.uuid, reason="a court order", until=None, origin=Origin(), now=clock.now())


def scrub(person: SignedIn) -> None:
    with suppress(HeldForLegalReasons):
        scrub_user(person.user, origin=Origin(), now=clock.now())


@contextmanager
def threads() -> Iterator[Callable[..., Future[None]]]:
    """Yield a function that runs another one in a thread with connections of its own."""
    with ThreadPoolExecutor(4) as pool:

        def start(function: Callable[[], None]) -> Future[None]:
            def run() -> None:
                try:
                    function()
                finally:
                    connections.close_all()

            return pool.submit(run)

        yield start


def wait_until_blocked(count: int) -> None:
    """Wait until that many sessions of this database wait for a lock."""
    blocked = "datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
    statement = f"SELECT count(*) FROM pg_stat_activity WHERE {blocked}"
    ends_at = time.monotonic() + LONGEST_SECONDS
    with connection.cursor() as cursor:
        while True:
            # A transaction sees the sessions as they were when it looked first.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(statement)
            if cursor.fetchone()[0] >= count:
                return
            assert time.monotonic() < ends_at, "No session waits for a lock."
            time.sleep(0.01)


@pytest.mark.parametrize("other", [hold, scrub])
@pytest.mark.parametrize("deactivation", [deactivate, deactivate_in_a_transaction])
def test_d10_deactivation_does_not_deadlock_with_a_hold_or_an_erasure(
    deactivation: Callable[[SignedIn], None], other: Callable[[SignedIn], None], person: SignedIn
) -> None:
    with threads() as start:
        with transaction.atomic():
            # The other one locks the claim "address", and waits here before it locks that of the session.
            StoredClaim.objects.select_for_update().get(name="zip")
            running = [start(partial(other, person))]
            wait_until_blocked(1)
            running.append(start(partial(deactivation, person)))
            wait_until_blocked(2)
        for future in running:
            future.result(LONGEST_SECONDS)
    assert not get_user_model()._default_manager.get(pk=person.user.pk).is_active
    assert not StoredClaim.objects.filter(expires_at=None).exists()


def test_d10_deactivation_does_not_deadlock_with_a_sign_in(person: SignedIn) -> None:
    """A sign-in locks the subject, then the account, whose last_login it writes."""
    seen, go_on = threading.Event(), threading.Event()

    def sign_in_again() -> None:
        with transaction.atomic():
            mark_seen(person.subject, now=clock.now())
            seen.set()
            assert go_on.wait(LONGEST_SECONDS)
            get_user_model()._default_manager.filter(pk=person.user.pk).update(last_login=clock.now())

    with threads() as start:
        running = [start(sign_in_again)]
        assert seen.wait(LONGEST_SECONDS)
        running.append(start(partial(deactivate_in_a_transaction, person)))
        wait_until_blocked(1)
        go_on.set()
        for future in running:
            future.result(LONGEST_SECONDS)
    assert not get_user_model()._default_manager.get(pk=person.user.pk).is_active


def test_d10_stress_of_all_together_has_no_deadlock(sign_in: Callable[..., SignedIn]) -> None:
    barrier, chance = threading.Barrier(4), random.Random(1)

    def sign_in_again(person: SignedIn) -> None:
        with transaction.atomic():
            mark_seen(person.subject, now=clock.now())
            get_user_model()._default_manager.filter(pk=person.user.pk).update(last_login=clock.now())
            store_claims(person, "phone", "zip", of_session="allergies")

    def together(function: Callable[[SignedIn], None], person: SignedIn, delay: float) -> None:
        barrier.wait(LONGEST_SECONDS)
        time.sleep(delay)
        function(person)

    functions = (hold, scrub, deactivate, sign_in_again)
    for _ in range(ROUNDS):
        person = sign_in()
        StoredClaim.objects.filter(subject=person.subject).delete()
        store_claims(person, "address", "email", of_session="birthdate")
        with threads() as start:
            running = [start(partial(together, run, person, chance.uniform(0, 0.02))) for run in functions]
            assert [future.exception(LONGEST_SECONDS) for future in running] == [None] * len(functions)
        assert not get_user_model()._default_manager.get(pk=person.user.pk).is_active
        (placed,) = person.subject.holds.all()
        release_hold(placed.pk, origin=Origin(), now=clock.now())
