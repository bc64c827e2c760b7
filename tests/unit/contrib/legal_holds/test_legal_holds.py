"""While a legal hold is active, no path erases claims of the person; after it, each path does."""

import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import connections, transaction

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.claims.models import NO_SESSION, StoredClaim
from django_phi_oidc.claims.retention import scrub_due_claims, scrub_inactive_users, scrub_sessions, scrub_user
from django_phi_oidc.contrib.legal_holds.legal_holds import (
    list_active_holds,
    place_hold,
    release_hold,
)
from django_phi_oidc.contrib.legal_holds.models import LegalHold
from django_phi_oidc.contrib.retention_keys.key_store import get_store
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import HeldForLegalReasons
from django_phi_oidc.fields import SealedTextField
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.claims_fixtures import DAY, NOW, Person
from tests.support.concurrent_transaction import transaction_beside
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.retention_key_folder import use_retention_keys

OFFICER = Origin(actor="officer")
LATER = NOW + 10 * DAY
HELD = {"birthdate": "1990-05-17", "address": {"locality": "Bern"}}


@pytest.fixture(params=["with retention keys", "without"])
def _retention_keys(request: pytest.FixtureRequest, settings: Any, tmp_path: Any) -> None:
    if request.param == "with retention keys":
        use_retention_keys(settings, tmp_path)


def hold(person: Person, *, until: Any = None, now: Any = NOW) -> LegalHold:
    return place_hold(person.subject.uuid, reason="Docket 26-117", until=until, origin=OFFICER, now=now)


def list_values(person: Person) -> list[tuple[str, str]]:
    """Return the name and decrypted value of each claim of the person."""
    field: SealedTextField = StoredClaim._meta.get_field("value")
    rows = StoredClaim.objects.filter(subject=person.subject.pk).order_by("name", "obtained_at", "pk")
    return [(row.name, str(field.decrypt(row))) for row in rows]


def end_the_session(person: Person) -> None:
    with transaction.atomic():
        scrub_sessions([person.session_id], origin=person.origin(), now=LATER)


def scrub_on_schedule(person: Person) -> None:
    scrub_due_claims(now=LATER)


def scrub_on_demand(person: Person) -> None:
    scrub_user(person.user, origin=OFFICER, now=LATER)


def deactivate(person: Person) -> None:
    person.user.is_active = False
    with clock.override_clock(lambda: LATER):
        person.user.save()


def scrub_deactivated(person: Person) -> None:
    with transaction.atomic():
        scrub_inactive_users([person.user.pk], origin=Origin(), now=LATER)


def delete_the_user(person: Person) -> None:
    get_user_model()._default_manager.get(pk=person.user.pk).delete()


def delete_many_users(person: Person) -> None:
    get_user_model()._default_manager.filter(pk=person.user.pk).delete()


def unlink(person: Person) -> None:
    PairwiseSubject.objects.get(pk=person.subject.pk).delete()


PATHS: dict[str, tuple[Callable[[Person], None], set[str], bool]] = {
    # The claims erased without a hold, and whether the path is refused under a hold.
    "the session ends": (end_the_session, {"birthdate"}, False),
    "on schedule": (scrub_on_schedule, {"address"}, False),
    "on demand": (scrub_on_demand, {"birthdate", "address"}, True),
    "the account is deactivated": (deactivate, {"birthdate", "address"}, False),
    "the account was deactivated without a signal": (scrub_deactivated, {"birthdate", "address"}, False),
    "the account is deleted": (delete_the_user, {"birthdate", "address"}, True),
    "accounts are deleted": (delete_many_users, {"birthdate", "address"}, True),
    "the person is unlinked": (unlink, {"birthdate", "address"}, True),
}


@pytest.mark.django_db
@pytest.mark.usefixtures("_retention_keys")
@pytest.mark.parametrize("path", PATHS)
def test_no_path_erases_claims_on_hold(path: str, make_person: Callable[..., Person]) -> None:
    run_path, erases, is_refused = PATHS[path]
    held, other = make_person(), make_person()
    for person in (held, other):
        person.store(HELD)
    hold(held)
    run_path(other)
    assert {name for name, _ in list_values(other)} == HELD.keys() - erases
    before = list_values(held)
    if is_refused:
        with pytest.raises(HeldForLegalReasons), transaction.atomic():
            run_path(held)
    else:
        run_path(held)
    assert list_values(held) == before
    assert {name for name, _ in before} == set(HELD)
    assert PairwiseSubject.objects.filter(pk=held.subject.pk, user=held.user.pk).exists()


@pytest.mark.django_db
@pytest.mark.usefixtures("_retention_keys")
@pytest.mark.parametrize("path", [path for path, (_, _, is_refused) in PATHS.items() if not is_refused])
def test_expired_claims_are_erased_after_the_release(path: str, person: Person) -> None:
    run_path, erases, _ = PATHS[path]
    person.store(HELD)
    placed = hold(person)
    run_path(person)
    assert scrub_due_claims(now=LATER) == 0
    assert release_hold(placed.pk, origin=OFFICER, now=LATER)
    assert scrub_due_claims(now=LATER) == len(erases | {"address"}), "the address expires after a day"
    assert {name for name, _ in list_values(person)} == HELD.keys() - erases - {"address"}


@pytest.mark.django_db
@pytest.mark.usefixtures("_retention_keys")
def test_hold_ends_exactly_at_its_end(person: Person) -> None:
    person.store(HELD)
    hold(person, until=LATER)
    assert scrub_due_claims(now=LATER - timedelta(microseconds=1)) == 0
    assert scrub_due_claims(now=LATER) == 1
    scrub_on_demand(person)
    assert list_values(person) == []


@pytest.mark.django_db
@pytest.mark.usefixtures("_retention_keys")
def test_two_holds_preserve_claims_until_both_end(person: Person) -> None:
    person.store(HELD)
    first, second = hold(person), hold(person, until=LATER + DAY)
    before = list_values(person)
    assert release_hold(first.pk, origin=OFFICER, now=LATER)
    assert scrub_due_claims(now=LATER) == 0
    assert list_values(person) == before
    assert list(list_active_holds(now=LATER)) == [second]
    assert scrub_due_claims(now=LATER + DAY) == 1


@pytest.mark.django_db
def test_hold_is_released_once_with_actor_and_time(person: Person, outbox_events: Callable[[str], Any]) -> None:
    person.store(HELD)
    placed = hold(person, until=LATER)
    assert release_hold(placed.pk, origin=Origin(actor="counsel"), now=NOW + DAY)
    assert not release_hold(placed.pk, origin=OFFICER, now=NOW + 2 * DAY)
    placed.refresh_from_db()
    assert (placed.placed_at, placed.placed_by) == (NOW, "officer")
    assert (placed.released_at, placed.released_by) == (NOW + DAY, "counsel")
    (event, detail), *more = outbox_events("hold.placed")
    assert (event.actor, event.subject, more) == ("officer", str(person.subject.uuid), [])
    assert (event.resource, detail) == (f"LegalHold/{placed.pk}", {"until": LATER.isoformat()})
    assert "Docket" not in str(event)
    assert [event.actor for event, _ in outbox_events("hold.released")] == ["counsel"]


@pytest.mark.django_db
@pytest.mark.parametrize(("reason", "until"), [("", None), (" ", None), ("Docket 26-117", NOW)])
def test_hold_without_a_reason_or_with_a_past_end_is_refused(person: Person, reason: str, until: Any) -> None:
    with pytest.raises(ValueError, match=r"reason|past"):
        place_hold(person.subject.uuid, reason=reason, until=until, origin=OFFICER, now=NOW)
    with pytest.raises(PairwiseSubject.DoesNotExist):
        place_hold(uuid.uuid4(), reason="Docket 26-117", until=None, origin=OFFICER, now=NOW)
    with pytest.raises(LegalHold.DoesNotExist):
        release_hold(uuid.uuid4(), origin=OFFICER, now=NOW)
    assert not LegalHold.objects.exists()
    assert hold(person).pk


@pytest.mark.django_db
@pytest.mark.usefixtures("_retention_keys")
def test_sign_in_preserves_replaced_claims_on_hold(person: Person) -> None:
    person.store(HELD)
    placed = hold(person)
    person.store({"birthdate": "1991-01-01", "address": {"locality": "Thun"}}, session_id=uuid.uuid4(), now=NOW + DAY)
    assert list_values(person) == [
        ("address", '{"locality": "Bern"}'),
        ("address", '{"locality": "Thun"}'),
        ("birthdate", '"1990-05-17"'),
        ("birthdate", '"1991-01-01"'),
    ]
    current = StoredClaim.objects.get(name="address", session=NO_SESSION)
    assert (current.obtained_at, current.expires_at) == (NOW + DAY, NOW + 2 * DAY)
    assert scrub_due_claims(now=LATER) == 0
    release_hold(placed.pk, origin=OFFICER, now=NOW + DAY)
    assert scrub_due_claims(now=NOW + DAY) == 1, "the replaced claim"
    person.store({"address": {"locality": "Biel"}}, now=NOW + DAY)
    assert StoredClaim.objects.filter(name="address").count() == 1, "replaced again"


@pytest.mark.django_db
def test_claims_use_the_key_of_the_active_hold(person: Person, settings: Any, tmp_path: Any) -> None:
    use_retention_keys(settings, tmp_path)
    person.store(HELD)

    def bucket_names() -> set[str]:
        rows = list(StoredClaim.objects.all())
        assert [row.value.key_id for row in rows] == [row.retention_key_names for row in rows]
        return {row.bucket for row in rows}

    assert bucket_names() == {"20261124-session", "20261124-86400"}
    placed = hold(person, now=NOW + DAY)
    assert bucket_names() == {f"hold-{placed.pk.hex}"}
    person.store({"allergies": ["penicillin"]}, now=NOW + DAY)
    assert bucket_names() == {f"hold-{placed.pk.hex}"}
    second = hold(person, now=NOW + DAY + timedelta(seconds=1))
    assert bucket_names() == {f"hold-{placed.pk.hex}"}
    release_hold(placed.pk, origin=OFFICER, now=NOW + DAY)
    assert bucket_names() == {f"hold-{second.pk.hex}"}
    release_hold(second.pk, origin=OFFICER, now=NOW + 2 * DAY)
    assert bucket_names() == {"20261126-session", "20261126-86400"}
    assert get_store().names() == sorted(
        {"20261124-session", "20261124-86400", "20261126-session", "20261126-86400"}
        | {f"hold-{row.pk.hex}" for row in (placed, second)}
    )


@pytest.mark.django_db
def test_undecryptable_claim_is_held_unchanged(person: Person, settings: Any, tmp_path: Any) -> None:
    use_retention_keys(settings, tmp_path)
    person.store(HELD)
    (tmp_path / "20261124-86400").unlink()
    ciphertext = StoredClaim.objects.get(name="address").value.ciphertext
    placed = hold(person)
    claim = StoredClaim.objects.get(name="address")
    assert (claim.value.ciphertext, claim.bucket) == (ciphertext, "20261124-86400")
    assert scrub_due_claims(now=LATER) == 0
    assert StoredClaim.objects.get(name="birthdate").bucket == f"hold-{placed.pk.hex}"


@pytest.mark.django_db(transaction=True)
def test_hold_is_atomic_with_concurrent_erasure(make_person: Callable[..., Person]) -> None:
    """After a hold is placed, no claim of the person is erased."""
    persons = [make_person() for _ in range(40)]
    for person in persons:
        for _ in range(5):
            person.store({"address": "Bern", "birthdate": "1990-05-17"}, session_id=uuid.uuid4())
    # SQLite serves waiting writers in no order. Without the second barrier, all erasures may precede the first hold:
    # the scheduled one erases all claims of these sessions, which have no rows, in one transaction.
    start, middle, counts = threading.Barrier(3), threading.Barrier(4), {}

    def erase() -> None:
        middle.wait(60)
        scrub_due_claims(now=LATER, batch_size=3)
        connections.close_all()

    def end_sessions(sessions: list[uuid.UUID]) -> None:
        start.wait(10)
        for number, session in enumerate(sessions):
            if number == len(sessions) // 4:
                middle.wait(60)
            with transaction.atomic():
                scrub_sessions([session], origin=Origin(), now=LATER)
        connections.close_all()

    def place_holds() -> None:
        start.wait(10)
        for number, person in enumerate(persons):
            if number == len(persons) // 2:
                middle.wait(60)
            hold(person, now=LATER)
            counts[person] = StoredClaim.objects.filter(subject=person.subject.pk).count()
        connections.close_all()

    sessions = list(StoredClaim.objects.exclude(session=NO_SESSION).order_by("pk").values_list("session", flat=True))
    with ThreadPoolExecutor(4) as pool:
        for future in [
            pool.submit(erase),
            pool.submit(end_sessions, sessions),
            pool.submit(end_sessions, sessions[::-1]),
            pool.submit(place_holds),
        ]:
            future.result(120)
    assert counts == {person: StoredClaim.objects.filter(subject=person.subject.pk).count() for person in persons}
    assert 0 < sum(counts.values()) < 6 * 40, "the threads ran concurrently"


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("path", ["the session ends", "on schedule", "on demand"])
def test_erasure_that_waits_for_a_hold_erases_nothing(path: str, make_person: Callable[..., Person]) -> None:
    person = make_person()
    person.store(HELD)

    def erase() -> None:
        run_path, _, is_refused = PATHS[path]
        try:
            run_path(person)
        except HeldForLegalReasons:
            assert is_refused
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool, transaction_beside(lambda: hold(person)) as commit:
        future = pool.submit(erase)
        is_waiting = not threading.Event().wait(0.3) and not future.done()
        commit()
        future.result(10)
    assert is_waiting == (path != "on schedule"), "the scheduled run skips locked rows"
    assert {name for name, _ in list_values(person)} == set(HELD)


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_sign_in_that_waits_for_a_hold_respects_it(make_person: Callable[..., Person]) -> None:
    person = make_person()
    person.store(HELD)

    def sign_in() -> None:
        try:
            person.store({"address": "Thun"}, now=NOW + DAY)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool, transaction_beside(lambda: hold(person)) as commit:
        future = pool.submit(sign_in)
        commit()
        future.result(10)
    assert sorted(value for _, value in list_values(person)) == ['"1990-05-17"', '"Thun"', '{"locality": "Bern"}']
    assert scrub_due_claims(now=LATER) == 0


@pytest.mark.django_db
def test_sign_in_started_before_a_release_is_not_held(person: Person) -> None:
    placed = hold(person)
    person.subject.refresh_from_db()
    release_hold(placed.pk, origin=OFFICER, now=NOW)
    assert person.subject.held_until is not None, "the instance that the sign-in has read"
    person.store(HELD)
    assert set(StoredClaim.objects.values_list("held_until", flat=True)) == {None}
    assert scrub_user(person.user, origin=OFFICER, now=NOW) == 2


@pytest.mark.django_db
def test_sign_in_does_not_replace_undecryptable_claims_on_hold(person: Person, settings: Any, tmp_path: Any) -> None:
    original = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(original, KEYS={"encryption": [keyring.generate_key()]})
    person.store(HELD)
    hold(person)
    before = settings.PHI_OIDC
    settings.PHI_OIDC = original
    new_claims = {"address": {"locality": "Thun"}, "allergies": []}
    assert person.store(new_claims, session_id=uuid.uuid4(), now=NOW + DAY) == ("allergies",)
    assert person.store({"address": {"locality": "Thun"}}, now=NOW + DAY) == ()
    StoredClaim.objects.filter(name="allergies")._raw_delete("default")
    settings.PHI_OIDC = before
    assert dict(list_values(person))["address"] == '{"locality": "Bern"}'


@pytest.mark.django_db
def test_hold_is_released_with_a_slow_clock(person: Person, settings: Any, tmp_path: Any) -> None:
    use_retention_keys(settings, tmp_path)
    placed = hold(person)
    person.store({"address": "Bern"}, now=NOW + timedelta(seconds=3))
    scrub_inactive_users([person.user.pk], origin=OFFICER, now=NOW + timedelta(seconds=1))
    assert release_hold(placed.pk, origin=OFFICER, now=NOW + timedelta(seconds=5))
    assert StoredClaim.objects.get().bucket == "20261124-0"


def delete_claim(person: Person) -> None:
    StoredClaim.objects.filter(subject=person.subject.pk)[0].delete()


def delete_claims(person: Person) -> None:
    person.subject.claims.filter(name="address").delete()


def delete_claims_by_base_manager(person: Person) -> None:
    StoredClaim._base_manager.filter(subject=person.subject.pk).delete()


def delete_holds(person: Person) -> None:
    LegalHold.objects.filter(subject=person.subject.pk).delete()


def delete_hold(person: Person) -> None:
    LegalHold.objects.get(subject=person.subject.pk).delete()


@pytest.mark.parametrize("until", [None, NOW + DAY], ids=["without an end", "with an end"])
@pytest.mark.parametrize(
    "delete", [delete_claim, delete_claims, delete_claims_by_base_manager, delete_holds, delete_hold]
)
def test_f6_orm_deletes_neither_held_claims_nor_an_active_hold(
    delete: Callable[[Person], None], until: Any, person: Person
) -> None:
    person.store(HELD)
    hold(person, until=until)
    before = list_values(person)
    with clock.override_clock(lambda: NOW), pytest.raises(HeldForLegalReasons), transaction.atomic():
        delete(person)
    assert list_values(person) == before
    assert LegalHold.objects.filter(released_at=None).count() == 1


@pytest.mark.parametrize("delete", [delete_claim, delete_claims, delete_claims_by_base_manager, delete_holds])
def test_f6_orm_deletes_claims_and_holds_after_the_hold(delete: Callable[[Person], None], person: Person) -> None:
    """The counterpart: the same deletions after the release, or after the end."""
    person.store(HELD)
    first = hold(person)
    release_hold(first.pk, origin=OFFICER, now=NOW)
    hold(person, until=NOW + DAY)
    with clock.override_clock(lambda: NOW + DAY):
        delete(person)
    assert PairwiseSubject.objects.get(pk=person.subject.pk).held_until == NOW + DAY
    assert len(list_values(person)) + LegalHold.objects.count() < 4
