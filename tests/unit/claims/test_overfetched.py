"""Undeclared claims are recorded once for each provider and set of names, across processes."""

from collections.abc import Sequence
from datetime import UTC, datetime
from threading import Timer

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.events import Action, NewEvent, Origin
from django_phi_oidc.claims.overfetched import forget_remembered, record_overfetched
from django_phi_oidc.replay.cache import delete_expired
from tests.support.concurrent_transaction import transaction_beside
from tests.support.portal_fixtures import events

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
NOW = datetime(2026, 5, 4, 9, 30, tzinfo=UTC)


def build_event(provider: str = "default") -> NewEvent:
    return NewEvent(action=Action.CLAIM_OVERFETCHED, origin=Origin(), now=NOW, provider=provider, subject="a-subject")


def overfetch(*names: str, provider: str = "default") -> None:
    with transaction.atomic():
        record_overfetched(names, build_event(provider))


def recorded() -> list[tuple[str, str]]:
    return [(event.provider, event.detail) for event in events(action="claim.overfetched")]


def test_same_names_of_a_provider_are_recorded_once() -> None:
    overfetch("nickname", "ssn")
    overfetch("nickname", "ssn")
    assert recorded() == [("default", '{"claims":["nickname","ssn"]}')]


@pytest.mark.parametrize(
    ("names", "provider"),
    [(["nickname"], "default"), (["nickname", "ssn", "zip"], "default"), (["nickname", "ssn"], "other")],
)
def test_other_names_and_other_providers_are_recorded_too(names: Sequence[str], provider: str) -> None:
    overfetch("nickname", "ssn")
    overfetch(*names, provider=provider)
    assert sorted(name for name, _ in recorded()) == sorted(["default", provider])


def test_nothing_is_recorded_without_undeclared_claims() -> None:
    overfetch()
    assert recorded() == []


def test_another_process_looks_once_and_records_nothing() -> None:
    overfetch("ssn")
    delete_expired(now=NOW.replace(year=9000))
    forget_remembered()
    for count in (1, 0):
        with transaction.atomic(), CaptureQueriesContext(connection) as context:
            record_overfetched(["ssn"], build_event())
        assert [query["sql"].split()[0] for query in context.captured_queries] == ["SELECT"] * count
    assert len(recorded()) == 1


def test_event_that_is_rolled_back_is_recorded_later() -> None:
    with transaction.atomic():
        record_overfetched(["ssn"], build_event())
        transaction.set_rollback(True)
    assert recorded() == []
    overfetch("ssn")
    assert len(recorded()) == 1


@pytest.mark.postgresql
@pytest.mark.parametrize("is_committed", [True, False])
def test_one_of_two_concurrent_sign_ins_records_the_event(is_committed: bool) -> None:
    def record_and_perhaps_fail() -> None:
        record_overfetched(["ssn"], build_event())
        transaction.set_rollback(not is_committed)

    with transaction_beside(record_and_perhaps_fail) as commit:
        Timer(0.3, commit).start()
        overfetch("ssn")
    assert len(recorded()) == 1
