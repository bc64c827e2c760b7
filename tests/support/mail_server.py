"""A mail server on a real socket."""

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.mail_settings import mail_by


@pytest.fixture
def mail_server(settings: Any) -> Iterator[SimpleNamespace]:
    """Yield a mail server on a real socket, which accepts mails unless `refuses` is set.

    `refused`: an address that it never accepts.
    """
    server = SimpleNamespace(mails=[], refuses=False, refused="", delay_seconds=0.0)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listener.accept()
            except OSError:
                return
            with peer, peer.makefile("rwb") as file:
                _serve_smtp(file, server)

    thread = threading.Thread(target=serve)
    thread.start()
    host, server.port = listener.getsockname()
    mail_by(settings, "smtp", host=host, port=server.port, timeout=10)
    yield server
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join()


def _serve_smtp(file: Any, server: SimpleNamespace) -> None:
    """Speak the part of RFC 5321 that smtplib uses."""

    def reply(text: str) -> None:
        time.sleep(server.delay_seconds)
        file.write(f"{text}\r\n".encode())
        file.flush()

    reply("220 ready")
    while line := file.readline():
        command = line.decode().strip().upper()
        if command == "DATA":
            reply("354 continue")
            body = b""
            while (part := file.readline()) not in {b".\r\n", b""}:
                body += part
            server.mails.append(body.decode())
            reply("250 accepted")
        elif command.startswith("RCPT") and server.refuses:
            reply("451 later")
        elif command.startswith("RCPT") and server.refused and server.refused.upper() in command:
            reply("550 unknown")
        elif command == "QUIT":
            reply("221 bye")
            return
        else:
            reply("250 ok")
