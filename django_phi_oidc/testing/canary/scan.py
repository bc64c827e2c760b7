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

from ..._internal import randomness
from ...audit.events import Action
from ...audit.models import AuditEvent
from ..attack.browser import Browser, PortalResponse
from ..attack.environment import AttackEnvironment
from ..attack.provider_attacks import AttackFunction, create_csrf_token
from ..mock_provider import MutableExchange, Reply
from .encoded_text_search import find_texts
from .log_capture import CapturedLog, capture_all_logs

PLACES = ("tables", "log", "pages", "addresses", "caches", "messages", "mails")
CONTROL_TABLE = "phi_oidc_attack_control"
logger = logging.getLogger(__name__)


@dataclass
class LeftoverData:
    """What a walk leaves, by place."""

    log: CapturedLog
    published_messages: list[str] = field(default_factory=list)
    browsers: list[Browser] = field(default_factory=list)
    planted_responses: list[PortalResponse] = field(default_factory=list)

    def iterate_content(self, place: str) -> Iterator[bytes]:
        """Yield what lies in that place now."""
        looks: Mapping[str, Callable[[], Iterable[bytes]]] = {
            "tables": lambda: (part for alias in connections for part in _dump_tables(connections[alias])),
            "log": lambda: ("\n".join(self.log.lines).encode(),),
            "pages": self._iterate_responses,
            "addresses": self._iterate_urls,
            "caches": lambda: (value for alias in caches for value in getattr(caches[alias], "_cache", {}).values()),
            "messages": lambda: (text.encode() for text in self.published_messages),
            "mails": lambda: (message.message().as_bytes() for message in mail.outbox),
        }
        yield from looks[place]()

    def _iterate_responses(self) -> Iterator[bytes]:
        for page in (*(page for browser in self.browsers for page in browser.responses), *self.planted_responses):
            headers = [(name, value) for name, value in page.headers if name != "Location"]
            yield f"{headers}\n{page.body}".encode()

    def _iterate_urls(self) -> Iterator[bytes]:
        """A code and a state are in the one address where the protocol wants them; a hint is in that of a logout."""
        protocols = {"code", "state", "id_token_hint"}
        for address in (url for browser in self.browsers for url in browser.visited_urls):
            parts = urlsplit(address)
            rest = [value for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in protocols]
            yield "\n".join([parts.path, parts.fragment, *rest]).encode()


def search_place(place: str, environment: AttackEnvironment) -> None:
    """See that the control is found in that place, and nothing that is nobody's business there."""
    if "walked" not in environment.shared_results:
        environment.shared_results["walked"] = dict(run_scenario(environment))
    hits: set[str] = environment.shared_results["walked"][place]
    environment.assert_control("control" in hits, "what was planted there is not found")
    environment.report_fault(f"found: {', '.join(sorted(hits - {'control'}))}" if hits - {"control"} else "")


def run_scenario(environment: AttackEnvironment) -> Iterator[tuple[str, set[str]]]:
    """Sign in, fail, look around and sign out; yield for each place the names of what was found there."""
    undeclared = {"ssn": _create_canary_text(), "diagnosis": {"icd": _create_canary_text()}}
    with _capture_output() as left, environment.override_declaration():
        environment.op.mutate = _create_canary_hook(environment, undeclared)
        browser = environment.create_browser()
        left.browsers.append(browser)
        callback = browser.get_callback_url(environment.op)
        page = browser.get(callback)
        environment.assert_accepted(browser, page)
        texts = {
            **_extract_texts({**environment.claim_values, **undeclared}),
            **_collect_secrets(environment, callback),
        }
        held = _find_texts_in_places(left, texts)
        browser.get(page.location)
        browser.get("/phi-oidc-attack/nowhere/")
        browser.get(callback)
        environment.op.mutate = _create_canary_hook(environment, undeclared, fail_token_request=True)
        left.browsers.append(refused := environment.create_browser())
        callback = refused.get_callback_url(environment.op)
        refused.get(callback)
        texts |= {f"{name}, refused": text for name, text in _collect_secrets(environment, callback).items()}
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=create_csrf_token(browser))
        control = _create_canary_text()
        _plant_control(left, control)
        over = _find_texts_in_places(left, {**texts, "control": _get_longest_word(control)})
        shown = _list_revealed_claims()
        for place in PLACES:
            hits = held[place] | over[place]
            yield place, {hit for hit in hits if place != "pages" or hit.partition(".")[0] not in shown}


def _find_texts_in_places(leftovers: LeftoverData, texts: Mapping[str, str]) -> dict[str, set[str]]:
    return {
        place: set().union(*(find_texts(texts, part) for part in leftovers.iterate_content(place))) for place in PLACES
    }


def _list_revealed_claims() -> set[str]:
    """Return the claims at which somebody looked: each look is in the trail."""
    looks = AuditEvent.objects.filter(action=Action.CLAIM_REVEALED, outcome="success").values_list("detail", flat=True)
    return {json.loads(detail).get("claim", "") for detail in looks}


def _create_canary_hook(
    environment: AttackEnvironment, undeclared_claims: Mapping[str, Any], *, fail_token_request: bool = False
) -> Any:
    honest = environment.create_honest_hook()

    def bend(endpoint: str, exchange: MutableExchange) -> Reply | None:
        honest(endpoint, exchange)
        if endpoint == "userinfo" and isinstance(exchange.reply.json, dict):
            exchange.reply.json |= undeclared_claims
        elif endpoint == "id_token":
            exchange.claims |= undeclared_claims
        elif endpoint == "token" and fail_token_request:
            exchange.reply.status = 500
        return None

    return bend


def _extract_texts(claim_values: Mapping[str, Any]) -> dict[str, str]:
    """Return the recognisable part of each text in the claims, by the claim's name."""
    texts = {}
    for name, value in claim_values.items():
        for member, leaf in value.items() if isinstance(value, dict) else [("", value)]:
            if isinstance(leaf, str):
                texts[f"{name}.{member}" if member else name] = _get_longest_word(leaf)
    return texts


def _collect_secrets(environment: AttackEnvironment, callback_url: str) -> dict[str, str]:
    asked = dict(parse_qsl(urlsplit(callback_url).query))
    tokens: dict[str, str] = {token.kind: token.value for token in environment.op.tokens[-2:]}
    return {"code": asked["code"], "state": asked["state"], "id_token": environment.op.id_tokens[-1], **tokens}


def _create_canary_text() -> str:
    return f"Kanarienvögel & {randomness.token_b64url(12)}"


def _get_longest_word(text: str) -> str:
    return max(text.split(), key=len)


def _plant_control(leftovers: LeftoverData, control: str) -> None:
    """Put a control into each place, as what goes there goes."""
    for alias in connections:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {CONTROL_TABLE} (told VARCHAR(200))")
            cursor.execute(f"INSERT INTO {CONTROL_TABLE} VALUES (%s)", [control])  # noqa: S608 -- a constant
    logger.warning(control)
    leftovers.planted_responses.append(PortalResponse(200, "", control))
    leftovers.browsers[0].visited_urls.append(f"/?told={quote(control)}")
    for alias in caches:
        caches[alias].set("phi_oidc_attack", control)
    current_app.send_task("phi_oidc.attack", args=[control])
    mail.send_mail(control, control, None, ["nobody@example.org"])


def _dump_tables(connection: Any) -> Iterator[bytes]:
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
def _capture_output() -> Iterator[LeftoverData]:
    """Hear all that is logged and published."""
    with capture_all_logs() as log:
        left = LeftoverData(log)

        def hear(body: Any = None, headers: Any = None, **kwargs: Any) -> None:
            left.published_messages.append(repr((body, headers)))

        before_task_publish.connect(hear)
        try:
            yield left
        finally:
            before_task_publish.disconnect(hear)


CANARY_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("canary", place): partial(search_place, place) for place in PLACES
}
