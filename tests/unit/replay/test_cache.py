"""An identifier is marked as used once, across all processes."""

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

from django_phi_oidc.replay.cache import (
    delete_expired,
    find_remembered_kind,
    is_remembered,
    mark_used,
    mark_used_in_transaction,
    remember,
    remember_in_transaction,
    was_used,
)
from django_phi_oidc.replay.models import UsedIdentifier
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
print(json.dumps(mark_used("state", "raced", expires_at=datetime(2100, 1, 1, tzinfo=UTC))), flush=True)
"""


@pytest.mark.django_db
def test_mark_used_is_true_once_for_each_kind_and_identifier() -> None:
    assert mark_used("state", "value", expires_at=UNTIL) is True
    assert mark_used("state", "value", expires_at=UNTIL) is False
    assert mark_used("nonce", "value", expires_at=UNTIL) is True
    assert mark_used("state", "other", expires_at=UNTIL) is True


@pytest.mark.django_db
def test_mark_used_does_not_store_the_identifier() -> None:
    mark_used("state", "a-secret-value", expires_at=UNTIL)
    assert "a-secret-value" not in json.dumps(list(UsedIdentifier.objects.values()), default=str)


@pytest.mark.django_db
def test_mark_used_executes_one_statement() -> None:
    with CaptureQueriesContext(connections["default"]) as queries:
        mark_used("state", "value", expires_at=UNTIL)
    assert [query["sql"].split()[0] for query in queries if "SAVEPOINT" not in query["sql"]] == ["INSERT"]


@pytest.mark.django_db(transaction=True)
def test_mark_used_in_an_open_transaction_raises_and_writes_nothing() -> None:
    with transaction.atomic(), pytest.raises(RuntimeError, match="durable"):
        mark_used("state", "value", expires_at=UNTIL)
    assert mark_used("state", "value", expires_at=UNTIL) is True


@pytest.mark.django_db(transaction=True)
def test_mark_used_in_transaction_commits_and_rolls_back_with_it() -> None:
    with transaction.atomic():
        assert mark_used_in_transaction("state", "value", expires_at=UNTIL) is True
        transaction.set_rollback(True)
    assert was_used("state", "value") is False
    with transaction.atomic():
        assert mark_used_in_transaction("state", "value", expires_at=UNTIL) is True
    assert mark_used("state", "value", expires_at=UNTIL) is False


@pytest.mark.django_db(transaction=True)
def test_mark_used_in_transaction_of_a_used_identifier_keeps_the_transaction_usable() -> None:
    mark_used("state", "value", expires_at=UNTIL)
    with transaction.atomic():
        assert mark_used_in_transaction("state", "value", expires_at=UNTIL) is False
        assert mark_used_in_transaction("state", "other", expires_at=UNTIL) is True
    assert was_used("state", "other") is True


@pytest.mark.django_db(transaction=True)
def test_mark_used_in_transaction_without_a_transaction_raises_and_writes_nothing() -> None:
    with pytest.raises(RuntimeError, match="open transaction"):
        mark_used_in_transaction("state", "value", expires_at=UNTIL)
    assert was_used("state", "value") is False


@pytest.mark.django_db(transaction=True)
def test_mark_used_is_committed_when_it_returns() -> None:
    mark_used("state", "value", expires_at=UNTIL)
    results: list[bool] = []

    def check() -> None:
        results.append(was_used("state", "value"))
        connections.close_all()

    thread = threading.Thread(target=check)
    thread.start()
    thread.join(timeout=30)
    assert results == [True]


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True)
def test_mark_used_is_true_for_exactly_one_of_concurrent_threads() -> None:
    start = threading.Barrier(20)
    results: list[bool] = []

    def race() -> None:
        try:
            connections["default"].ensure_connection()
            start.wait(timeout=30)
            results.append(mark_used("state", "raced", expires_at=UNTIL))
        finally:
            connections.close_all()

    threads = [threading.Thread(target=race) for _ in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(results) == [False] * 19 + [True]


@pytest.mark.django_db(transaction=True)
def test_mark_used_is_true_for_exactly_one_of_concurrent_processes() -> None:
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
        results = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    finally:
        for racer in racers:
            racer.kill()
            racer.wait()
    assert sorted(results) == [False, False, False, True]


@pytest.mark.django_db
def test_was_used_before_and_after() -> None:
    assert was_used("state", "value") is False
    mark_used("state", "value", expires_at=UNTIL)
    assert was_used("state", "value") is True
    assert was_used("nonce", "value") is False


@pytest.mark.django_db
def test_delete_expired_deletes_only_expired_identifiers() -> None:
    mark_used("state", "due", expires_at=NOW - timedelta(microseconds=1))
    mark_used("state", "not due", expires_at=NOW)
    assert delete_expired(now=NOW) == 1
    assert (was_used("state", "due"), was_used("state", "not due")) == (False, True)


@pytest.mark.django_db
def test_remembered_identifier_keeps_the_latest_time() -> None:
    for minutes in (0, 5, 3):
        remember_in_transaction("kind", ["a", "b"], expires_at=UNTIL + timedelta(minutes=minutes))
    latest = UNTIL + timedelta(minutes=5)
    assert is_remembered("kind", ["a"], until=latest)
    assert not is_remembered("kind", ["b"], until=latest + timedelta(seconds=1))
    assert not is_remembered("other", ["a", "b"], until=UNTIL)
    remember_in_transaction("kind", [], expires_at=UNTIL)


@pytest.mark.django_db
def test_is_remembered_is_one_statement_and_compares_identifier_and_time() -> None:
    later = UNTIL + timedelta(microseconds=1)
    remember_in_transaction("kind", ["a"], expires_at=UNTIL)
    remember_in_transaction("kind", ["b"], expires_at=later)
    with CaptureQueriesContext(connections["default"]) as queries:
        assert is_remembered("kind", ["a", "c"], until=UNTIL) is True
        assert is_remembered("kind", ["c"], until=UNTIL) is False
        assert is_remembered("kind", ["a", "c"], until=later) is False
        assert is_remembered("kind", ["a", "b"], until=later) is True
    assert [query["sql"].split()[0] for query in queries] == ["SELECT"] * 4


@pytest.mark.django_db
def test_find_remembered_kind_returns_the_first_kind_by_one_statement() -> None:
    remember_in_transaction("second", ["a"], expires_at=UNTIL)
    with CaptureQueriesContext(connections["default"]) as queries:
        assert find_remembered_kind(["first", "second"], ["a", "b"], until=UNTIL) == "second"
        assert find_remembered_kind(["first"], ["a", "b"], until=UNTIL) == ""
        assert find_remembered_kind(["first", "second"], ["a"], until=UNTIL + timedelta(seconds=1)) == ""
    assert len(queries) == 3
    remember_in_transaction("first", ["b"], expires_at=UNTIL)
    assert find_remembered_kind(["first", "second"], ["a", "b"], until=UNTIL) == "first"


@pytest.mark.django_db(transaction=True)
def test_remember_keeps_the_latest_time() -> None:
    for minutes in (5, 3):
        remember("kind", ["a"], expires_at=UNTIL + timedelta(minutes=minutes))
    assert is_remembered("kind", ["a"], until=UNTIL + timedelta(minutes=5))
