"""Persons who sign in, on servers with whichever keys, one after the other or all at once."""

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
    given: dict[str, Any] = {
        "issuer": ISSUER,
        "sub": sub,
        "keys": keys,
        "create_user": make_user,
        "origin": Origin(client_ip="192.0.2.1"),
        "provider": "default",
        "now": NOW,
    }
    return get_or_create_account(**{**given, **changed})


def statements(context: CaptureQueriesContext) -> list[str]:
    """Return what was executed besides the frame of transactions."""
    executed = [query["sql"] for query in context.captured_queries]
    return [sql for sql in executed if not re.match(r"BEGIN|COMMIT|ROLLBACK|SAVEPOINT|RELEASE", sql)]


def capturing() -> CaptureQueriesContext:
    return CaptureQueriesContext(connection)


def accounts() -> tuple[int, int]:
    return get_user_model()._default_manager.count(), PairwiseSubject.objects.count()


def digests_by_key() -> dict[str, str]:
    return dict(SubjectDigest.objects.values_list("key_id", "digest"))


class Meeting:
    """Where two sign-ins meet inside their transactions; who waits in vain goes on, as SQLite lets in one at a time."""

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
    """Run each call in a thread with connections of its own, all at the same time."""
    start = threading.Barrier(len(calls))

    def run(call: Callable[[], T]) -> T:
        try:
            start.wait(10)
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(30) for future in [pool.submit(run, call) for call in calls]]
