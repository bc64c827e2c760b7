"""A pending sign-in is an encrypted cookie that can be decrypted only under its own name."""

from datetime import timedelta
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_phi_oidc import errors
from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.login.state_cookie import (
    AuthorizationState,
    consume_state,
    create_nonce,
    is_issued_nonce,
    store_state,
)
from django_phi_oidc.replay.cache import delete_expired
from tests.support.error_codes import raises
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def pending(**changes: Any) -> AuthorizationState:
    fields = {
        "provider": "default",
        "nonce": "a-nonce",
        "code_verifier": "a-verifier",
        "redirect_uri": "https://testserver/oidc/callback/",
        "next_url": "/portal/",
        "started_timestamp": clock.now().timestamp(),
    }
    return AuthorizationState(**{**fields, **changes})


def build_request(*, secure: bool = True, cookies: dict[str, str] | None = None) -> HttpRequest:
    request = RequestFactory().get("/oidc/callback/", secure=secure)
    request.COOKIES = cookies or {}
    return request


def store(state: str, *, secure: bool = True, **changes: Any) -> HttpResponse:
    response = HttpResponse()
    store_state(response, build_request(secure=secure), state, pending(**changes))
    return response


def cookies_of(response: HttpResponse) -> dict[str, str]:
    return {name: morsel.value for name, morsel in response.cookies.items()}


@pytest.mark.parametrize(("secure", "prefix"), [(True, "__Host-phi_oidc_"), (False, "phi_oidc_")])
def test_state_cookie_is_encrypted_http_only_and_lax(secure: bool, prefix: str) -> None:
    ((name, morsel),) = store("a-state", secure=secure).cookies.items()
    assert name.startswith(prefix)
    assert "a-state" not in name
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Lax", "/")
    assert (bool(morsel["secure"]), morsel["max-age"], morsel["domain"]) == (secure, 600, "")
    for secret in ("a-nonce", "a-verifier", "/portal/"):
        assert secret not in morsel.value


def test_state_is_consumed_once() -> None:
    request = build_request(cookies=cookies_of(store("a-state")))
    assert consume_state(request, "a-state", now=clock.now()).nonce == "a-nonce"
    with raises(errors.Code.STATE_REPLAYED):
        consume_state(request, "a-state", now=clock.now())


def test_replay_is_refused_until_the_state_expires() -> None:
    request, now = build_request(cookies=cookies_of(store("a-state"))), clock.now()
    assert consume_state(request, "a-state", now=now).nonce == "a-nonce"
    assert delete_expired(now=now + timedelta(minutes=9)) == 0
    with raises(errors.Code.STATE_REPLAYED):
        consume_state(request, "a-state", now=now + timedelta(minutes=9))
    assert delete_expired(now=now + timedelta(minutes=10, seconds=1)) == 1


def test_cookie_of_another_state_is_refused() -> None:
    own, other = cookies_of(store("own")), cookies_of(store("other"))
    moved = dict(zip(own, other.values(), strict=True))
    with raises(errors.Code.STATE_UNKNOWN):
        consume_state(build_request(cookies=moved), "own", now=clock.now())
    assert consume_state(build_request(cookies=own), "own", now=clock.now()).nonce == "a-nonce"


@pytest.mark.parametrize("damage", [lambda text: text[:-4], lambda text: "x" + text, lambda text: "", lambda text: "ü"])
def test_damaged_cookie_is_refused(damage: Any) -> None:
    cookies = cookies_of(store("a-state"))
    damaged = {name: damage(text) for name, text in cookies.items()}
    with raises(errors.Code.STATE_UNKNOWN):
        consume_state(build_request(cookies=damaged), "a-state", now=clock.now())
    assert consume_state(build_request(cookies=cookies), "a-state", now=clock.now()).provider == "default"


@pytest.mark.parametrize(("age", "refused"), [(601, True), (599, False)])
def test_expired_state_is_refused(age: int, refused: bool) -> None:
    request = build_request(cookies=cookies_of(store("a-state")))
    later = clock.now() + timedelta(seconds=age)
    if refused:
        with raises(errors.Code.STATE_EXPIRED):
            consume_state(request, "a-state", now=later)
    else:
        assert consume_state(request, "a-state", now=later).provider == "default"


UNREADABLE = f"__Host-phi_oidc_{'0' * 32}"


def test_surplus_cookies_are_deleted_unreadable_first() -> None:
    cookies: dict[str, str] = {UNREADABLE: "x", "sessionid": "y"}
    for age in range(5):
        cookies |= cookies_of(store(f"state-{age}", started_timestamp=clock.now().timestamp() - age))
    response = HttpResponse()
    store_state(response, build_request(cookies=cookies), "new", pending())
    deleted = {name for name, morsel in response.cookies.items() if morsel["max-age"] == 0}
    oldest = next(iter(cookies_of(store("state-4"))))
    assert deleted == {UNREADABLE, oldest}
    assert all(response.cookies[name]["secure"] for name in deleted), "browsers accept __Host- only with secure"


def test_only_issued_nonces_are_recognized(settings: Any) -> None:
    nonce = create_nonce()
    assert create_nonce() != nonce
    assert is_issued_nonce(nonce)
    newer_first = list(reversed(settings.PHI_OIDC["KEYS"]["encryption"]))
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": newer_first})
    assert is_issued_nonce(nonce), "older keys are accepted"
    for foreign in (randomness.token_b64url(48), nonce[:-4], "", "ü", nonce[:-1] + ("A" if nonce[-1] != "A" else "B")):
        assert not is_issued_nonce(foreign)
