"""A value is spent once, across all processes."""

import json
import os
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.test.utils import CaptureQueriesContext

from django_phi_oidc._internal import clock
from django_phi_oidc.replay.cache import delete_expired, mark_used, mark_used_in_transaction, was_used
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.replay.tasks import delete_expired_identifiers
from tests.support import databases

NOW = datetime(2026, 11, 24, 16, 5, tzinfo=UTC)
UNTIL = NOW + timedelta(minutes=10)
RACER = """
import json, sys, django
django.setup()
from datetime import UTC, datetime
from django.db import connection
from django_phi_oidc.replay.cache import mark_used
connection.ensure_connection()
print("ready", flush=True)
sys.stdin.readline()
print(json.dumps(mark_used("state", "raced", until=datetime(2100, 1, 1, tzinfo=UTC))), flush=True)
"""


@pytest.mark.django_db
def test_spend_of_a_value_is_true_once_and_of_another_kind_or_value_again() -> None:
    assert mark_used("state", "value", expires_at=UNTIL) is True
    assert mark_used("state", "value", expires_at=UNTIL) is False
    assert mark_used("nonce", "value", expires_at=UNTIL) is True
    assert mark_used("state", "other", expires_at=UNTIL) is True


@pytest.mark.django_db
def test_spend_keeps_no_value() -> None:
    mark_used("state", "a-secret-value", expires_at=UNTIL)
    assert "a-secret-value" not in json.dumps(list(UsedIdentifier.objects.values()), default=str)


@pytest.mark.django_db
def test_spend_makes_one_statement() -> None:
    with CaptureQueriesContext(connections["default"]) as queries:
        mark_used("state", "value", expires_at=UNTIL)
    assert [query["sql"].split()[0] for query in queries if "SAVEPOINT" not in query["sql"]] == ["INSERT"]


@pytest.mark.django_db(transaction=True)
def test_spend_in_an_open_transaction_raises_and_spends_nothing() -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        mark_used("state", "value", expires_at=UNTIL)
    assert mark_used("state", "value", expires_at=UNTIL) is True


@pytest.mark.django_db(transaction=True)
def test_spend_with_transaction_shares_the_fate_of_that_transaction() -> None:
    with transaction.atomic():
        assert mark_used_in_transaction("state", "value", expires_at=UNTIL) is True
        transaction.set_rollback(True)
    assert was_used("state", "value") is False
    with transaction.atomic():
        assert mark_used_in_transaction("state", "value", expires_at=UNTIL) is True
    assert mark_used("state", "value", expires_at=UNTIL) is False


@pytest.mark.django_db(transaction=True)
def test_spend_with_transaction_of_what_was_spent_leaves_the_transaction_good() -> None:
    mark_used("state", "value", expires_at=UNTIL)
    with transaction.atomic():
        assert mark_used_in_transaction("state", "value", expires_at=UNTIL) is False
        assert mark_used_in_transaction("state", "other", expires_at=UNTIL) is True
    assert was_used("state", "other") is True


@pytest.mark.django_db(transaction=True)
def test_spend_with_transaction_without_one_raises_and_spends_nothing() -> None:
    with pytest.raises(RuntimeError, match="open one"):
        mark_used_in_transaction("state", "value", expires_at=UNTIL)
    assert was_used("state", "value") is False


@pytest.mark.django_db(transaction=True)
def test_spend_is_committed_when_it_returns() -> None:
    mark_used("state", "value", expires_at=UNTIL)
    seen: list[bool] = []

    def look() -> None:
        seen.append(was_used("state", "value"))
        connections.close_all()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join(timeout=30)
    assert seen == [True]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_spend_in_a_race_of_threads_is_true_exactly_once() -> None:
    start = threading.Barrier(20)
    answers: list[bool] = []

    def race() -> None:
        try:
            connections["default"].ensure_connection()
            start.wait(timeout=30)
            answers.append(mark_used("state", "raced", expires_at=UNTIL))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(answers) == [False] * 19 + [True]


@pytest.mark.django_db(transaction=True)
def test_spend_in_a_race_of_processes_is_true_exactly_once() -> None:
    environment = databases.child_environment(os.environ, settings.DATABASES)
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", RACER], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    try:
        for racer in racers:
            assert racer.stdout
            assert racer.stdout.readline() == "ready\n"
        for racer in racers:
            assert racer.stdin
            racer.stdin.write("\n")
            racer.stdin.flush()
        answers = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert sorted(answers) == [False, False, False, True]


@pytest.mark.django_db
def test_was_spent_before_and_after() -> None:
    assert was_used("state", "value") is False
    mark_used("state", "value", expires_at=UNTIL)
    assert was_used("state", "value") is True
    assert was_used("nonce", "value") is False


@pytest.mark.django_db
def test_prune_forgets_what_is_due_and_nothing_else() -> None:
    mark_used("state", "due", expires_at=NOW - timedelta(microseconds=1))
    mark_used("state", "not due", expires_at=NOW)
    assert delete_expired(now=NOW) == 1
    assert (was_used("state", "due"), was_used("state", "not due")) == (False, True)


@pytest.mark.django_db
def test_prune_spent_takes_the_time_from_the_clock() -> None:
    mark_used("state", "value", expires_at=UNTIL)
    with clock.override_clock(lambda: UNTIL):
        delete_expired_identifiers()
    assert was_used("state", "value")
    with clock.override_clock(lambda: UNTIL + timedelta(seconds=1)):
        delete_expired_identifiers()
    assert not was_used("state", "value")
