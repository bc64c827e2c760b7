"""What somebody else does at the same time."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connections, transaction


@contextmanager
def transaction_beside(act: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Do act in a transaction of another thread, which is open in the block until its end, or until commit() in it."""
    acted, over = threading.Event(), threading.Event()

    def run() -> None:
        try:
            with transaction.atomic():
                act()
                acted.set()
                over.wait(30)
        finally:
            connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()

    def commit() -> None:
        over.set()
        thread.join(30)
        assert not thread.is_alive()

    try:
        assert acted.wait(10)
        yield commit
    finally:
        commit()
