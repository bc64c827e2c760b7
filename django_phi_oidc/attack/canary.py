"""Recognisable claims and tokens go through a sign-in and out again, and are searched for in all that it leaves.

In each place a control is found first, which was planted there. What a page shows by a look that is in the trail, it
shows on purpose. Not looked at are the project's own pages behind the first one, and what its servers write to files.
"""

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

from celery import current_app
from celery.signals import before_task_publish
from django.core import mail
from django.core.cache import caches
from django.db import connections
from django.urls import reverse

from .. import entropy
from ..audit.events import Action
from ..audit.models import AuditEvent
from .answers import Run, csrf_token_of
from .browser import Browser, Page
from .listening import Log, everything_logged
from .op import Exchange, Reply
from .scene import Scene
from .searching import found

PLACES = ("tables", "log", "pages", "addresses", "caches", "messages", "mails")
TABLE = "phi_oidc_attack_control"
logger = logging.getLogger(__name__)


@dataclass
class Left:
    """What a walk leaves, by place."""

    log: Log
    messages: list[str] = field(default_factory=list)
    browsers: list[Browser] = field(default_factory=list)
    planted: list[Page] = field(default_factory=list)

    def parts(self, place: str) -> Iterator[bytes]:
        """Yield what lies in that place now."""
        looks: Mapping[str, Callable[[], Iterable[bytes]]] = {
            "tables": lambda: (part for alias in connections for part in _tables(connections[alias])),
            "log": lambda: ("\n".join(self.log.lines).encode(),),
            "pages": self._pages,
            "addresses": self._addresses,
            "caches": lambda: (value for alias in caches for value in getattr(caches[alias], "_cache", {}).values()),
            "messages": lambda: (text.encode() for text in self.messages),
            "mails": lambda: (message.message().as_bytes() for message in mail.outbox),
        }
        yield from looks[place]()

    def _pages(self) -> Iterator[bytes]:
        for page in (*(page for browser in self.browsers for page in browser.pages), *self.planted):
            headers = [(name, value) for name, value in page.headers if name != "Location"]
            yield f"{headers}\n{page.body}".encode()

    def _addresses(self) -> Iterator[bytes]:
        """A code and a state are in the one address where the protocol wants them; a hint is in that of a logout."""
        protocols = {"code", "state", "id_token_hint"}
        for address in (url for browser in self.browsers for url in browser.urls):
            parts = urlsplit(address)
            rest = [value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in protocols]
            yield "\n".join([parts.path, parts.fragment, *rest]).encode()


def search(place: str, scene: Scene) -> None:
    """See that the control is found in that place, and nothing that is nobody's business there."""
    if "walked" not in scene.notes:
        scene.notes["walked"] = dict(walk(scene))
    hits: set[str] = scene.notes["walked"][place]
    scene.must("control" in hits, "what was planted there is not found")
    scene.no(f"found: {', '.join(sorted(hits - {'control'}))}" if hits - {"control"} else "")


def walk(scene: Scene) -> Iterator[tuple[str, set[str]]]:
    """Sign in, fail, look around and sign out; yield for each place the names of what was found there."""
    undeclared = {"ssn": _canary(), "diagnosis": {"icd": _canary()}}
    with _listening() as left, scene.declaring():
        scene.op.mutate = _telling(scene, undeclared)
        browser = scene.browser()
        left.browsers.append(browser)
        callback = browser.callback(scene.op)
        page = browser.get(callback)
        scene.accepted(browser, page)
        texts = {**_texts({**scene.claims, **undeclared}), **_secrets(scene, callback)}
        held = _find(left, texts)
        browser.get(page.location)
        browser.get("/phi-oidc-attack/nowhere/")
        browser.get(callback)
        scene.op.mutate = _telling(scene, undeclared, fails=True)
        left.browsers.append(refused := scene.browser())
        callback = refused.callback(scene.op)
        refused.get(callback)
        texts |= {f"{name}, refused": text for name, text in _secrets(scene, callback).items()}
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=csrf_token_of(browser))
        control = _canary()
        _plant(left, control)
        over = _find(left, {**texts, "control": _recognisable(control)})
        shown = _shown()
        for place in PLACES:
            hits = held[place] | over[place]
            yield place, {hit for hit in hits if place != "pages" or hit.partition(".")[0] not in shown}


def _find(left: Left, texts: Mapping[str, str]) -> dict[str, set[str]]:
    return {place: set().union(*(found(texts, part) for part in left.parts(place))) for place in PLACES}


def _shown() -> set[str]:
    """Return the claims at which somebody looked: each look is in the trail."""
    looks = AuditEvent.objects.filter(action=Action.CLAIM_REVEALED, outcome="success").values_list("detail", flat=True)
    return {json.loads(detail).get("claim", "") for detail in looks}


def _telling(scene: Scene, undeclared: Mapping[str, Any], *, fails: bool = False) -> Any:
    honest = scene.tell()

    def bend(endpoint: str, exchange: Exchange) -> Reply | None:
        honest(endpoint, exchange)
        if endpoint == "userinfo" and isinstance(exchange.reply.json, dict):
            exchange.reply.json |= undeclared
        elif endpoint == "id_token":
            exchange.claims |= undeclared
        elif endpoint == "token" and fails:
            exchange.reply.status = 500
        return None

    return bend


def _texts(claims: Mapping[str, Any]) -> dict[str, str]:
    """Return the recognisable part of each text in the claims, by the claim's name."""
    texts = {}
    for name, value in claims.items():
        for member, leaf in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(leaf, str):
                texts[f"{name}.{member}" if member else name] = _recognisable(leaf)
    return texts


def _secrets(scene: Scene, callback: str) -> dict[str, str]:
    asked = dict(parse_qsl(urlsplit(callback).query))
    tokens: dict[str, str] = {token.kind: token.value for token in scene.op.tokens[-2:]}
    return {"code": asked["code"], "state": asked["state"], "id_token": scene.op.id_tokens[-1], **tokens}


def _canary() -> str:
    return f"Kanarienvögel & {entropy.token_b64url(12)}"


def _recognisable(text: str) -> str:
    return max(text.split(), key=len)


def _plant(left: Left, control: str) -> None:
    """Put a control into each place, as what goes there goes."""
    for alias in connections:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} (told VARCHAR(200))")
            cursor.execute(f"INSERT INTO {TABLE} VALUES (%s)", [control])  # noqa: S608 -- a constant
    logger.warning(control)
    left.planted.append(Page(200, "", control))
    left.browsers[0].urls.append(f"/?told={quote(control)}")
    for alias in caches:
        caches[alias].set("phi_oidc_attack", control)
    current_app.send_task("phi_oidc.attack", args=[control])
    mail.send_mail(control, control, None, ["nobody@example.org"])


def _tables(connection: Any) -> Iterator[bytes]:
    """Yield what a database holds: SQLite's as it lies in the file, of others each table."""
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        yield connection.connection.serialize()
        return
    with connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(name)}")  # noqa: S608 -- a table's name
            values = (value for row in cursor.fetchall() for value in row)
            yield b"\n".join(bytes(v) if isinstance(v, bytes | memoryview) else str(v).encode() for v in values)


@contextmanager
def _listening() -> Iterator[Left]:
    """Hear all that is logged and published."""
    with everything_logged() as log:
        left = Left(log)

        def hear(body: Any = None, headers: Any = None, **kwargs: Any) -> None:
            left.messages.append(repr((body, headers)))

        before_task_publish.connect(hear)
        try:
            yield left
        finally:
            before_task_publish.disconnect(hear)


CANARY: Mapping[tuple[str, str], Run] = {("canary", place): partial(search, place) for place in PLACES}
