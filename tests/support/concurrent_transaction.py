"""A concurrent transaction in another thread."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from django.db import connections, transaction


@contextmanager
def transaction_beside(act: Callable[[], object]) -> Iterator[Callable[[], None]]:
    """Call act in a transaction of another thread, which is open until commit() or the end of the block."""
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
