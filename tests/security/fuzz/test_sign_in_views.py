"""Property tests: any input from a browser or provider results in a redirect or an error page, in time."""

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
from tests.security.fuzz import response_processors as processors
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
    run_within,
)

DATABASES = ["default", "phi_audit"]
pytestmark = pytest.mark.django_db(databases=DATABASES)

REQUEST, CALLBACK = "/oidc/authenticate/", "/oidc/callback/"
PATHS = [REQUEST, CALLBACK, "/oidc/default/authenticate/", "/oidc/default/callback/", "/oidc/nobody/callback/"]
EXPECTED_STATUSES = {302, 403, 503}
STATE_COOKIE_NAMES = [f"{prefix}phi_oidc_{digit * 32}" for prefix in ("", "__Host-") for digit in "0f"]
IS_UNQUOTING_LINEAR = sys.version_info >= (3, 13) or (3, 12, 6) > sys.version_info >= (3, 11, 10)

FRAGMENTS = st.sampled_from(
    [
        *("%", "%f", "%00", "%ff", "%C3%A9", "%ED%A0%80", "%u1234", "+", "=", ";", "&", "é", "\xff", "\\", '"', " "),
        *("//", "https://evil.test/", "/portal/", "\t", "%0d%0a", "javascript:", "[", "state", "code", "a" * 600),
    ]
)
VALUES = st.lists(FRAGMENTS, max_size=4).map("".join)
QUERIES = st.lists(
    st.tuples(st.sampled_from(["code", "state", "iss", "error", "error_description", "next", ""]) | FRAGMENTS, VALUES),
    max_size=6,
).map(lambda pairs: "&".join("=".join(pair) for pair in pairs))
COOKIE_NAMES = st.sampled_from([*STATE_COOKIE_NAMES, "phi_oidc_", "sessionid", "csrftoken", "messages", "", "\xff"])
COOKIE_VALUES = VALUES | st.sampled_from(
    ['"\\000abcdefghi"', '"\\377\\"', "x" * 40, f"{'0' * 8}:gAAAA", "{}", "a" * 5000]
)
COOKIES = st.lists(st.tuples(COOKIE_NAMES, COOKIE_VALUES), max_size=6)


def get(path: str, query: str = "", cookies: str = "", client: Client | None = None) -> HttpResponse:
    """Send a request with bytes that are encoded as latin-1. Exceptions of the view are raised here."""
    response: HttpResponse = (client or Client()).get(path, QUERY_STRING=query, HTTP_COOKIE=cookies)
    return response


def format_cookie_header(cookies: list[tuple[str, str]]) -> str:
    return "; ".join("=".join(cookie) for cookie in cookies)


def start_sign_in() -> tuple[str, list[tuple[str, str]]]:
    """Start a sign-in; return the authorization URL and the cookies."""
    response = get(REQUEST, "next=/portal/home/")
    assert response.status_code == 302
    return response["Location"], [(name, morsel.value) for name, morsel in response.cookies.items()]


# Input from browsers


@WITH_DATABASE
@given(st.sampled_from(PATHS), QUERIES, COOKIES)
def test_any_query_and_cookies_result_in_an_expected_status(
    op: DemoProvider, path: str, query: str, cookies: list[tuple[str, str]]
) -> None:
    assert get(path, query, format_cookie_header(cookies)).status_code in EXPECTED_STATUSES


@pytest.mark.sqlite
@pytest.mark.django_db(databases=DATABASES, transaction=True)
@WITH_PROVIDER
@given(st.data())
def test_damaged_callback_results_in_an_expected_status_and_no_active_tokens(
    op: DemoProvider, op_cookies: dict[str, str], data: st.DataObject
) -> None:
    url, cookies = start_sign_in()
    callback = op.authorize(url, "amina", cookies=op_cookies)
    pairs = parse_qsl(urlsplit(callback).query)
    other_cookies = start_sign_in()[1]
    kind = data.draw(st.sampled_from(["nothing", "parameter", "repeated parameter", "cookie", "additional cookies"]))
    position = data.draw(st.integers(0, len(pairs) - 1))
    if kind == "parameter":
        pairs[position] = (data.draw(st.sampled_from(["error", pairs[position][0]])), data.draw(ODD_TEXT))
    elif kind == "repeated parameter":
        pairs.insert(0, pairs[position])
    elif kind == "cookie":
        # With the valid name: the value of another sign-in, a truncated value, or any value.
        value = data.draw(st.sampled_from([other_cookies[0][1], cookies[0][1][:-5]]) | COOKIE_VALUES)
        cookies = [(cookies[0][0], value)]
    elif kind == "additional cookies":
        cookies += [*other_cookies, (other_cookies[0][0], cookies[0][1]), *data.draw(COOKIES)]
    query = "&".join(f"{name}={quote(value.encode('utf-8', 'surrogatepass'))}" for name, value in pairs)
    response = get(CALLBACK, query, format_cookie_header(cookies))
    assert response.status_code in EXPECTED_STATUSES
    if kind == "nothing":
        assert response["Location"] == "/portal/home/"
    if kind in ("repeated parameter", "cookie") or response.status_code != 302:
        assert response.status_code in {403, 503}
        assert op.active_tokens == []
    op.state.tokens.clear()


@pytest.mark.sqlite
@PURE
@given(ANY_TEXT | st.text("AQaq09-_=", max_size=70))
def test_no_text_is_an_issued_nonce(text: str) -> None:
    assert is_issued_nonce(text) is False


@pytest.mark.parametrize("path", [REQUEST, CALLBACK])
@pytest.mark.parametrize("key", ['"\\000bcdefghi"', "abcdefghi"], ids=["with NUL", "unknown"])
def test_session_cookie_with_nul_results_in_an_expected_status(op: DemoProvider, path: str, key: str) -> None:
    response = get(path, "state=x", f"sessionid={key}")
    assert response.status_code == {REQUEST: 302, CALLBACK: 403}[path]
    assert response.cookies["sessionid"]["max-age"] == 0


@pytest.mark.parametrize("members", ["unchanged", "additional", "missing"])
def test_sign_in_that_was_started_under_another_release_can_be_restarted(op: DemoProvider, members: str) -> None:
    url, [(name, ciphertext)] = start_sign_in()
    context = ["pending sign-in", name]
    stored = json.loads(keyring.decrypt(ciphertext, context=context))
    if members == "additional":
        stored["of_a_later_release"] = True
    elif members == "missing":
        del stored["nonce"]
    cookie = f"{name}={keyring.encrypt(json.dumps(stored), context=context)}"
    assert get(REQUEST, "", cookie).status_code == 302
    parameters = {"state": dict(parse_qsl(urlsplit(url).query))["state"], "iss": op.issuer, "error": "access_denied"}
    response = get(CALLBACK, urlencode(parameters), cookie)
    assert response.status_code == 403
    reasons = AuditEvent.objects.filter(action="login.refused").values_list("reason", flat=True)
    assert list(reasons) == ["provider_error" if members == "unchanged" else "state_unknown"]


def test_more_parameters_than_django_accepts_are_refused_with_400(op: DemoProvider, settings: Any) -> None:
    query = "&".join(f"a{number}" for number in range(settings.DATA_UPLOAD_MAX_NUMBER_FIELDS - 1))
    assert get(CALLBACK, f"{query}&state=x").status_code == 403
    assert get(CALLBACK, f"{query}&b&state=x").status_code == 400


def fill(item: str, *, prefix: str = "", suffix: str = "") -> str:
    """Repeat item up to 64 KiB."""
    size = 64 * KIB - len(prefix) - len(suffix)
    return prefix + item * (size // len(item)) + suffix


@pytest.mark.sqlite
@pytest.mark.parametrize(
    ("path", "query", "cookies"),
    [
        pytest.param(CALLBACK, fill("x", prefix="state="), "", id="a state"),
        pytest.param(CALLBACK, fill("%ff", prefix="state=x&code="), "", id="escapes"),
        pytest.param(CALLBACK, "&".join(f"a{n}={'%41' * 20}" for n in range(990)), "", id="parameters"),
        pytest.param(CALLBACK, fill("&a=b"), "", id="too many parameters"),
        pytest.param(REQUEST, fill("%e9", prefix="next=/"), "", id="a next page"),
        pytest.param(REQUEST, fill("/", prefix="next="), "", id="slashes"),
        pytest.param(CALLBACK, "state=x", fill("a=b; "), id="cookies"),
        pytest.param(CALLBACK, "state=x", fill("é=é; "), id="odd cookies"),
        pytest.param(CALLBACK, "state=x", fill(";"), id="semicolons"),
        pytest.param(CALLBACK, "state=x", fill("x", prefix="sessionid="), id="a session cookie"),
        pytest.param(CALLBACK, "state=x", fill("x", prefix=f"{STATE_COOKIE_NAMES[0]}="), id="a pending sign-in"),
        pytest.param(
            REQUEST, "", "; ".join(f"phi_oidc_{n:032x}={n:08x}:gAAAA" for n in range(1000)), id="pending sign-ins"
        ),
        pytest.param(
            CALLBACK,
            "state=x",
            fill('\\"', prefix='a="', suffix='"'),
            id="escaped quotes in a cookie",
            marks=pytest.mark.skipif(not IS_UNQUOTING_LINEAR, reason="a Python with CVE-2024-7592"),
        ),
    ],
)
def test_64_kib_of_query_or_cookies_are_processed_within_50_ms(
    op: DemoProvider, path: str, query: str, cookies: str
) -> None:
    client = Client()
    get(REQUEST, client=client)  # warm up metadata, templates and connections
    response = run_within(lambda: get(path, query, cookies, client), SECONDS_FOR_64_KIB)
    assert isinstance(response, HttpResponse)
    assert response.status_code in {*EXPECTED_STATUSES, 400}


# Input from providers


def set_claims(op: DemoProvider, claims: dict[str, Any]) -> None:
    def hook(stage: str, exchange: MutableExchange) -> None:
        if stage == "id_token":
            exchange.claims.update(claims)

    op.mutate = hook


def damage_body(op: DemoProvider, endpoint: str, damage: Callable[[Any], bytes]) -> None:
    def hook(stage: str, exchange: MutableExchange) -> None:
        if stage == endpoint:
            exchange.reply.body, exchange.reply.json = damage(exchange.reply.json), None
            exchange.reply.headers["Content-Type"] = "application/json"

    op.mutate = hook


CLAIM_NAMES = st.sampled_from(
    [
        *("sub", "sid", "acr", "auth_time", "azp", "aud", "at_hash", "exp", "iat", "nbf", "nonce", "amr", "email"),
        *("birthdate", "address", "preferred_username", "phone_number"),
    ]
)


@pytest.mark.django_db(databases=DATABASES, transaction=True)
@WITH_PROVIDER
@given(st.dictionaries(CLAIM_NAMES, ODD_VALUE, min_size=1, max_size=3))
def test_any_claims_result_in_an_expected_status_and_a_refusal_leaves_no_active_tokens(
    op: DemoProvider, op_cookies: dict[str, str], claims: dict[str, Any]
) -> None:
    url, cookies = start_sign_in()
    callback = op.authorize(url, "amina", cookies=op_cookies)
    set_claims(op, claims)
    response = get(CALLBACK, urlsplit(callback).query, format_cookie_header(cookies))
    op.mutate = None
    assert response.status_code in EXPECTED_STATUSES
    assert response.status_code == 302 or op.active_tokens == []
    op.state.tokens.clear()


@WITH_PROVIDER
@given(st.sampled_from(["token", "userinfo"]), st.data())
def test_damaged_token_or_userinfo_response_results_in_an_expected_status(
    op: DemoProvider, op_cookies: dict[str, str], endpoint: str, data: st.DataObject
) -> None:
    url, cookies = start_sign_in()
    callback = op.authorize(url, "amina", cookies=op_cookies)
    valid = {"token": processors.TOKENS, "userinfo": processors.USERINFO}[endpoint]
    body = data.draw(damaged(valid))
    replaces_body = data.draw(st.booleans())
    damage_body(
        op, endpoint, lambda reply: body if replaces_body else json.dumps({**reply, "address": body.hex()}).encode()
    )
    response = get(CALLBACK, urlsplit(callback).query, format_cookie_header(cookies))
    op.mutate = None
    assert response.status_code in (EXPECTED_STATUSES if replaces_body else {302})


@pytest.fixture
def op_cookies() -> dict[str, str]:
    """A user's cookies at the provider, so that one login is enough for all examples."""
    return {}
