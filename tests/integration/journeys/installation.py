"""Portals and workers in separate processes with a broker, and a search for secrets in everything they write."""

import base64
import binascii
import contextlib
import json
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
from urllib.parse import parse_qsl, unquote, unquote_plus, urlsplit

from celery import Celery
from django.contrib.sessions.models import Session
from redis import Redis

from django_phi_oidc._internal import randomness
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.tcp_relay import Relay
from tests.support.celery_worker import eventually, worker
from tests.support.http_browser import Browser
from tests.support.log_capture import secrets_of
from tests.support.portal_process import portal_process

PROTOCOL_PARAMETERS = {
    "/authorize": ("state", "nonce"),
    "/oidc/callback/": ("code", "state"),
    "/end-session": ("id_token_hint",),
}
"""The parameters that may contain a secret, by path. The hint is the ID Token of an ended session. Spec: R9."""
_MAY_BE_BASE64 = re.compile(rb"[A-Za-z0-9+/=_-]{16,}")


@dataclass
class Installation:
    """One project with its portals, workers, broker and cache."""

    folder: Path
    phi_oidc: Mapping[str, Any]
    broker: Relay
    environment: Mapping[str, str] = field(default_factory=dict)
    queue: str = field(default_factory=lambda: f"test-{randomness.token_b64url(6)}")
    engine: str = "cached_db"
    """Django's session engine."""
    redis: str = ""
    """URL of the Redis cache. Empty: the cache is a folder."""
    browsers: list[Browser] = field(default_factory=list)
    """All browsers that used its portals."""

    def __post_init__(self) -> None:
        (self.folder / "cache").mkdir()
        self.set_clock(None)

    def portal(self, name: str = "portal", **environment: str) -> AbstractContextManager[str]:
        """Run a portal and yield its address."""
        log = str(self.folder / f"{name}.log")
        return portal_process(self.phi_oidc, TEST_LOG_FILE=log, **{**self._environment(), **environment})

    def browser(self, base: str, cookies: dict[str, str] | None = None) -> Browser:
        """Return a browser for the portal at that address."""
        self.browsers.append(Browser(base, cookies or {}))
        return self.browsers[-1]

    def worker(
        self, name: str = "worker", *, beat: bool = False, **environment: str
    ) -> AbstractContextManager[subprocess.Popen[bytes]]:
        """Run a worker that uses the clock of `set_clock`."""
        variables = {**self._environment(), **environment}
        return worker(self.broker.url, self.phi_oidc, self.folder, name=name, beat=beat, **variables)

    def set_clock(self, at: datetime | None) -> None:
        """Stop the clock of all workers at that time. None: the system clock."""
        new = self.folder / "clock.new"
        new.write_text(at.isoformat() if at else "")
        new.replace(self.folder / "clock")

    def send(self, task: str = "phi_oidc.sweep_revocations", *arguments: str) -> str:
        """Send the message that beat would send, and return its id."""
        with Celery("beat", broker=self.broker.url, set_as_current=False) as app:
            app.conf.task_default_queue = self.queue
            with app.connection_for_write() as connection:
                return str(app.send_task(task, arguments, connection=connection, ignore_result=True).id)

    def run(self, task: str = "phi_oidc.sweep_revocations") -> bool:
        """Run a task in a worker and return whether it succeeded."""
        task_id = self.send(task)
        assert eventually(lambda: re.search(rf"\[{task_id}\] (succeeded|raised)", self.logs()) is not None)
        return f"[{task_id}] succeeded" in self.logs()

    def logs(self) -> str:
        """Return the logs of all processes."""
        return "\n".join(path.read_text() for path in self.folder.glob("*.log"))

    def cached(self) -> dict[str, Any]:
        """Return the cached values by key, or by file name in a folder."""
        if not self.redis:
            return {path.stem: _read_cached(path) for path in (self.folder / "cache").iterdir()}
        with Redis.from_url(self.redis) as client:
            pickles = {key.decode(): client.get(key) for key in client.scan_iter(f"{self.queue}:*")}
        return {key: pickle.loads(pickled) for key, pickled in pickles.items() if pickled}

    def leaks(self, op: DemoProvider) -> list[str]:
        """Return the secrets found in logs, messages, Django sessions, the cache and URLs."""
        session_keys = {key for browser in self.browsers for key in browser.session_keys}
        sessions = [str(session.get_decoded()) for session in Session.objects.all()]
        messages = _unwrap(bytes(self.broker.passed)).decode(errors="replace")
        stored = "\n".join([messages, str(self.cached())])
        for key in session_keys:
            # The cache key of the session engine, which is not content.
            stored = stored.replace(f"django.contrib.sessions.{self.engine}{key}", "")
        searched = _unescaped("\n".join([self.logs(), stored, *sessions, *map(_decoded, self._urls(op))]))
        return sorted(secret for secret in secrets_of(op) | session_keys if secret in searched)

    def _urls(self, op: DemoProvider) -> list[str]:
        return [
            *(request.request_target for request in op.requests),
            *(url for browser in self.browsers for url in browser.visited_urls),
        ]

    def _environment(self) -> dict[str, str]:
        backends = "django.core.cache.backends"
        folder = {"BACKEND": f"{backends}.filebased.FileBasedCache", "LOCATION": str(self.folder / "cache")}
        redis = {"BACKEND": f"{backends}.redis.RedisCache", "LOCATION": self.redis, "KEY_PREFIX": self.queue}
        return {
            "TEST_BROKER_URL": self.broker.url,
            "TEST_QUEUE": self.queue,
            "TEST_SESSION_ENGINE": self.engine,
            "TEST_CACHE": json.dumps(redis if self.redis else folder),
            "TEST_CLOCK_FILE": str(self.folder / "clock"),
            **self.environment,
        }


def _unwrap(messages: bytes) -> bytes:
    """Return messages and their base64 parts, because Celery encodes message bodies."""
    parts = [messages]
    for match in _MAY_BE_BASE64.finditer(messages):
        with contextlib.suppress(binascii.Error):
            parts.append(base64.urlsafe_b64decode(match[0].replace(b"+", b"-").replace(b"/", b"_")))
    return b"\n".join(parts)


def _unescaped(text: str) -> str:
    """Return text without JSON's unicode escapes."""
    return re.sub(r"\\u([0-9a-f]{4})", lambda match: chr(int(match[1], 16)), text)


def _decoded(url: str) -> str:
    """Return a URL without the protocol's parameters, decoded once and twice, because URLs can contain URLs."""
    parts = urlsplit(url)
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    others = [pair for pair in pairs if pair[0] not in PROTOCOL_PARAMETERS.get(parts.path, ())]
    once = f"{unquote(parts.path)} {others} {unquote(parts.fragment)}"
    return f"{once}\n{unquote_plus(once)}"


def _read_cached(path: Path) -> Any:
    """Read a file of Django's file cache: the pickled expiry, then the pickled and compressed value."""
    with path.open("rb") as file:
        pickle.load(file)
        return pickle.loads(zlib.decompress(file.read()))
