"""Back-channel logout over a socket: refused and accepted tokens, events and log messages. Spec: BCL 1.0, R9."""

import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from wsgiref.simple_server import make_server

import pytest
from django.contrib.sessions.models import Session
from django.core.handlers.wsgi import WSGIHandler
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.views.debug import ExceptionReporter
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc._internal import clock
from django_phi_oidc.audit import outbox
from django_phi_oidc.audit.events import Action
from django_phi_oidc.audit.outbox import flush
from django_phi_oidc.audit.tasks import drain_outbox
from django_phi_oidc.audit.throttling import FLUSH_DELAY
from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import LogoutTokenInvalid
from django_phi_oidc.oidc.logout_token import BACKCHANNEL_LOGOUT_EVENT
from django_phi_oidc.provider.registry import get_provider
from django_phi_oidc.replay.models import UsedIdentifier
from django_phi_oidc.sessions import backchannel_logout
from django_phi_oidc.sessions.backchannel_logout import MAX_BODY_BYTES, MAX_UNVERIFIED_TOKENS
from django_phi_oidc.sessions.models import OIDCSession, PendingRevocation
from django_phi_oidc.sessions.tasks import sweep_revocations
from django_phi_oidc.testing.mock_provider import Client as Registered
from django_phi_oidc.testing.mock_provider import (
    DemoProvider,
    MutableExchange,
    create_signing_key,
    create_signing_keys,
    sign_bytes,
)
from tests.support.fuzz_inputs import WITH_DATABASE
from tests.support.http_server import serving
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.portal_process import Quiet, Server
from tests.support.session_fixtures import SignedIn, django_session_exists, events
from tests.unit.sessions.logout_token_provider import (
    BACKCHANNEL,
    FORM,
    SECRET,
    _signing_provider,
    declaration,
    declare,
    deliver,
    exchange,
    portal,
    provider,
    token_of,
)
from tests.unit.sessions.provider_sessions import is_live, name, sign_in_again, sign_in_often

__all__ = ["_signing_provider", "portal", "provider"]  # fixtures
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])

SignIn = Callable[..., SignedIn]
SUB, SID, JTI = "sub-canary", "sid-canary", "jti-canary"
BOTH = {"sub": SUB, "sid": SID}
ABSENT = object()
MEANING = str(LogoutTokenInvalid(""))


@pytest.fixture
def amina(sign_in: SignIn, provider: DemoProvider) -> SignedIn:
    """Return a person with the provider's SUB and a session with its SID."""
    return name(sign_in(), sub=SUB, sid=SID, issuer=provider.issuer)


def refusals() -> list[tuple[str, str]]:
    return [(event.reason, event.provider) for event in events(Action.LOGOUT_REFUSED)]


# R9's refusals, each next to the acceptance of the unchanged token

Alter = Callable[[DemoProvider, MutableExchange], None]


def altered(provider: DemoProvider, alter: Alter, **about: str) -> str:
    """Return a logout token of the provider with one wrong value."""
    provider.mutate = lambda stage, exchange: alter(provider, exchange)
    try:
        return token_of(provider, **about)
    finally:
        provider.mutate = None


def claims(**changes: Any) -> Alter:
    def alter(provider: DemoProvider, exchange: MutableExchange) -> None:
        for claim, value in changes.items():
            if value is ABSENT:
                del exchange.claims[claim]
            else:
                exchange.claims[claim] = value(exchange.claims.get(claim)) if callable(value) else value

    return alter


def header(**changes: Any) -> Alter:
    return lambda provider, exchange: exchange.header.update(changes)


def foreign_key(provider: DemoProvider, exchange: MutableExchange) -> None:
    """Sign with another key under the key id of the provider's."""
    assert exchange.key
    exchange.key = create_signing_key(exchange.key.alg, kid=exchange.key.kid)


def replace_token(make: Callable[[MutableExchange], str]) -> Alter:
    def alter(provider: DemoProvider, exchange: MutableExchange) -> None:
        exchange.token = make(exchange)

    return alter


def twice(exchange: MutableExchange) -> str:
    """Return a validly signed payload with a duplicate member."""
    assert exchange.key
    header = b'{"alg":"%b","kid":"%b"}' % (exchange.key.alg.encode(), exchange.key.kid.encode())
    return sign_bytes(header, b'{"sub":"a","sub":"b"}', exchange.key)


def shift(seconds: int) -> Callable[[Any], Any]:
    return lambda value: value + seconds


REFUSED: dict[str, Alter] = {
    "a foreign signature": foreign_key,
    "alg none": header(alg="none"),
    "alg HS256 with the public key": header(alg="HS256"),
    "an unknown kid": header(kid="unknown"),
    "no JWS": replace_token(lambda exchange: "nonsense"),
    "empty": replace_token(lambda exchange: "."),
    "a member twice": replace_token(twice),
    "a critical header": header(crit=["exp"]),
    "typ of an access token": header(typ="at+jwt"),
    "no iss": claims(iss=ABSENT),
    "another iss": claims(iss=lambda iss: f"{iss}/"),
    "an undeclared iss": claims(iss="https://unknown.example"),
    "no aud": claims(aud=ABSENT),
    "another aud": claims(aud="lab"),
    "one aud more": claims(aud=["portal", "lab"]),
    "no iat": claims(iat=ABSENT),
    "an iat eleven minutes ago": claims(iat=shift(-660), exp=shift(660)),
    "an iat in the future": claims(iat=shift(60), exp=shift(60)),
    "an iat that is text": claims(iat=str),
    "no exp": claims(exp=ABSENT),
    "an exp that is over": claims(exp=shift(-180)),
    "an exp that is text": claims(exp=str),
    "an nbf in the future": claims(nbf=2**33),
    "no jti": claims(jti=ABSENT),
    "an empty jti": claims(jti=""),
    "a jti that is a number": claims(jti=7),
    "no events": claims(events=ABSENT),
    "another event": claims(events={"http://schemas.openid.net/event/other": {}}),
    "the event as text": claims(events=BACKCHANNEL_LOGOUT_EVENT),
    "the event without an object": claims(events={BACKCHANNEL_LOGOUT_EVENT: None}),
    "neither sub nor sid": claims(sub=ABSENT, sid=ABSENT),
    "an empty sub": claims(sub=""),
    "a sub that is a number": claims(sub=7),
    "an empty sid": claims(sid=""),
    "a sid that is a list": claims(sid=[SID]),
    "a sid that is null": claims(sid=None),
    "a nonce": claims(nonce="n"),
}


@pytest.mark.parametrize("alter", REFUSED.values(), ids=REFUSED)
def test_backchannel_logout_with_one_wrong_value_is_refused_and_the_valid_token_is_accepted(
    portal: str, provider: DemoProvider, amina: SignedIn, alter: Alter
) -> None:
    refused = deliver(portal, altered(provider, alter, **BOTH, jti=JTI))
    assert (refused.status, refused.error) == (400, ("invalid_request", MEANING))
    assert (refused.headers["cache-control"], refused.headers["content-type"]) == ("no-store", "application/json")
    assert is_live(amina)
    assert [reason for reason, _ in refusals()] == ["logout_token_invalid"]

    done = deliver(portal, token_of(provider, **BOTH, jti=JTI))
    assert (done.status, done.body, done.headers["cache-control"]) == (200, b"", "no-store")
    assert not is_live(amina)


@contextmanager
def observing_responses(look: Callable[[str], None]) -> Iterator[str]:
    """Run a portal that calls look(status) when it has its response and before it sends the first byte."""
    application = WSGIHandler()

    def serve(environ: Any, start_response: Any) -> Any:
        def start(status: str, *rest: Any) -> Any:
            look(status)
            return start_response(status, *rest)

        return application(environ, start)

    with serving(make_server("127.0.0.1", 0, serve, Server, Quiet)) as address:
        yield address


@pytest.mark.parametrize("engine", ["db", "cached_db", "cache"])
def test_backchannel_logout_ends_every_session_before_it_responds(
    provider: DemoProvider, sign_in: SignIn, settings: Any, tmp_path: Path, engine: str
) -> None:
    shared = {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": str(tmp_path)}
    settings.CACHES = {"default": shared}
    settings.SESSION_ENGINE = f"django.contrib.sessions.backends.{engine}"
    amina = name(sign_in(), sub=SUB, sid=SID, issuer=provider.issuer)
    key = sign_in_again(amina, sid="another", issuer=provider.issuer)
    observed: list[tuple[str, bool, bool, int]] = []

    def look(status: str) -> None:
        live = OIDCSession.objects.filter(ended_at=None).count()
        observed.append((status, django_session_exists(amina.django_key), django_session_exists(key), live))

    with observing_responses(look) as base:
        assert deliver(base, altered(provider, foreign_key, sub=SUB)).status == 400
        assert deliver(base, token_of(provider, sub=SUB)).status == 200
    assert observed == [("400 Bad Request", True, True, 2), ("200 OK", False, False, 0)]


def test_repeated_backchannel_logout_is_refused(portal: str, provider: DemoProvider, amina: SignedIn) -> None:
    token = token_of(provider, **BOTH)
    assert deliver(portal, token).status == 200
    again = deliver(portal, token)
    assert (again.status, again.error[0], again.headers["cache-control"]) == (400, "invalid_request", "no-store")
    assert refusals() == [("logout_token_replayed", "default")]
    assert deliver(portal, token_of(provider, **BOTH)).status == 200


def test_backchannel_logout_without_exp_is_accepted_if_allowed_and_recent(
    portal: str, provider: DemoProvider, amina: SignedIn, settings: Any
) -> None:
    token = altered(provider, claims(exp=ABSENT), **BOTH)
    assert deliver(portal, token).status == 400
    declare(settings, default=declaration(provider, allow_logout_token_without_exp=True))
    assert deliver(portal, altered(provider, claims(exp=ABSENT, iat=shift(-180)), **BOTH)).status == 400
    assert is_live(amina)
    assert deliver(portal, token).status == 200
    assert not is_live(amina)


@pytest.mark.parametrize("typ", ["JWT", "jwt", ABSENT, "logout+jwt"])
def test_b2_backchannel_logout_with_a_general_typ_is_accepted_unless_the_type_is_required(
    portal: str, provider: DemoProvider, amina: SignedIn, settings: Any, typ: Any
) -> None:
    def set_typ(provider: DemoProvider, exchange: MutableExchange) -> None:
        exchange.header.pop("typ", None)
        if typ is not ABSENT:
            exchange.header["typ"] = typ

    token = altered(provider, set_typ, **BOTH)
    declare(settings, default=declaration(provider, require_logout_typ=True))
    if typ != "logout+jwt":
        assert deliver(portal, token).status == 400
        assert [event.detail for event in events(Action.LOGOUT_REFUSED)] == ['{"rule":"typ_invalid"}']
        assert is_live(amina)
        declare(settings, default=declaration(provider))
    assert deliver(portal, token).status == 200
    assert not is_live(amina)


def test_backchannel_logout_by_a_conforming_provider_is_accepted(
    portal: str, provider: DemoProvider, amina: SignedIn, sign_in: SignIn
) -> None:
    jonas = name(sign_in(), sub="jonas", sid="another", issuer=provider.issuer)
    for alg in ("RS256", "PS256", "ES256", "EdDSA"):
        provider.signing_alg = alg
        response = provider.send_backchannel_logout("portal", sub="unknown")
        assert (response.status, response.body, response.headers["cache-control"]) == (200, b"", "no-store")
    assert provider.send_backchannel_logout("portal", sub=SUB).status == 200
    assert (is_live(amina), is_live(jonas)) == (False, True)


# Requests without a logout token


@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_backchannel_logout_by_another_method_is_405(portal: str, provider: DemoProvider, method: str) -> None:
    response = exchange(portal, method, f"{BACKCHANNEL}?logout_token={token_of(provider, **BOTH)}")
    assert (response.status, response.headers["allow"]) == (405, "POST")
    assert response.headers["cache-control"] == "no-store"


MULTIPART = 'multipart/form-data; boundary="x"'
BODIES: dict[str, tuple[Callable[[str], bytes], str]] = {
    "none": (lambda token: b"", FORM),
    "another parameter": (lambda token: urlencode({"id_token": token}).encode(), FORM),
    "the token twice": (lambda token: f"logout_token={token}&logout_token={token}".encode(), FORM),
    "an empty one before it": (lambda token: f"logout_token=&logout_token={token}".encode(), FORM),
    "JSON": (lambda token: b'{"logout_token":"%b"}' % token.encode(), "application/json"),
    "a form under the name of JSON": (lambda token: urlencode({"logout_token": token}).encode(), "application/json"),
    "of no type": (lambda token: urlencode({"logout_token": token}).encode(), ""),
    "multipart": (
        lambda token: f'--x\r\nContent-Disposition: form-data; name="logout_token"\r\n\r\n{token}\r\n--x--'.encode(),
        MULTIPART,
    ),
    "too many parameters": (lambda token: f"logout_token={token}{'&a=b' * 100}".encode(), FORM),
    "too large": (lambda token: f"logout_token={token}&a={'b' * MAX_BODY_BYTES}".encode(), FORM),
    "no text": (lambda token: f"logout_token={token}".encode() + b"\xff", FORM),
    "an odd escape": (lambda token: f"logout_token={token}%00%ff%".encode(), FORM),
}


@pytest.mark.parametrize(("body", "media_type"), BODIES.values(), ids=BODIES)
def test_backchannel_logout_with_another_body_is_refused(
    portal: str, provider: DemoProvider, amina: SignedIn, body: Callable[[str], bytes], media_type: str
) -> None:
    token = token_of(provider, **BOTH)
    refused = exchange(portal, "POST", BACKCHANNEL, body(token), Content_Type=media_type)
    assert (refused.status, refused.error) == (400, ("invalid_request", MEANING))
    assert refused.headers["cache-control"] == "no-store"
    assert is_live(amina)
    # As in the specification, and with unknown parameters. Spec: BCL 2.5.
    assert deliver(portal, token, state="x", logout_hint="").status == 200
    assert not is_live(amina)


def test_backchannel_logout_with_a_charset_is_accepted(portal: str, provider: DemoProvider, amina: SignedIn) -> None:
    body = urlencode({"logout_token": token_of(provider, **BOTH)}).encode()
    assert exchange(portal, "POST", BACKCHANNEL, body, Content_Type=f"{FORM}; charset=utf-16").status == 200
    assert not is_live(amina)


@WITH_DATABASE
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda data: b"logout_token=" + data))
def test_backchannel_logout_with_an_arbitrary_body_is_a_400(provider: DemoProvider, body: bytes) -> None:
    assert Client().post(BACKCHANNEL, body, content_type=FORM).status_code == 400


# Selection of the provider


def test_backchannel_logout_is_verified_with_the_keys_of_its_provider(
    portal: str, provider: DemoProvider, amina: SignedIn, sign_in: SignIn, settings: Any
) -> None:
    with DemoProvider().running() as other:
        other.register_client(Registered("portal", SECRET, [f"{portal}/oidc/other/callback/"]))
        declare(settings, default=declaration(provider), other=declaration(other))
        other_person = name(sign_in(), sub=SUB, sid=SID, issuer=other.issuer)
        assert deliver(portal, altered(other, claims(iss=provider.issuer), **BOTH)).status == 400
        assert (is_live(amina), is_live(other_person)) == (True, True)
        assert deliver(portal, token_of(other, **BOTH)).status == 200
        assert (is_live(amina), is_live(other_person)) == (True, False)
    assert deliver(portal, token_of(provider, **BOTH)).status == 200
    assert not is_live(amina)
    assert refusals() == [("logout_token_invalid", "default")]


def test_backchannel_logout_of_another_client_at_the_same_issuer_is_verified_for_that_client(
    portal: str, provider: DemoProvider, amina: SignedIn, settings: Any
) -> None:
    provider.register_client(Registered("lab", SECRET, [f"{portal}/oidc/lab/callback/"]))
    declare(settings, default=declaration(provider))
    token = token_of(provider, client_id="lab", **BOTH)
    assert deliver(portal, token).status == 400
    declare(
        settings,
        default=declaration(provider, id_token_signed_response_alg=["ES256"]),
        lab=declaration(provider, client_id="lab"),
    )
    assert deliver(portal, token_of(provider, **BOTH)).status == 400
    assert deliver(portal, token).status == 200
    assert not is_live(amina)


# Deliveries that the provider may repeat


@contextmanager
def database_refusing() -> Iterator[None]:
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE django_phi_oidc_pendingrevocation RENAME TO away")
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("ALTER TABLE away RENAME TO django_phi_oidc_pendingrevocation")


def test_backchannel_logout_during_a_database_outage_can_be_repeated(
    portal: str, provider: DemoProvider, amina: SignedIn
) -> None:
    token = token_of(provider, **BOTH)
    with database_refusing():
        failed = deliver(portal, token)
    assert (failed.status, failed.headers["cache-control"], failed.headers["retry-after"]) == (503, "no-store", "30")
    assert is_live(amina)
    assert (refusals(), UsedIdentifier.objects.filter(kind="logout_token").count()) == ([], 0)
    assert deliver(portal, token).status == 200
    assert not is_live(amina)


@pytest.mark.postgresql
def test_backchannel_logout_on_a_lost_connection_uses_a_new_one(provider: DemoProvider, amina: SignedIn) -> None:
    body = urlencode({"logout_token": token_of(provider, **BOTH)})
    connection.ensure_connection()
    connection.connection.close()
    assert Client().post(BACKCHANNEL, body, content_type=FORM).status_code == 200
    assert not is_live(amina)


def test_backchannel_logout_with_unavailable_provider_keys_can_be_repeated(
    portal: str, settings: Any, sign_in: SignIn
) -> None:
    provider = DemoProvider([Registered("portal", SECRET, [f"{portal}/oidc/callback/"])])
    provider.start()
    provider.stop()
    declare(settings, default=declaration(provider))
    amina = name(sign_in(), **BOTH, issuer=provider.issuer)
    token = token_of(provider, **BOTH)
    failed = deliver(portal, token)
    assert (failed.status, failed.headers["cache-control"], failed.headers["retry-after"]) == (503, "no-store", "30")
    assert is_live(amina)
    assert refusals() == []
    with provider.running():
        assert deliver(portal, token).status == 200
    assert not is_live(amina)


def test_backchannel_logout_with_a_new_key_fetches_the_keys_again(
    portal: str, provider: DemoProvider, amina: SignedIn
) -> None:
    assert deliver(portal, token_of(provider, sub="unknown")).status == 200
    before = provider.state.keys
    provider.rotate_keys()
    try:
        assert deliver(portal, token_of(provider, **BOTH)).status == 200
    finally:
        provider.state.keys = before
    assert not is_live(amina)


def test_backchannel_logout_with_a_new_key_during_an_outage_can_be_repeated(
    portal: str, settings: Any, sign_in: SignIn
) -> None:
    provider = DemoProvider([Registered("portal", SECRET, [f"{portal}/oidc/callback/"])], keys=create_signing_keys())
    with provider.running():
        declare(settings, default=declaration(provider))
        assert deliver(portal, token_of(provider, sub="unknown")).status == 200
    name(sign_in(), **BOTH, issuer=provider.issuer)
    provider.rotate_keys()
    assert deliver(portal, token_of(provider, **BOTH)).status == 503
    assert refusals() == []


def test_backchannel_logout_with_a_new_key_before_the_next_fetch_can_be_repeated(
    portal: str, settings: Any, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token with a made-up key makes us fetch the keys, which happens once in 30 s."""
    provider = DemoProvider([Registered("portal", SECRET, [f"{portal}/oidc/callback/"])], keys=create_signing_keys())
    with provider.running():
        declare(settings, default=declaration(provider))
        assert deliver(portal, token_of(provider, sub="unknown")).status == 200
        genuine = provider.state.keys
        provider.state.keys = create_signing_keys()
        made_up = token_of(provider, **BOTH)
        provider.state.keys = genuine
        assert deliver(portal, made_up).status == 400
        amina = name(sign_in(), **BOTH, issuer=provider.issuer)
        provider.rotate_keys()
        token = token_of(provider, **BOTH)
        early = deliver(portal, token)
        assert (early.status, early.headers["retry-after"]) == (503, "30")
        assert is_live(amina)
        monkeypatch.setattr(get_provider("default")._keys._refetch_limits["anyone"], "_last_at", float("-inf"))
        assert deliver(portal, token).status == 200
        assert not is_live(amina)


# Tokens that cannot be verified now


@pytest.fixture
def stranger(portal: str, settings: Any) -> Iterator[DemoProvider]:
    """Yield a provider whose keys the portal has just fetched, and which signs with another key."""
    provider = DemoProvider([Registered("portal", SECRET, [f"{portal}/oidc/callback/"])], keys=create_signing_keys())
    with provider.running():
        declare(settings, default=declaration(provider))
        assert deliver(portal, token_of(provider, sub="unknown")).status == 200
        provider.state.keys = create_signing_keys()
        # The keys are fetched again, and the next fetch is half a minute later.
        assert deliver(portal, token_of(provider, **BOTH)).status == 400
        yield provider


@pytest.mark.parametrize(
    "alter",
    [alter for name, alter in REFUSED.items() if name not in ("a foreign signature", "an unknown kid")],
    ids=[name for name in REFUSED if name not in ("a foreign signature", "an unknown kid")],
)
def test_s7_token_that_cannot_be_the_providers_is_a_400_although_its_key_is_unknown(
    portal: str, stranger: DemoProvider, alter: Alter
) -> None:
    assert deliver(portal, altered(stranger, alter, **BOTH)).status == 400
    assert deliver(portal, token_of(stranger, **BOTH)).status == 503


@pytest.mark.parametrize(
    "alter", [claims(aud="lab"), claims(exp=shift(-180)), claims(nonce="n")], ids=["aud", "exp", "nonce"]
)
def test_s7_token_that_cannot_be_the_providers_makes_no_request_to_the_provider(
    portal: str, settings: Any, alter: Alter
) -> None:
    provider = DemoProvider([Registered("portal", SECRET, [f"{portal}/oidc/callback/"])])
    provider.start()
    provider.stop()
    declare(settings, default=declaration(provider))
    assert deliver(portal, altered(provider, alter, **BOTH)).status == 400
    assert deliver(portal, token_of(provider, **BOTH)).status == 503


def post_from(address: str, token: str) -> int:
    body = urlencode({"logout_token": token})
    return int(Client(REMOTE_ADDR=address).post(BACKCHANNEL, body, content_type=FORM).status_code)


@pytest.mark.parametrize(
    "addresses",
    [
        ["198.51.100.1"] * 30,
        [f"2001:db8:0:{number:x}::1" for number in range(30)],
        [f"2001:db8:0:{number:x}00::1" for number in range(30)],
    ],
    ids=["an IPv4 address", "the networks of a home line", "the networks of a company line"],
)
def test_s7_sender_of_many_tokens_that_cannot_be_verified_causes_few_server_errors(
    stranger: DemoProvider, addresses: list[str]
) -> None:
    now = clock.now()
    with clock.override_clock(lambda: now):
        statuses = [post_from(address, token_of(stranger, **BOTH)) for address in addresses]
        assert statuses == [503] * MAX_UNVERIFIED_TOKENS + [429] * (30 - MAX_UNVERIFIED_TOKENS)
        assert post_from("198.51.100.2", token_of(stranger, **BOTH)) == 503, "another sender"
    with clock.override_clock(lambda: now + timedelta(minutes=1)):
        assert post_from(addresses[0], token_of(stranger, **BOTH)) == 503


def test_s7_refusal_of_a_sender_of_many_tokens_says_when_to_repeat_them(portal: str, stranger: DemoProvider) -> None:
    token = token_of(stranger, **BOTH)
    now = clock.now()
    with clock.override_clock(lambda: now):
        answers = [deliver(portal, token) for _ in range(MAX_UNVERIFIED_TOKENS + 1)]
    assert (answers[-1].status, answers[-1].headers["retry-after"]) == (429, "30")
    assert answers[-1].headers["cache-control"] == "no-store"
    assert json.loads(answers[-1].body) == {"error": "temporarily_unavailable"}
    assert [event.detail for event in events(Action.LOGOUT_REFUSED)][-1] == '{"rule":"key_not_found"}'


def test_s7_sender_of_many_unverified_tokens_can_still_deliver_a_verified_one(
    portal: str, stranger: DemoProvider, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    amina = name(sign_in(), **BOTH, issuer=stranger.issuer)
    token = token_of(stranger, **BOTH)
    now = clock.now()
    with clock.override_clock(lambda: now):
        for _ in range(MAX_UNVERIFIED_TOKENS + 1):
            deliver(portal, token)
        assert is_live(amina)
        # It was a rotation: the provider publishes the key.
        stranger.state.published_keys += stranger.state.keys.values()
        monkeypatch.setattr(get_provider("default")._keys._refetch_limits["anyone"], "_last_at", float("-inf"))
        assert deliver(portal, token).status == 200
    assert not is_live(amina)


def test_backchannel_logout_while_a_subject_key_is_missing_can_be_repeated(
    portal: str, provider: DemoProvider, amina: SignedIn, settings: Any
) -> None:
    declared, token = settings.PHI_OIDC, token_of(provider, sub=SUB)
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"subject": [keyring.generate_key()]})
    assert deliver(portal, token).status == 503
    settings.PHI_OIDC = declared
    assert deliver(portal, token).status == 200
    assert not is_live(amina)


# Tokens at the provider


def test_backchannel_logout_leaves_revocations_to_the_sweep(
    portal: str, provider: DemoProvider, sign_in: SignIn
) -> None:
    sign_in_often(sign_in, 5, sub=SUB, issuer=provider.issuer)
    assert deliver(portal, token_of(provider, sub=SUB)).status == 200
    rows = PendingRevocation.objects.all()
    assert [(row.status, row.attempts) for row in rows] == [("pending", 0)] * 10
    assert "/revoke" not in {request.path for request in provider.requests}
    sweep_revocations()
    assert {row.status for row in rows.all()} == {"done"}
    assert [request.path for request in provider.requests].count("/revoke") == 10


def test_backchannel_logout_of_a_thousand_sessions_executes_statements_for_each_batch_only(
    provider: DemoProvider, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The provider waits for the response. Each batch adds the same number of statements."""
    monkeypatch.setattr(backchannel_logout, "BATCH_SIZE", 250)
    # On a slow machine a thousand events would miss the deadline, and wait in the outbox.
    monkeypatch.setattr(outbox, "MOVE_TIMEOUT_SECONDS", 60.0)
    statements, revocations = {}, 0
    for sessions in (250, 500, 1000):
        sub = f"sub-{sessions}"
        sign_in_often(sign_in, sessions, sub=sub, issuer=provider.issuer)
        body = urlencode({"logout_token": token_of(provider, sub=sub)})
        with CaptureQueriesContext(connection) as queries:
            assert Client().post(BACKCHANNEL, body, content_type=FORM).status_code == 200
        statements[sessions] = len(queries)
        revocations += 2 * sessions
        assert not OIDCSession.objects.filter(ended_at=None).exists()
        assert not Session.objects.exists()
        assert PendingRevocation.objects.count() == revocations
    for_two_batches = 2 * (statements[500] - statements[250])
    assert 0 < for_two_batches == statements[1000] - statements[500]


@pytest.mark.parametrize(
    ("keep", "scopes", "hints"),
    [
        (True, ["offline_access"], ["access_token"]),
        (True, ["patient/*.read"], ["access_token", "refresh_token"]),
        (False, ["offline_access"], ["access_token", "refresh_token"]),
    ],
)
def test_backchannel_logout_keeps_offline_tokens_if_configured(
    portal: str,
    provider: DemoProvider,
    amina: SignedIn,
    settings: Any,
    keep: bool,
    scopes: list[str],
    hints: list[str],
) -> None:
    why = {"purpose": "TREAT", "basis": "why"}
    declare(settings, default=declaration(provider, resource_scopes=dict.fromkeys(scopes, why)))
    settings.PHI_OIDC = {**settings.PHI_OIDC, "KEEP_OFFLINE": keep}
    assert deliver(portal, token_of(provider, **BOTH)).status == 200
    assert sorted(PendingRevocation.objects.values_list("token_type_hint", flat=True)) == hints


# Events and log messages


def test_refused_backchannel_logout_records_an_event(portal: str, provider: DemoProvider) -> None:
    assert deliver(portal, altered(provider, foreign_key, **BOTH)).status == 400
    assert deliver(portal, "nonsense").status == 400
    assert refusals() == [("logout_token_invalid", "default"), ("logout_token_invalid", "")]
    event = events(Action.LOGOUT_REFUSED)[0]
    assert (event.outcome, event.client_ip, event.actor, event.session, event.detail) == (
        "failure",
        "127.0.0.1",
        "",
        "",
        '{"rule":"signature_invalid"}',
    )


def test_hundreds_of_refused_backchannel_logouts_record_one_event(provider: DemoProvider) -> None:
    now = clock.now().replace(second=5)
    with clock.override_clock(lambda: now):
        for _ in range(25):
            assert Client().post(BACKCHANNEL, {"a": "b"}).status_code == 400
    assert len(refusals()) == 20
    with clock.override_clock(lambda: now.replace(second=0) + 2 * FLUSH_DELAY + (FLUSH_DELAY * 6)):
        drain_outbox()
    summary = events(Action.LOGOUT_REFUSED)[-1]
    assert (len(refusals()), summary.reason, summary.detail) == (21, "logout_token_invalid", '{"count":5}')
    assert events(Action.LOGIN_REFUSED) == []


def test_refused_backchannel_logout_without_the_audit_log_stays_refused(
    portal: str, provider: DemoProvider, amina: SignedIn, settings: Any
) -> None:
    declared = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"audit_mac": []})
    assert deliver(portal, "nonsense").status == 400
    settings.PHI_OIDC = declared
    assert deliver(portal, token_of(provider, **BOTH)).status == 200


def test_a2_backchannel_logout_without_the_mac_keys_ends_the_session_and_its_events_follow(
    portal: str, provider: DemoProvider, amina: SignedIn, settings: Any
) -> None:
    declared = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(declared, KEYS={"audit_mac": []})
    assert deliver(portal, token_of(provider, **BOTH)).status == 200
    assert OIDCSession.objects.get().end_reason == "backchannel_logout"
    assert events(Action.LOGOUT_RECEIVED) == []
    settings.PHI_OIDC = declared
    flush()
    assert [json.loads(event.detail)["signed_late"] for event in events(Action.LOGOUT_RECEIVED)] == [True]


def test_refused_backchannel_logout_logs_the_rule_and_no_value(
    portal: str, provider: DemoProvider, amina: SignedIn, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    tokens = [altered(provider, claims(nonce="nonce-canary"), **BOTH, jti=JTI)]
    tokens += [token_of(provider, **BOTH, jti=JTI)] * 2
    assert [deliver(portal, token).status for token in tokens] == [400, 200, 400]
    lines = [record.getMessage() for record in caplog.records if record.name == "django_phi_oidc.logout"]
    assert "reason=logout_token_invalid rule=nonce_invalid provider=default" in lines[0]
    assert "reason=logout_token_replayed rule= provider=default" in lines[1]
    logged = "\n".join(f"{record.getMessage()} {record.exc_text or ''}" for record in caplog.records)
    secrets = [SUB, SID, JTI, "nonce-canary", *(part for token in tokens for part in token.split(".")[1:])]
    assert [secret for secret in secrets if secret in logged] == []


def test_backchannel_logout_that_crashes_shows_no_token_in_an_error_report(
    provider: DemoProvider, amina: SignedIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = token_of(provider, **BOTH)

    def crash(*args: Any, **options: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("django_phi_oidc.sessions.backchannel_logout.process_logout_token", crash)
    with pytest.raises(ZeroDivisionError) as failed:
        Client().post(BACKCHANNEL, urlencode({"logout_token": token}), content_type=FORM)
    # Only the frames that Django would report, without this test's.
    traceback = failed.tb
    while traceback.tb_frame.f_code.co_name != "_get_response":
        assert traceback.tb_next
        traceback = traceback.tb_next
    request = traceback.tb_frame.f_locals["request"]
    report = ExceptionReporter(request, failed.type, failed.value, traceback).get_traceback_html()
    assert "process_logout_token" in report
    assert [secret for secret in (token, token.split(".")[1], SUB, SID) if secret in report] == []


def test_backchannel_logout_needs_no_csrf_token_and_leaves_cookies_alone(
    provider: DemoProvider, amina: SignedIn, sign_in: SignIn
) -> None:
    jonas = name(sign_in(), sub="jonas", issuer=provider.issuer)
    client = Client(enforce_csrf_checks=True)
    client.cookies["sessionid"] = jonas.django_key
    body = urlencode({"logout_token": token_of(provider, **BOTH)})
    response = client.post(BACKCHANNEL, body, content_type=FORM, secure=True)
    assert (response.status_code, response.cookies) == (200, {})
    assert (is_live(amina), is_live(jonas)) == (False, True)
    assert [event.actor for event in events(Action.SESSION_ENDED)] == [""]
