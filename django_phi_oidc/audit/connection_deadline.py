"""A deadline for the statements of a database alias, kept by this process: for a database that
hangs.

A server enforces `statement_timeout` only while it and the network work, and keepalives find only a
peer that is gone. So at the deadline a timer shuts down the socket of the connection, and the
driver reports a lost connection. It waits for the socket by poll(2), with or without its C
extension, over TCP with or without TLS and over Unix sockets.
"""

import os
import socket
import threading
import time
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary, ref

from django.db import OperationalError, connections

from .._internal.deadlines import call_at

CONNECT_SECONDS = 5
"""`connect_timeout` of a connection whose declaration has none: the driver's default is two
minutes.
"""
CLIENT_MARGIN_SECONDS = 0.2
"""How much longer this process waits than a server with a statement timeout, which does not commit
the statement.
"""
_NEVER = float("inf")


class connection_deadline(AbstractContextManager[None]):  # noqa: N801 -- used like a function
    """Make the statements in the block fail when that time is over, on PostgreSQL. Opening a
    connection counts too.

    A statement that was sent may be executed all the same. Raises: OperationalError of Django.
    """

    def __init__(self, seconds: float, *, using: str) -> None:
        self._seconds = seconds
        self._using = using

    def __enter__(self) -> None:
        connection: Any = connections[self._using]
        self._watch = None
        if connection.vendor != "postgresql":
            return
        watch = _get_watch(connection)
        self._previous = watch.start(time.monotonic() + self._seconds)
        try:
            if connection.connection is not None:
                watch.driver_connection = connection.connection
                # A query, if the declaration demands one before each use.
                connection.close_if_health_check_failed()
            connection.ensure_connection()
        except BaseException:
            watch.end(self._previous)
            raise
        self._watch = watch

    def __exit__(self, *exc_info: object) -> None:
        if self._watch is not None:
            self._watch.end(self._previous)


class _Watch:
    """The deadline of the statements on one connection of Django, which belongs to one thread.

    A callback is scheduled only if none is scheduled already, so deadlines of many short statements
    cost little.
    """

    def __init__(self, connection: Any) -> None:
        self.pid = os.getpid()
        self.ends_at = _NEVER
        self.driver_connection: Any = None
        self._connection = ref(connection)
        self._lock = threading.Lock()
        self._checks_at = _NEVER

    def start(self, ends_at: float) -> float:
        """Set the deadline, unless an outer one is earlier, and return the outer one."""
        with self._lock:
            previous = self.ends_at
            self.ends_at = min(ends_at, self.ends_at)
            is_scheduled = self._checks_at <= self.ends_at
            if not is_scheduled:
                self._checks_at = self.ends_at
        if not is_scheduled:
            call_at(self.ends_at, partial(self._check, self.ends_at))
        if previous == _NEVER and (connection := self._connection()) is not None:
            # Django connects again when a rollback fails.
            connection.get_new_connection = self._get_new_connection
        return previous

    def end(self, previous: float) -> None:
        """Restore the outer deadline. The connection is not shut down after this returns, if there
        is none.
        """
        with self._lock:
            self.ends_at = previous
        if previous == _NEVER and (connection := self._connection()) is not None:
            self.driver_connection = None
            del connection.get_new_connection

    def _get_new_connection(self, parameters: Any) -> Any:
        """Do what the method of Django's connection does, within the deadline. Raises:
        OperationalError.
        """
        attempt = _ConnectionAttempt(self._connection(), parameters)
        self.driver_connection = attempt.get_result(ends_at=self.ends_at)
        # The callback may have run just before.
        self.start(self.ends_at)
        return self.driver_connection

    def _check(self, checks_at: float) -> None:
        with self._lock:
            if checks_at != self._checks_at:
                # An earlier check was scheduled after this one.
                return
            self._checks_at = next_check = self.ends_at
            if self.ends_at <= time.monotonic():
                self._checks_at = next_check = _NEVER
                _shut_down(self.driver_connection)
        if next_check < _NEVER:
            call_at(next_check, partial(self._check, next_check))


_watches: WeakKeyDictionary[Any, _Watch] = WeakKeyDictionary()


def _get_watch(connection: Any) -> _Watch:
    watch = _watches.get(connection)
    if watch is None or watch.pid != os.getpid():
        # A forked child has none of the callbacks that its parent scheduled.
        watch = _watches[connection] = _Watch(connection)
    return watch


def _shut_down(driver_connection: Any) -> None:
    # OperationalError of the driver, which is not imported here, if it has closed the socket.
    with suppress(Exception):
        number = driver_connection.fileno()
        # The descriptor may be closed, and its number reused, while this thread looks: so compare
        # after duplicating it.
        with socket.socket(fileno=os.dup(number)) as handle:
            if driver_connection.fileno() == number:
                handle.shutdown(socket.SHUT_RDWR)


class _ConnectionAttempt:
    """Connects in a thread of its own, because neither the driver nor the resolver can be
    interrupted.
    """

    def __init__(self, connection: Any, parameters: Any) -> None:
        """connection, parameters: of Django."""
        self._connection = connection
        self._parameters = {"connect_timeout": CONNECT_SECONDS, **parameters}
        self._lock = threading.Lock()
        self._finished = threading.Event()
        self._is_abandoned = False
        self._result: Any = None
        self._error: BaseException | None = None

    def get_result(self, *, ends_at: float) -> Any:
        """Connect, and return the connection of the driver. Raises: OperationalError, and errors of
        the driver.
        """
        seconds_left = ends_at - time.monotonic()
        if seconds_left > 0:
            threading.Thread(target=self._run, name="phi_oidc connection", daemon=True).start()
            if not self._finished.wait(seconds_left):
                with self._lock:
                    self._is_abandoned = True
        if self._error is not None:
            raise self._error
        if self._result is None:
            raise OperationalError("The database did not answer in time.")
        return self._result

    def _run(self) -> None:
        try:
            connection_class = type(self._connection)
            result = connection_class.get_new_connection(self._connection, self._parameters)
        except BaseException as error:  # noqa: BLE001 -- raised in the waiting thread
            self._error = error
        else:
            with self._lock:
                if not self._is_abandoned:
                    self._result = result
                elif pool := getattr(self._connection, "pool", None):
                    pool.putconn(result)
                else:
                    result.close()
        self._finished.set()
