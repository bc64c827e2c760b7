"""Helpers for sign-ins on servers with different subject keys, in sequence or concurrently."""

import re
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, TypeVar

from django.contrib.auth import get_user_model
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext

from django_phi_oidc.audit.events import Origin
from django_phi_oidc.crypto.keyring import SymmetricKey
from django_phi_oidc.subjects.linking import LinkedAccount, create_opaque_username, get_or_create_account
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest

T = TypeVar("T")
ISSUER, SUB = "https://op.example.test", "subject-canary-248289761001"
NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
KEY_1, KEY_2, KEY_3 = (SymmetricKey(f"{n}{n}{n}{n}abcd", bytes([n]) * 32) for n in (1, 2, 3))
LAST_KEY = SymmetricKey("ffffffff", b"\xff" * 32)


def make_user() -> Any:
    return get_user_model()._default_manager.create_user(username=create_opaque_username())


def sign_in(keys: Sequence[SymmetricKey] = (KEY_1,), *, sub: str = SUB, **changed: Any) -> LinkedAccount:
    arguments: dict[str, Any] = {
        "issuer": ISSUER,
        "sub": sub,
        "keys": keys,
        "create_user": make_user,
        "origin": Origin(client_ip="192.0.2.1"),
        "provider": "default",
        "now": NOW,
    }
    return get_or_create_account(**{**arguments, **changed})


def statements(context: CaptureQueriesContext) -> list[str]:
    """Return the executed statements except transaction control."""
    executed = [query["sql"] for query in context.captured_queries]
    return [sql for sql in executed if not re.match(r"BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE", sql)]


def capturing() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection)


def accounts() -> tuple[int, int]:
    return get_user_model()._default_manager.count(), PairwiseSubject.objects.count()


def digests_by_key() -> dict[str, str]:
    return dict(SubjectDigest.objects.values_list("key_id", "digest"))


class Meeting:
    """A meeting point of two sign-ins inside their transactions. A lone one continues: SQLite allows one at a time."""

    def __init__(self) -> None:
        self.barrier = threading.Barrier(2)

    def make_user(self) -> Any:
        user = make_user()
        self.wait()
        return user

    def wait(self) -> None:
        with suppress(threading.BrokenBarrierError):
            self.barrier.wait(0.5)


def at_once(*calls: Callable[[], T]) -> list[T]:
    """Run the calls concurrently, each in a thread with its own connections."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        try:
            start.wait(10)
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(30) for future in [pool.submit(run, call) for call in calls]]
