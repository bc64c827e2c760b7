"""Portals and workers in processes of their own, the broker between them, and all that they leave where others look."""

import base64
import binascii
import contextlib
import pickle
import re
import subprocess
import zlib
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from celery import Celery
from django.contrib.sessions.models import Session

from django_phi_oidc import entropy
from django_phi_oidc.attack.op import DemoProvider

from .logs import secrets_of
from .relay import Relay
from .serving import portal_process
from .working import eventually, worker

_MAY_BE_BASE64 = re.compile(rb"[A-Za-z0-9+/=_-]{16,}")


@dataclass
class Installation:
    """One project, as its operator runs it."""

    folder: Path
    phi_oidc: Mapping[str, Any]
    broker: Relay
    environment: Mapping[str, str] = field(default_factory=dict)
    queue: str = field(default_factory=lambda: f"test-{entropy.token_b64url(6)}")

    def __post_init__(self) -> None:
        (self.folder / "cache").mkdir()
        self.set_clock(None)

    def portal(self, name: str = "portal", **environment: str) -> AbstractContextManager[str]:
        """Run a portal; give its address."""
        log = str(self.folder / f"{name}.log")
        return portal_process(self.phi_oidc, TEST_LOG_FILE=log, **{**self._environment(), **environment})

    def worker(
        self, name: str = "worker", *, beat: bool = False, **environment: str
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a worker, by the clock that `set_clock` sets."""
        given = {**self._environment(), **environment}
        return worker(self.broker.url, self.phi_oidc, self.folder, name=name, beat=beat, **given)

    def set_clock(self, at: datetime | None) -> None:
        """Let it be that time for all workers, and stay that time; None: the system's."""
        new = self.folder / "clock.new"
        new.write_text(at.isoformat() if at else "")
        new.replace(self.folder / "clock")

    def send(self, task: str = "phi_oidc.sweep_revocations", *arguments: str) -> str:
        """Send the message that beat sends, and return its id."""
        with Celery("beat", broker=self.broker.url, set_as_current=False) as app:
            app.conf.task_default_queue = self.queue
            with app.connection_for_write() as connection:
                return str(app.send_task(task, arguments, connection=connection, ignore_result=True).id)

    def run(self, task: str = "phi_oidc.sweep_revocations") -> bool:
        """Let a worker do what beat lets it do, and say, when it is over, whether it succeeded."""
        sent = self.send(task)
        assert eventually(lambda: re.search(rf"\[{sent}\] (succeeded|raised)", self.logs()) is not None)
        return f"[{sent}] succeeded" in self.logs()

    def logs(self) -> str:
        """Return what all processes have logged."""
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def leaks(self, op: DemoProvider) -> list[str]:
        """Return the secrets that lie where none may: in logs, in messages, in Django sessions and in the cache."""
        sessions = [str(session.get_decoded()) for session in Session.objects.all()]
        cached = [str(_read_cached(path)) for path in (self.folder / "cache").iterdir()]
        messages = _unwrap(bytes(self.broker.said)).decode(errors="replace")
        said = "\n".join([self.logs(), messages, *sessions, *cached])
        return sorted(secret for secret in secrets_of(op) if secret in said)

    def _environment(self) -> dict[str, str]:
        return {
            "TEST_BROKER_URL": self.broker.url,
            "TEST_QUEUE": self.queue,
            "TEST_CACHE_FOLDER": str(self.folder / "cache"),
            "TEST_CLOCK_FILE": str(self.folder / "clock"),
            **self.environment,
        }


def _unwrap(messages: bytes) -> bytes:
    """Return messages and what they hold in base64, as Celery writes its bodies."""
    found = [messages]
    for match in _MAY_BE_BASE64.finditer(messages):
        with contextlib.suppress(binascii.Error):
            found.append(base64.urlsafe_b64decode(match[0].replace(b"+", b"-").replace(b"/", b"_")))
    return b"\n".join(found)


def _read_cached(path: Path) -> Any:
    """Spec: django.core.cache.backends.filebased: when it expires, pickled, then the value, pickled and compressed."""
    with path.open("rb") as file:
        pickle.load(file)
        return pickle.loads(zlib.decompress(file.read()))
