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
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from functools import partial
from typing import Any

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
        self._deadline = None
        if connection.vendor != "postgresql":
            return
        deadline = _find_deadline(connection) or _Deadline(connection)
        self._outer_ends_at = deadline.ends_at
        deadline.move(min(time.monotonic() + self._seconds, self._outer_ends_at))
        try:
            if connection.connection is not None:
                deadline.driver_connection = connection.connection
                # A query, if the declaration demands one before each use.
                connection.close_if_health_check_failed()
            connection.ensure_connection()
        except BaseException:
            deadline.move(self._outer_ends_at)
            raise
        self._deadline = deadline

    def __exit__(self, *exc_info: object) -> None:
        if self._deadline is not None:
            self._deadline.move(self._outer_ends_at)


class _Deadline:
    """The deadline of the statements on one connection of Django, in the outermost block and those
    within it.
    """

    def __init__(self, connection: Any) -> None:
        self.ends_at = _NEVER
        self.driver_connection: Any = None
        self._connection = connection
        self._lock = threading.Lock()
        self._cancel: Callable[[], None] | None = None

    def move(self, ends_at: float) -> None:
        """Replace the deadline; without one (`_NEVER`), the connection is not shut down after this
        returns.
        """
        with self._lock:
            if self._cancel is not None:
                self._cancel()
                self._cancel = None
            self.ends_at = ends_at
            if ends_at < _NEVER:
                self._cancel = call_at(ends_at, partial(self._shut_down, ends_at))
        if ends_at < _NEVER:
            # Django connects again when a rollback fails.
            self._connection.get_new_connection = self.get_new_connection
        else:
            del self._connection.get_new_connection

    def get_new_connection(self, parameters: Any) -> Any:
        """Do what the method of Django's connection does, within the deadline. Raises:
        OperationalError.
        """
        attempt = _ConnectionAttempt(self._connection, parameters)
        self.driver_connection = attempt.get_result(ends_at=self.ends_at)
        # The callback may have run just before.
        self.move(self.ends_at)
        return self.driver_connection

    def _shut_down(self, ends_at: float) -> None:
        with self._lock:
            # Otherwise the deadline was moved after this callback had started.
            if ends_at == self.ends_at:
                _shut_down(self.driver_connection)


def _find_deadline(connection: Any) -> _Deadline | None:
    """Return the deadline of a block that the connection is in."""
    method = vars(connection).get("get_new_connection")
    owner = getattr(method, "__self__", None)
    return owner if isinstance(owner, _Deadline) else None


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
