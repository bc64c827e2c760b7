"""A pending sign-in is one sealed cookie that opens under its own name alone."""

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

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


def pending(**changes: Any) -> AuthorizationState:
    given = {
        "provider": "default",
        "nonce": "a-nonce",
        "code_verifier": "a-verifier",
        "redirect_uri": "https://testserver/oidc/callback/",
        "next_url": "/portal/",
        "started_timestamp": clock.now().timestamp(),
    }
    return AuthorizationState(**{**given, **changes})


def a_request(*, secure: bool = True, cookies: dict[str, str] | None = None) -> HttpRequest:
    request = RequestFactory().get("/oidc/callback/", secure=secure)
    request.COOKIES = cookies or {}
    return request


def kept(state: str, *, secure: bool = True, **changes: Any) -> HttpResponse:
    response = HttpResponse()
    store_state(response, a_request(secure=secure), state, pending(**changes))
    return response


def cookies_of(response: HttpResponse) -> dict[str, str]:
    return {name: morsel.value for name, morsel in response.cookies.items()}


@pytest.mark.parametrize(("secure", "prefix"), [(True, "__Host-phi_oidc_"), (False, "phi_oidc_")])
def test_keep_sets_a_cookie_that_scripts_and_other_sites_do_not_see(secure: bool, prefix: str) -> None:
    ((name, morsel),) = kept("a-state", secure=secure).cookies.items()
    assert name.startswith(prefix)
    assert "a-state" not in name
    assert (morsel["httponly"], morsel["samesite"], morsel["path"]) == (True, "Lax", "/")
    assert (bool(morsel["secure"]), morsel["max-age"], morsel["domain"]) == (secure, 600, "")
    for secret in ("a-nonce", "a-verifier", "/portal/"):
        assert secret not in morsel.value


def test_take_gives_what_was_kept_once() -> None:
    request = a_request(cookies=cookies_of(kept("a-state")))
    assert consume_state(request, "a-state", now=clock.now()).nonce == "a-nonce"
    with pytest.raises(errors.StateReplayed):
        consume_state(request, "a-state", now=clock.now())


def test_take_again_is_refused_for_as_long_as_the_cookie_would_be_taken() -> None:
    request, now = a_request(cookies=cookies_of(kept("a-state"))), clock.now()
    assert consume_state(request, "a-state", now=now).nonce == "a-nonce"
    assert delete_expired(now=now + timedelta(minutes=9)) == 0
    with pytest.raises(errors.StateReplayed):
        consume_state(request, "a-state", now=now + timedelta(minutes=9))
    assert delete_expired(now=now + timedelta(minutes=10, seconds=1)) == 1


def test_take_of_a_cookie_moved_to_another_state_is_refused() -> None:
    own, other = cookies_of(kept("own")), cookies_of(kept("other"))
    moved = dict(zip(own, other.values(), strict=True))
    with pytest.raises(errors.StateUnknown):
        consume_state(a_request(cookies=moved), "own", now=clock.now())
    assert consume_state(a_request(cookies=own), "own", now=clock.now()).nonce == "a-nonce"


@pytest.mark.parametrize("damage", [lambda text: text[:-4], lambda text: "x" + text, lambda text: "", lambda text: "ü"])
def test_take_of_a_damaged_cookie_is_refused(damage: Any) -> None:
    cookies = cookies_of(kept("a-state"))
    damaged = {name: damage(text) for name, text in cookies.items()}
    with pytest.raises(errors.StateUnknown):
        consume_state(a_request(cookies=damaged), "a-state", now=clock.now())
    assert consume_state(a_request(cookies=cookies), "a-state", now=clock.now()).provider == "default"


@pytest.mark.parametrize(("age", "refused"), [(601, True), (599, False)])
def test_take_after_ten_minutes_is_refused(age: int, refused: bool) -> None:
    request = a_request(cookies=cookies_of(kept("a-state")))
    later = clock.now() + timedelta(seconds=age)
    if refused:
        with pytest.raises(errors.StateExpired):
            consume_state(request, "a-state", now=later)
    else:
        assert consume_state(request, "a-state", now=later).provider == "default"


NONSENSE = f"__Host-phi_oidc_{'0' * 32}"


def test_keep_drops_the_unreadable_first_then_the_oldest() -> None:
    cookies: dict[str, str] = {NONSENSE: "x", "sessionid": "y"}
    for age in range(5):
        cookies |= cookies_of(kept(f"state-{age}", started_timestamp=clock.now().timestamp() - age))
    response = HttpResponse()
    store_state(response, a_request(cookies=cookies), "new", pending())
    dropped = {name for name, morsel in response.cookies.items() if morsel["max-age"] == 0}
    oldest = next(iter(cookies_of(kept("state-4"))))
    assert dropped == {NONSENSE, oldest}
    assert all(response.cookies[name]["secure"] for name in dropped), "a browser keeps __Host- from anything else"


def test_make_nonce_makes_one_that_is_known_again_and_that_nobody_else_makes(settings: Any) -> None:
    nonce = create_nonce()
    assert create_nonce() != nonce
    assert is_issued_nonce(nonce)
    newer_first = list(reversed(settings.PHI_OIDC["ENCRYPTION_KEYS"]))
    settings.PHI_OIDC = {**settings.PHI_OIDC, "ENCRYPTION_KEYS": newer_first}
    assert is_issued_nonce(nonce), "an older key still knows it"
    for foreign in (randomness.token_b64url(48), nonce[:-4], "", "ü", nonce[:-1] + ("A" if nonce[-1] != "A" else "B")):
        assert not is_issued_nonce(foreign)
