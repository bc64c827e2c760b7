"""Texts, log records, error reports and Sentry events are masked, and otherwise unchanged."""

import contextvars
import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sentry_sdk
from celery.signals import task_postrun, task_prerun
from django.core import mail
from django.db import connections
from django.utils.log import AdminEmailHandler
from sentry_sdk.integrations.django import DjangoIntegration

from django_phi_oidc._internal import request_secrets
from django_phi_oidc._internal.request_secrets import MIN_SECRET_LENGTH, register_secret, track_secrets
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.request_context import Actor
from django_phi_oidc.claims.disclosure import reveal
from django_phi_oidc.leak_guard.detector import MASK, LeakageFilter, before_send, find_leaks, find_leaks_in_url, mask
from django_phi_oidc.leak_guard.error_reporter import MaskingReporter
from tests.support.leaking_views import JWE, JWT
from tests.support.session_fixtures import ACCESS_TOKEN, SignedIn
from tests.unit.claims.test_disclosure_no_store import mail_to_admins

SignIn = Callable[..., SignedIn]
GUARD = "django_phi_oidc.middleware.LeakageGuardMiddleware"
OPAQUE = "0123456789abcdefXYZ"
WITH_PARTS = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
# a text with a token, and a control without one
TOKENS = {
    "a JWS": (f"({JWT})", "(eyJhbGciOiJFUzI1NiJ9)"),
    "a JWE without a key": (JWE, "eyJ.a.b.c.d"),
    "a JWS without a signature": (JWT.rpartition(".")[0] + ".", JWT.rpartition(".")[0]),
    "a bearer's": (f"Authorization: Bearer {OPAQUE}", "The bearer of this letter was here"),
    "a bearer's, by the letter": ("Bearer abcdefghijklmnop7", "Bearer characteristically"),
    "a parameter": (f"?access_token={OPAQUE}&x=1", f"?csrf_token={OPAQUE}&x=1"),
    "a member of JSON": (json.dumps({"refresh_token": OPAQUE}), json.dumps({"refresh_token": "short"})),
    "a member of a repr": (repr({"id_token": OPAQUE}), repr({"id_token_hint": None})),
}


@pytest.mark.parametrize(("text", "control"), TOKENS.values(), ids=TOKENS)
def test_shape_of_a_token_is_found_and_masked(text: str, control: str) -> None:
    assert find_leaks(text, "body") == ["token"]
    assert MASK in mask(text)
    assert not any(token in mask(text) for token in (JWT, JWE, OPAQUE, JWT.rpartition(".")[0]))
    assert (find_leaks(control, "body"), mask(control)) == ([], control)


@pytest.mark.parametrize(
    "beginning", ["eyJ", "-eyJ", ".eyJ", "eyJaaaaaaaaaa.", "access_token=", "access_token", "Bearer ", "earer 0"]
)
def test_search_time_is_linear_in_the_length_of_the_text(beginning: str) -> None:
    """A page with such a text must not keep the server busy."""

    def seconds(characters: int) -> float:
        text = (beginning * (characters // len(beginning)))[:characters]
        taken = []
        for _ in range(3):
            started = time.process_time()
            find_leaks(text, "body")
            mask(text)
            taken.append(time.process_time() - started)
        return min(taken)

    assert seconds(400_000) < 30 * seconds(40_000) + 0.05, "quadratic growth would be a factor of one hundred"


def test_secret_is_not_transport_in_the_regular_expression_cache() -> None:
    with track_secrets():
        register_secret("a-canary-for-caches", "claim")
        assert mask("see a-canary-for-caches") == f"see {MASK}"
        assert find_leaks("see a-canary-for-caches", "url") == ["claim"]
    assert not [key for key in re._cache if "canary" in str(key)]  # type: ignore[attr-defined]  # where re keeps them


def test_masking_keeps_the_surrounding_text() -> None:
    assert mask(f"a ?access_token={OPAQUE}&x=1 b") == f"a ?access_token={MASK}&x=1 b"
    assert mask(f"a {JWT} b {JWE} c") == f"a {MASK} b {MASK} c"


@pytest.mark.parametrize(
    ("value", "text", "is_found"),
    [
        ("Amina", "/people/?name=Amina&page=2", True),
        ("Amina", "/people/Aminata/", False),
        ("1984-03-09", "born=1984-03-09", True),
        ("Jo", "Jo", False),
        (12345, "?zip=12345", True),
        (12345, "?order=9123456", False),
        (True, "True", False),
        ({"street_address": "Tulegatan 4", "codes": ["AB-1234"]}, "see AB-1234", True),
        ({"street_address": "Tulegatan 4"}, "/?to=Tulegatan+4", True),
        ({"street_address": "Tulegatan 4"}, "/?to=Tulegatan%204", True),
        (OPAQUE, f"x{OPAQUE}x", True),
    ],
)
def test_secret_of_the_request_is_found_as_a_whole_word(value: Any, text: str, is_found: bool) -> None:
    with track_secrets():
        register_secret(value, "claim", location="body")
        assert find_leaks_in_url(text, "location") == (["claim"] if is_found else [])
        assert find_leaks_in_url(text, "body") == []
        assert (MASK in mask(text)) is is_found


def test_secrets_are_tracked_only_within_the_block() -> None:
    register_secret("a canary", "claim")
    assert request_secrets.current_secrets() == ()
    with track_secrets():
        register_secret("a canary", "claim")
        register_secret("a" * (MIN_SECRET_LENGTH - 1), "claim")
        (secret,) = request_secrets.current_secrets()
        assert "canary" not in repr(secret)
        inherited: Any = request_secrets._tracker_context.get()
        with track_secrets():
            assert request_secrets.current_secrets() == ()
    assert request_secrets.current_secrets() == ()
    assert inherited.secrets == {}, "a thread that lives on holds nothing either"


@pytest.mark.parametrize("shown", [repr, json.dumps, lambda text: text.replace("'", "&#x27;")])
def test_secret_is_masked_in_its_usual_encodings(shown: Callable[[str], str]) -> None:
    value = 'Zoë "Z" O\'Brien'
    with track_secrets():
        register_secret(value, "claim")
        if shown not in (repr, json.dumps):
            value = "Zoe O'Brien"
            register_secret(value, "claim")
        assert MASK in mask(f"seen: {shown(value)}")
        assert "Brien" not in mask(f"seen: {shown(value)}")


class Lines(logging.Handler):
    """Records the lines of a log file."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.extras: list[Any] = []
        self.addFilter(LeakageFilter())
        self.setFormatter(logging.Formatter("%(levelname)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        self.extras.append(getattr(record, "seen", None))


@pytest.fixture
def lines() -> Iterator[Lines]:
    handler = Lines()
    for name in ("hospital", "django.request"):
        logging.getLogger(name).addHandler(handler)
    yield handler
    for name in ("hospital", "django.request"):
        logging.getLogger(name).removeHandler(handler)


def test_log_record_is_masked_with_arguments_traceback_and_extras(lines: Lines) -> None:
    log = logging.getLogger("hospital")
    with track_secrets():
        register_secret("a canary", "claim")
        log.warning("%s and %s", "a canary", JWT, extra={"seen": "a canary"})
        try:
            raise ValueError("a canary")
        except ValueError:
            log.exception("It failed")
    log.warning("%s with %d arguments", "a line", 2, extra={"seen": "a canary"})
    assert lines.lines[0] == f"WARNING {MASK} and {MASK}"
    assert lines.lines[1].startswith("ERROR It failed\nTraceback")
    assert lines.lines[1].endswith(f"ValueError: {MASK}")
    assert lines.lines[2] == "WARNING a line with 2 arguments"
    assert lines.extras == [MASK, None, "a canary"], "the last one is outside of a request"


def test_secret_allowed_anywhere_is_masked_and_never_reported() -> None:
    with track_secrets():
        register_secret("a canary", "claim", location="anywhere")
        assert mask("see a canary") == f"see {MASK}"
        assert find_leaks("see a canary", "location") == find_leaks("see a canary", "body") == []


@pytest.mark.parametrize(("name", "expected"), [("phi_oidc.audit", "a canary"), ("phi_oidc.audits", MASK)])
def test_audit_record_is_not_masked(name: str, expected: str) -> None:
    record = logging.makeLogRecord({"name": name, "msg": "a canary"})
    with track_secrets():
        register_secret("a canary", "claim")
        assert LeakageFilter().filter(record)
    assert record.getMessage() == expected


def test_record_with_invalid_arguments_is_left_to_its_handler() -> None:
    record = logging.makeLogRecord({"msg": "%d", "args": ("no number",)})
    assert LeakageFilter().filter(record)
    assert record.args == ("no number",)


@pytest.fixture
def guarded(settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.support.leaking_views"
    settings.MIDDLEWARE = [GUARD, *settings.MIDDLEWARE]


def fail(person: SignedIn, leak: str) -> Any:
    client = person.client()
    client.raise_request_exception = False
    return client.get(f"/page/?leak={leak}&at=error")


@WITH_PARTS
@pytest.mark.parametrize(("leak", "value"), [("access_token", ACCESS_TOKEN), ("claim", "a value"), ("jwt", JWT)])
def test_logs_and_exceptions_of_a_view_are_masked(
    leak: str, value: str, guarded: None, lines: Lines, sign_in: SignIn, at_noon: None
) -> None:
    sign_in().client().get(f"/page/?leak={leak}&at=log")
    assert lines.lines == [f"WARNING Looked at {MASK}"]
    fail(sign_in(), leak)
    assert f"RuntimeError: No such thing: {MASK}" in lines.lines[1]
    assert value not in "".join(lines.lines)


@WITH_PARTS
@pytest.mark.parametrize(("leak", "value"), [("access_token", ACCESS_TOKEN), ("claim", "a value"), ("jwt", JWT)])
@pytest.mark.parametrize("debug", [True, False])
def test_error_report_is_masked_with_the_exception_message(
    leak: str,
    value: str,
    debug: bool,
    guarded: None,
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
    sign_in: SignIn,
    at_noon: None,
) -> None:
    """On the DEBUG page, and in mails."""
    settings.DEBUG = debug
    with mail_to_admins(settings):
        fail(sign_in(), leak)
        assert f"No such thing: {value}" in in_mails(), "without the reporter, Django shows the value"
        mail.outbox.clear()
        settings.DEFAULT_EXCEPTION_REPORTER = "django_phi_oidc.leak_guard.error_reporter.MaskingReporter"
        for name in ("django", "django.request"):
            for handler in logging.getLogger(name).handlers:
                # Handlers read the setting when they are created.
                if isinstance(handler, AdminEmailHandler):
                    monkeypatch.setattr(handler, "reporter_class", MaskingReporter)
        page = fail(sign_in(), leak).content.decode()
    assert f"No such thing: {MASK}" in in_mails()
    assert value not in in_mails() + page
    assert (f"No such thing: {MASK}" in page) is debug


def in_mails() -> str:
    return "".join(f"{message.subject}{message.body}{message.alternatives}" for message in mail.outbox)


class RecordingTransport(sentry_sdk.Transport):
    """Records what would be sent to Sentry."""

    def __init__(self) -> None:
        super().__init__({})
        self.sent: list[str] = []

    def capture_envelope(self, envelope: Any) -> None:
        self.sent += [item.get_bytes().decode() for item in envelope.items]


@pytest.fixture
def sentry() -> Iterator[Callable[..., RecordingTransport]]:
    """Return a function that starts Sentry with these options and returns its transport."""
    before = sentry_sdk.get_global_scope().client

    def start(**options: Any) -> RecordingTransport:
        transport = RecordingTransport()
        sentry_sdk.init(
            dsn="https://key@sentry.invalid/1",
            transport=transport,
            integrations=[DjangoIntegration()],
            **options,
        )
        return transport

    yield start
    sentry_sdk.get_client().close(timeout=0)
    sentry_sdk.get_global_scope().set_client(before)


@WITH_PARTS
@pytest.mark.parametrize(("leak", "value"), [("access_token", ACCESS_TOKEN), ("claim", "a value"), ("jwt", JWT)])
def test_sentry_event_is_masked_completely(
    leak: str, value: str, guarded: None, sign_in: SignIn, sentry: Callable[..., RecordingTransport], at_noon: None
) -> None:
    transport = sentry()
    fail(sign_in(), leak)
    assert value in "".join(transport.sent), "without it, Sentry gets the exception, the variables and the breadcrumbs"
    transport = sentry(before_send=before_send)
    fail(sign_in(), leak)
    (event,) = [json.loads(item) for item in transport.sent if '"exception"' in item]
    assert value not in "".join(transport.sent)
    assert event["exception"]["values"][-1]["value"] == f"No such thing: {MASK}"
    frames = event["exception"]["values"][-1]["stacktrace"]["frames"]
    assert any("vars" in frame for frame in frames) is (leak != "claim"), "no variables after a disclosure"
    assert frames[-1]["function"] == "respond"


def capture_error(value: Any) -> None:
    """Report an exception whose frames contain the value in several places."""
    keyed, members = {value: "a key"}, {value}
    try:
        raise RuntimeError("No such thing", len(keyed), len(members))
    except RuntimeError:
        sentry_sdk.capture_exception()


@WITH_PARTS
def test_f2_variables_are_left_out_after_a_disclosure_without_the_middleware(
    settings: Any, sign_in: SignIn, sentry: Callable[..., RecordingTransport], at_noon: None
) -> None:
    settings.ROOT_URLCONF = "tests.support.leaking_views"
    assert GUARD not in settings.MIDDLEWARE
    transport = sentry(before_send=before_send)
    fail(sign_in(), "claim")
    assert "a value" not in "".join(transport.sent)
    (event,) = [json.loads(item) for item in transport.sent if '"exception"' in item]
    assert event["exception"]["values"][-1]["value"] == f"No such thing: {MASK}"
    assert not any("vars" in frame for frame in event["exception"]["values"][-1]["stacktrace"]["frames"])
    transport = sentry(before_send=before_send)
    fail(sign_in(), "nothing")
    (event,) = [json.loads(item) for item in transport.sent if '"exception"' in item]
    assert any("vars" in frame for frame in event["exception"]["values"][-1]["stacktrace"]["frames"])
    assert request_secrets.current_secrets() == ()
    assert not request_secrets.has_revealed_claims()


@WITH_PARTS
@pytest.mark.parametrize("reveals", [True, False])
def test_f2_variables_are_left_out_after_a_disclosure_in_a_command(
    reveals: bool, sign_in: SignIn, sentry: Callable[..., RecordingTransport], at_noon: None
) -> None:
    """In a thread of its own, as in a process that serves no request."""
    person, transport = sign_in(), sentry(before_send=before_send)
    actor = Actor(user=person.user, origin=Origin(actor=str(person.user.pk), session=str(person.session.pk)))

    def command() -> None:
        try:
            value = "another canary"
            if reveals:
                value = reveal(actor, person.user, "birthdate", purpose="TREAT")
            capture_error(value)
        finally:
            connections.close_all()

    thread = threading.Thread(target=contextvars.Context().run, args=[command])
    thread.start()
    thread.join()
    sent = "".join(transport.sent)
    assert "a value" not in sent
    assert ("another canary" in sent) is not reveals


@WITH_PARTS
def test_f2_task_forgets_what_it_revealed(sign_in: SignIn, sentry: Callable[..., RecordingTransport]) -> None:
    task = type("Task", (), {"request": type("Request", (), {"is_eager": False})})

    def run() -> tuple[bool, int, bool]:
        task_prerun.send(sender=task, task=task)
        register_secret("a canary", "claim")
        during = request_secrets.has_revealed_claims(), len(request_secrets.current_secrets())
        task_postrun.send(sender=task, task=task)
        return *during, request_secrets.has_revealed_claims()

    assert contextvars.Context().run(run) == (True, 1, False)


def test_f2_keys_and_sets_of_an_event_are_masked() -> None:
    event = {"extra": {JWT: {JWT, "x"}, "y": frozenset({JWT}), 5: (JWT, 6)}}
    assert before_send(event, {}) == {"extra": {MASK: {MASK, "x"}, "y": frozenset({MASK}), 5: (MASK, 6)}}


class Unprintable:
    def __str__(self) -> str:
        raise AttributeError("no such attribute")


@pytest.mark.parametrize(
    "fields",
    [
        {"msg": "%s", "args": (Unprintable(),)},
        {"msg": Unprintable()},
        {"msg": "%(name)d", "args": ({"name": "x"},)},
        {"msg": "fine", "exc_info": True},
        {"msg": "fine", "exc_info": (ValueError, "no exception", None)},
    ],
)
def test_d11_filter_never_raises_and_never_drops_a_record(fields: dict[str, Any]) -> None:
    record = logging.makeLogRecord(fields)
    assert LeakageFilter().filter(record) is True
    assert LeakageFilter().filter(logging.makeLogRecord({"msg": "a %s", "args": ("word",)})) is True


def test_d11_traceback_of_a_usual_exception_is_still_masked() -> None:
    try:
        raise ValueError("Bearer 0123456789abcdef0123")
    except ValueError:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": sys.exc_info()})
    assert LeakageFilter().filter(record)
    assert "Bearer •••" in str(record.exc_text)
