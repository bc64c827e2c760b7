"""A pending sign-in is an encrypted cookie that can be decrypted only under its own name."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory

from django_phi_oidc import errors
from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.access.step_up import MAX_RETURN_PATH_LENGTH
from django_phi_oidc.crypto import keyring
from django_phi_oidc.login.reauthentication import COOKIE_NAME
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
from tests.support.retention_key_folder import use_retention_keys

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


FOREIGN_TEXTS = ("20260101-session:A", f"hold-{'0' * 32}:A", "20260101-86400:", "00000000:A", "ü:ü", ":", "\x00:gAAAA")
"""Ciphertexts under retention keys that do not exist, under an unknown key, and malformed ones."""


@pytest.mark.parametrize("text", FOREIGN_TEXTS)
def test_d3_cookie_that_names_a_retention_key_is_an_unknown_state(text: str) -> None:
    cookies = cookies_of(store("a-state"))
    (name,) = cookies
    with raises(errors.Code.STATE_UNKNOWN):
        consume_state(build_request(cookies={name: text}), "a-state", now=clock.now())
    assert consume_state(build_request(cookies=cookies), "a-state", now=clock.now()).provider == "default"


def test_d3_cookie_under_an_existing_retention_key_is_an_unknown_state(settings: Any, tmp_path: Path) -> None:
    use_retention_keys(settings, tmp_path)
    (name, value) = next(iter(cookies_of(store("a-state")).items()))
    plaintext = keyring.decrypt_external(value, context=["pending sign-in", name])
    assert plaintext is not None
    text = keyring.encrypt(plaintext, context=["pending sign-in", name], retention_key_names="20260101-session")
    with raises(errors.Code.STATE_UNKNOWN):
        consume_state(build_request(cookies={name: text}), "a-state", now=clock.now())


@pytest.mark.parametrize("secure", [True, False])
def test_d3_https_reads_and_counts_only_cookies_of_this_host(secure: bool) -> None:
    own, foreign = cookies_of(store("a-state", secure=secure)), cookies_of(store("a-state", secure=not secure))
    with raises(errors.Code.STATE_UNKNOWN):
        consume_state(build_request(secure=secure, cookies=foreign), "a-state", now=clock.now())
    assert consume_state(build_request(secure=secure, cookies=own), "a-state", now=clock.now())
    (prefix,) = {name[: -len("0" * 32)] for name in foreign}
    many = {f"{prefix}{number:032x}": "x" for number in range(20)}
    response = HttpResponse()
    store_state(response, build_request(secure=secure, cookies={**many, **own}), "new", pending())
    assert not [name for name, morsel in response.cookies.items() if morsel["max-age"] == 0]


@pytest.mark.parametrize(
    ("others", "length", "kept"),
    [
        ({}, MAX_RETURN_PATH_LENGTH, 3),
        ({"__Host-phi_oidc_activation": "x" * 1500}, MAX_RETURN_PATH_LENGTH, 2),
        ({}, 320, 4),
        ({f"__Host-{COOKIE_NAME}": "x" * 230}, 320, 3),
    ],
)
def test_d9_all_cookies_together_stay_below_4_kb(others: dict[str, str], length: int, kept: int) -> None:
    long = "/" + "a" * (length - 1)
    browser = dict(others)
    for number in range(7):
        response, started = HttpResponse(), clock.now().timestamp() + number
        fields = {"next_url": long, "redirect_uri": "https://portal.hospital.example/oidc/default/callback/"}
        store_state(
            response, build_request(cookies=browser), f"s{number}", pending(**fields, started_timestamp=started)
        )
        for name, morsel in response.cookies.items():
            if morsel["max-age"] == 0:
                del browser[name]
            else:
                browser[name] = morsel.value
        assert len("; ".join(f"{name}={value}" for name, value in browser.items())) <= 4096
        assert consume_state(build_request(cookies=browser), f"s{number}", now=clock.now()).next_url == long
    assert browser.items() >= others.items()
    assert len(browser) == len(others) + kept, "the newest pending sign-ins, as many as there is room for"


def test_d9_five_short_pending_sign_ins_are_kept() -> None:
    cookies: dict[str, str] = {}
    for number in range(4):
        cookies |= cookies_of(store(f"s{number}"))
    response = HttpResponse()
    store_state(response, build_request(cookies=cookies), "new", pending())
    assert not [name for name, morsel in response.cookies.items() if morsel["max-age"] == 0]
