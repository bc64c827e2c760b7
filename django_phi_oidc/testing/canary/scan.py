"""Runs a sign-in and sign-out with recognisable claims and tokens, then searches all stored and
sent data for them.

A planted control must be found in each place. A claim that was revealed with an event in the audit
log may be on a page. Not searched are pages of the project after the first one, and files that its
servers write.
"""

import json
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
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
    """The data that a scenario leaves, by place."""

    log: CapturedLog
    published_messages: list[str] = field(default_factory=list)
    browsers: list[Browser] = field(default_factory=list)
    planted_responses: list[PortalResponse] = field(default_factory=list)

    def iterate_content(self, place: str) -> Iterator[bytes]:
        """Yield the current content of the place."""
        sources: Mapping[str, Callable[[], Iterable[bytes]]] = {
            "tables": _dump_databases,
            "log": lambda: ("\n".join(self.log.lines).encode(),),
            "pages": self._iterate_responses,
            "addresses": self._iterate_urls,
            "caches": _iterate_cached_values,
            "messages": lambda: (text.encode() for text in self.published_messages),
            "mails": lambda: (message.message().as_bytes() for message in mail.outbox),
        }
        yield from sources[place]()

    def _iterate_responses(self) -> Iterator[bytes]:
        pages: list[PortalResponse] = []
        for browser in self.browsers:
            pages += browser.responses
        pages += self.planted_responses

        for page in pages:
            headers = []
            for name, value in page.headers:
                if name != "Location":
                    headers.append((name, value))
            yield f"{headers}\n{page.body}".encode()

    def _iterate_urls(self) -> Iterator[bytes]:
        """Yield the URLs without the parameters in which the protocol itself puts a code, a state
        or an ID Token.
        """
        protocol_names = {"code", "state", "id_token_hint"}
        urls: list[str] = []
        for browser in self.browsers:
            urls += browser.visited_urls

        for url in urls:
            parts = urlsplit(url)
            pairs = parse_qsl(parts.query, keep_blank_values=True)
            values = []
            for name, value in pairs:
                if name not in protocol_names:
                    values.append(value)
            yield "\n".join([parts.path, parts.fragment, *values]).encode()


def search_place(place: str, environment: AttackEnvironment) -> None:
    """Check that the place contains the control and no canary. The first call runs the scenario."""
    if "canary" not in environment.shared_results:
        environment.shared_results["canary"] = dict(run_scenario(environment))
    names: set[str] = environment.shared_results["canary"][place]
    environment.assert_control("control" in names, "the planted control was not found")
    canaries = names - {"control"}
    if canaries:
        environment.report_fault(f"found: {', '.join(sorted(canaries))}")


def run_scenario(environment: AttackEnvironment) -> Iterator[tuple[str, set[str]]]:
    """Sign in, visit pages, fail a sign-in and sign out; yield each place with the canaries found
    there.
    """
    undeclared = {"ssn": _create_canary_text(), "diagnosis": {"icd": _create_canary_text()}}
    with _capture_output() as leftovers, environment.override_declaration():
        environment.op.mutate = _create_canary_hook(environment, undeclared)
        browser = environment.create_browser()
        leftovers.browsers.append(browser)
        callback = browser.get_callback_url(environment.op)
        page = browser.get(callback)
        environment.assert_accepted(browser, page)
        texts = {
            **_extract_texts({**environment.claim_values, **undeclared}),
            **_collect_secrets(environment, callback),
        }
        found_after_sign_in = _find_texts_in_places(leftovers, texts)
        browser.get(page.location)
        browser.get("/phi-oidc-attack/nowhere/")
        browser.get(callback)
        environment.op.mutate = _create_canary_hook(
            environment, undeclared, fail_token_request=True
        )
        leftovers.browsers.append(refused_browser := environment.create_browser())
        callback = refused_browser.get_callback_url(environment.op)
        refused_browser.get(callback)
        for name, text in _collect_secrets(environment, callback).items():
            texts[f"{name}, refused"] = text
        browser.post(reverse("oidc_logout"), csrfmiddlewaretoken=create_csrf_token(browser))
        control = _create_canary_text()
        _plant_control(leftovers, control)
        found_at_end = _find_texts_in_places(
            leftovers, {**texts, "control": _get_longest_word(control)}
        )
        revealed_claims = _list_revealed_claims()
        for place in PLACES:
            names = found_after_sign_in[place] | found_at_end[place]
            if place == "pages":
                names = _exclude_claims(names, revealed_claims)
            yield place, names


def _exclude_claims(names: Iterable[str], claims: Collection[str]) -> set[str]:
    """Return the names that are not of these claims or of their members."""
    other_names = set()
    for name in names:
        claim = name.partition(".")[0]
        if claim not in claims:
            other_names.add(name)
    return other_names


def _find_texts_in_places(leftovers: LeftoverData, texts: Mapping[str, str]) -> dict[str, set[str]]:
    result: dict[str, set[str]] = {}
    for place in PLACES:
        result[place] = set()
        for part in leftovers.iterate_content(place):
            result[place] |= find_texts(texts, part)
    return result


def _list_revealed_claims() -> set[str]:
    """Return the names of the claims that were revealed with an event in the audit log."""
    events = AuditEvent.objects.filter(action=Action.CLAIM_REVEALED, outcome="success")
    revealed_claims = set()
    for detail in events.values_list("detail", flat=True):
        revealed_claims.add(json.loads(detail).get("claim", ""))
    return revealed_claims


def _create_canary_hook(
    environment: AttackEnvironment,
    undeclared_claims: Mapping[str, Any],
    *,
    fail_token_request: bool = False,
) -> Any:
    honest_hook = environment.create_honest_hook()

    def send_canaries(endpoint: str, exchange: MutableExchange) -> Reply | None:
        honest_hook(endpoint, exchange)
        if endpoint == "userinfo" and isinstance(exchange.reply.json, dict):
            exchange.reply.json |= undeclared_claims
        elif endpoint == "id_token":
            exchange.claims |= undeclared_claims
        elif endpoint == "token" and fail_token_request:
            exchange.reply.status = 500
        return None

    return send_canaries


def _extract_texts(claim_values: Mapping[str, Any]) -> dict[str, str]:
    """Return the recognisable word of each text in the claims, by the claim's name."""
    texts = {}
    for name, value in claim_values.items():
        if isinstance(value, str):
            texts[name] = _get_longest_word(value)
        elif isinstance(value, dict):
            for member, leaf in value.items():
                if isinstance(leaf, str):
                    texts[f"{name}.{member}"] = _get_longest_word(leaf)
    return texts


def _collect_secrets(environment: AttackEnvironment, callback_url: str) -> dict[str, str]:
    parameters = dict(parse_qsl(urlsplit(callback_url).query))
    tokens: dict[str, str] = {}
    for token in environment.op.tokens[-2:]:
        tokens[token.kind] = token.value
    return {
        "code": parameters["code"],
        "state": parameters["state"],
        "id_token": environment.op.id_tokens[-1],
        **tokens,
    }


def _create_canary_text() -> str:
    return f"Kanarienvögel & {randomness.token_b64url(12)}"


def _get_longest_word(text: str) -> str:
    return max(text.split(), key=len)


def _plant_control(leftovers: LeftoverData, control: str) -> None:
    """Store or send a control in each place."""
    for alias in connections:
        with connections[alias].cursor() as cursor:
            cursor.execute(f"CREATE TABLE IF NOT EXISTS {CONTROL_TABLE} (text VARCHAR(200))")
            cursor.execute(f"INSERT INTO {CONTROL_TABLE} VALUES (%s)", [control])  # noqa: S608 -- a constant
    logger.warning(control)
    leftovers.planted_responses.append(PortalResponse(200, "", control))
    leftovers.browsers[0].visited_urls.append(f"/?text={quote(control)}")
    for alias in caches:
        caches[alias].set("phi_oidc_attack", control)
    current_app.send_task("phi_oidc.attack", args=[control])
    mail.send_mail(control, control, None, ["nobody@example.org"])


def _dump_databases() -> Iterator[bytes]:
    for alias in connections:
        yield from _dump_tables(connections[alias])


def _iterate_cached_values() -> Iterator[bytes]:
    for alias in caches:
        yield from getattr(caches[alias], "_cache", {}).values()


def _dump_tables(connection: Any) -> Iterator[bytes]:
    """Yield the content of a database: the whole file for SQLite, otherwise each table."""
    connection.ensure_connection()
    if connection.vendor == "sqlite":
        yield connection.connection.serialize()
        return
    with connection.cursor() as cursor:
        for name in connection.introspection.table_names(cursor):
            cursor.execute(f"SELECT * FROM {connection.ops.quote_name(name)}")  # noqa: S608 -- a table's name
            values = []
            for row in cursor.fetchall():
                for value in row:
                    values.append(_encode_value(value))
            yield b"\n".join(values)


def _encode_value(value: Any) -> bytes:
    if isinstance(value, bytes | memoryview):
        return bytes(value)
    return str(value).encode()


@contextmanager
def _capture_output() -> Iterator[LeftoverData]:
    """Capture all log records and published messages for the duration of the block."""
    with capture_all_logs() as log:
        leftovers = LeftoverData(log)

        def store_message(body: Any = None, headers: Any = None, **kwargs: Any) -> None:
            leftovers.published_messages.append(repr((body, headers)))

        before_task_publish.connect(store_message)
        try:
            yield leftovers
        finally:
            before_task_publish.disconnect(store_message)


CANARY_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("canary", place): partial(search_place, place) for place in PLACES
}
