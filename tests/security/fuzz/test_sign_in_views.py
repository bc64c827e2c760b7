"""Whatever a browser or a provider sends to a sign-in ends in a redirect or on one of our pages, and in time."""

import json
import sys
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import pytest
from django.http import HttpResponse
from django.test import Client
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.crypto import keyring
from django_phi_oidc.login.state_cookie import is_issued_nonce
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange
from tests.security.fuzz import response_processors as judges
from tests.support.fuzz_inputs import (
    ANY_TEXT,
    KIB,
    ODD_TEXT,
    ODD_VALUE,
    PURE,
    SECONDS_FOR_64_KIB,
    WITH_DATABASE,
    WITH_PROVIDER,
    damaged,
    in_time,
)

DATABASES = ["default", "phi_audit"]
pytestmark = pytest.mark.django_db(databases=DATABASES)

REQUEST, CALLBACK = "/oidc/authenticate/", "/oidc/callback/"
DOORS = [REQUEST, CALLBACK, "/oidc/default/authenticate/", "/oidc/default/callback/", "/oidc/nobody/callback/"]
OUR_ANSWERS = {302, 403, 503}
PENDING = [f"{prefix}phi_oidc_{digit * 32}" for prefix in ("", "__Host-") for digit in "0f"]
UNQUOTING_IS_LINEAR = sys.version_info >= (3, 13) or (3, 12, 6) > sys.version_info >= (3, 11, 10)

PIECES = st.sampled_from(
    [
        *("%", "%f", "%00", "%ff", "%C3%A9", "%ED%A0%80", "%u1234", "+", "=", ";", "&", "é", "\xff", "\\", '"', " "),
        *("//", "https://evil.test/", "/portal/", "\t", "%0d%0a", "javascript:", "[", "state", "code", "a" * 600),
    ]
)
VALUES = st.lists(PIECES, max_size=4).map("".join)
QUERIES = st.lists(
    st.tuples(st.sampled_from(["code", "state", "iss", "error", "error_description", "next", ""]) | PIECES, VALUES),
    max_size=6,
).map(lambda pairs: "&".join("=".join(pair) for pair in pairs))
COOKIE_NAMES = st.sampled_from([*PENDING, "phi_oidc_", "sessionid", "csrftoken", "messages", "", "\xff"])
COOKIE_VALUES = VALUES | st.sampled_from(
    ['"\\000abcdefghi"', '"\\377\\"', "x" * 40, f"{'0' * 8}:gAAAA", "{}", "a" * 5000]
)
COOKIES = st.lists(st.tuples(COOKIE_NAMES, COOKIE_VALUES), max_size=6)


def get(path: str, query: str = "", cookies: str = "", client: Client | None = None) -> HttpResponse:
    """Send these bytes, written as latin-1; an exception that leaves the view is raised here."""
    response: HttpResponse = (client or Client()).get(path, QUERY_STRING=query, HTTP_COOKIE=cookies)
    return response


def header_of(cookies: list[tuple[str, str]]) -> str:
    return "; ".join("=".join(cookie) for cookie in cookies)


def begin() -> tuple[str, list[tuple[str, str]]]:
    """Begin a sign-in; return where the browser is sent, and the cookies it gets."""
    response = get(REQUEST, "next=/portal/home/")
    assert response.status_code == 302
    return response["Location"], [(name, morsel.value) for name, morsel in response.cookies.items()]


# What a browser sends


@WITH_DATABASE
@given(st.sampled_from(DOORS), QUERIES, COOKIES)
def test_any_query_and_cookies_end_in_our_answer(
    op: DemoProvider, path: str, query: str, cookies: list[tuple[str, str]]
) -> None:
    assert get(path, query, header_of(cookies)).status_code in OUR_ANSWERS


@pytest.mark.sqlite
@pytest.mark.django_db(databases=DATABASES, transaction=True)
@WITH_PROVIDER
@given(st.data())
def test_any_damage_to_a_callback_ends_in_our_answer_and_leaves_no_token_alive(
    op: DemoProvider, op_cookies: dict[str, str], data: st.DataObject
) -> None:
    url, cookies = begin()
    callback = op.authorize(url, "amina", cookies=op_cookies)
    pairs = parse_qsl(urlsplit(callback).query)
    other = begin()[1]
    kind = data.draw(st.sampled_from(["nothing", "parameter", "again", "cookie", "more cookies"]))
    position = data.draw(st.integers(0, len(pairs) - 1))
    if kind == "parameter":
        pairs[position] = (data.draw(st.sampled_from(["error", pairs[position][0]])), data.draw(ODD_TEXT))
    elif kind == "again":
        pairs.insert(0, pairs[position])
    elif kind == "cookie":
        # Under the right name: another sign-in's, one cut off, or anything.
        value = data.draw(st.sampled_from([other[0][1], cookies[0][1][:-5]]) | COOKIE_VALUES)
        cookies = [(cookies[0][0], value)]
    elif kind == "more cookies":
        cookies += [*other, (other[0][0], cookies[0][1]), *data.draw(COOKIES)]
    query = "&".join(f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in pairs)
    response = get(CALLBACK, query, header_of(cookies))
    assert response.status_code in OUR_ANSWERS
    if kind == "nothing":
        assert response["Location"] == "/portal/home/"
    if kind in ("again", "cookie") or response.status_code != 302:
        assert response.status_code in {403, 503}
        assert op.active_tokens == []
    op.state.tokens.clear()


@pytest.mark.sqlite
@PURE
@given(ANY_TEXT | st.text("AQaq09-_=", max_size=70))
def test_no_text_is_a_nonce_that_we_issued(text: str) -> None:
    assert is_issued_nonce(text) is False


@pytest.mark.parametrize("path", [REQUEST, CALLBACK])
@pytest.mark.parametrize("key", ['"\\000bcdefghi"', "abcdefghi"], ids=["with NUL", "unknown"])
def test_a_session_cookie_that_no_database_can_hold_ends_in_our_answer(op: DemoProvider, path: str, key: str) -> None:
    response = get(path, "state=x", f"sessionid={key}")
    assert response.status_code == {REQUEST: 302, CALLBACK: 403}[path]
    assert response.cookies["sessionid"]["max-age"] == 0


@pytest.mark.parametrize("members", ["as now", "one more", "one less"])
def test_a_sign_in_begun_under_another_release_can_be_begun_again(op: DemoProvider, members: str) -> None:
    url, [(name, sealed)] = begin()
    context = ["pending sign-in", name]
    kept = json.loads(keyring.decrypt(sealed, context=context))
    if members == "one more":
        kept["of_a_later_release"] = True
    elif members == "one less":
        del kept["nonce"]
    cookie = f"{name}={keyring.encrypt(json.dumps(kept), context=context)}"
    assert get(REQUEST, "", cookie).status_code == 302
    answer = {"state": dict(parse_qsl(urlsplit(url).query))["state"], "iss": op.issuer, "error": "access_denied"}
    refused = get(CALLBACK, urlencode(answer), cookie)
    assert refused.status_code == 403
    reasons = AuditEvent.objects.filter(action="login.refused").values_list("reason", flat=True)
    assert list(reasons) == ["provider_error" if members == "as now" else "state_unknown"]


def test_more_parameters_than_django_reads_are_its_400(op: DemoProvider, settings: Any) -> None:
    most = "&".join(f"a{number}" for number in range(settings.DATA_UPLOAD_MAX_NUMBER_FIELDS - 1))
    assert get(CALLBACK, f"{most}&state=x").status_code == 403
    assert get(CALLBACK, f"{most}&b&state=x").status_code == 400


def filled(piece: str, *, before: str = "", behind: str = "") -> str:
    room = 64 * KIB - len(before) - len(behind)
    return before + piece * (room // len(piece)) + behind


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("path", "query", "cookies"),
    [
        pytest.param(CALLBACK, filled("x", before="state="), "", id="a state"),
        pytest.param(CALLBACK, filled("%ff", before="state=x&code="), "", id="escapes"),
        pytest.param(CALLBACK, "&".join(f"a{n}={'%41' * 20}" for n in range(990)), "", id="parameters"),
        pytest.param(CALLBACK, filled("&a=b"), "", id="too many parameters"),
        pytest.param(REQUEST, filled("%e9", before="next=/"), "", id="a next page"),
        pytest.param(REQUEST, filled("/", before="next="), "", id="slashes"),
        pytest.param(CALLBACK, "state=x", filled("a=b; "), id="cookies"),
        pytest.param(CALLBACK, "state=x", filled("é=é; "), id="odd cookies"),
        pytest.param(CALLBACK, "state=x", filled(";"), id="semicolons"),
        pytest.param(CALLBACK, "state=x", filled("x", before="sessionid="), id="a session cookie"),
        pytest.param(CALLBACK, "state=x", filled("x", before=f"{PENDING[0]}="), id="a pending sign-in"),
        pytest.param(
            REQUEST, "", "; ".join(f"phi_oidc_{n:032x}={n:08x}:gAAAA" for n in range(1000)), id="pending sign-ins"
        ),
        pytest.param(
            CALLBACK,
            "state=x",
            filled('\\"', before='a="', behind='"'),
            id="escaped quotes in a cookie",
            marks=pytest.mark.skipif(not UNQUOTING_IS_LINEAR, reason="a Python with CVE-2024-7592"),
        ),
    ],
)
def test_64_kib_of_query_or_cookies_take_50_ms(op: DemoProvider, path: str, query: str, cookies: str) -> None:
    client = Client()
    get(REQUEST, client=client)  # so that metadata, templates and connections are there
    response = in_time(lambda: get(path, query, cookies, client), SECONDS_FOR_64_KIB)
    assert isinstance(response, HttpResponse)
    assert response.status_code in {*OUR_ANSWERS, 400}


# What a provider sends


def bend_claims(op: DemoProvider, change: dict[str, Any]) -> None:
    def bend(stage: str, exchange: MutableExchange) -> None:
        if stage == "id_token":
            exchange.claims.update(change)

    op.mutate = bend


def bend_body(op: DemoProvider, endpoint: str, damage: Callable[[Any], bytes]) -> None:
    def bend(at: str, exchange: MutableExchange) -> None:
        if at == endpoint:
            exchange.reply.body, exchange.reply.json = damage(exchange.reply.json), None
            exchange.reply.headers["Content-Type"] = "application/json"

    op.mutate = bend


CLAIM_NAMES = st.sampled_from(
    [
        *("sub", "sid", "acr", "auth_time", "azp", "aud", "at_hash", "exp", "iat", "nbf", "nonce", "amr", "email"),
        *("birthdate", "address", "preferred_username", "phone_number"),
    ]
)


@pytest.mark.django_db(databases=DATABASES, transaction=True)
@WITH_PROVIDER
@given(st.dictionaries(CLAIM_NAMES, ODD_VALUE, min_size=1, max_size=3))
def test_any_claims_of_the_provider_end_in_our_answer_and_a_refusal_leaves_no_token_alive(
    op: DemoProvider, op_cookies: dict[str, str], claims: dict[str, Any]
) -> None:
    url, cookies = begin()
    callback = op.authorize(url, "amina", cookies=op_cookies)
    bend_claims(op, claims)
    response = get(CALLBACK, urlsplit(callback).query, header_of(cookies))
    op.mutate = None
    assert response.status_code in OUR_ANSWERS
    assert response.status_code == 302 or op.active_tokens == []
    op.state.tokens.clear()


@WITH_PROVIDER
@given(st.sampled_from(["token", "userinfo"]), st.data())
def test_any_answer_with_tokens_or_claims_ends_in_our_answer(
    op: DemoProvider, op_cookies: dict[str, str], endpoint: str, data: st.DataObject
) -> None:
    url, cookies = begin()
    callback = op.authorize(url, "amina", cookies=op_cookies)
    good = {"token": judges.TOKENS, "userinfo": judges.USERINFO}[endpoint]
    drawn = data.draw(damaged(good))
    whole = data.draw(st.booleans())
    bend_body(op, endpoint, lambda sent: drawn if whole else json.dumps({**sent, "address": drawn.hex()}).encode())
    response = get(CALLBACK, urlsplit(callback).query, header_of(cookies))
    op.mutate = None
    assert response.status_code in (OUR_ANSWERS if whole else {302})


@pytest.fixture
def op_cookies() -> dict[str, str]:
    """A person's cookies at the provider: one login page serves all examples."""
    return {}
