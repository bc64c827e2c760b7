"""Plain R7. Spec: OIDC Core 5.3."""

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.errors import UserInfoError, UserInfoInvalid, UserInfoSubMismatch
from django_phi_oidc.oidc.metadata import ProviderMetadata
from django_phi_oidc.oidc.transport import Response
from django_phi_oidc.oidc.userinfo import build_userinfo_request, judge_userinfo_response

CLAIMS = {"sub": "x", "birthdate": "1970-01-01"}
Answer = Callable[..., Response]
OK: dict[str, Any] = {"body": CLAIMS}
TABLES: dict[type[UserInfoError], list[tuple[str, dict[str, Any], dict[str, Any]]]] = {
    # name, accepted answer, refused answer
    UserInfoSubMismatch: [
        ("another", OK, {"body": {**CLAIMS, "sub": "y"}}),
        ("longer", OK, {"body": {**CLAIMS, "sub": "xx"}}),
        ("missing", OK, {"body": {"birthdate": "1970-01-01"}}),
        ("a list", OK, {"body": {**CLAIMS, "sub": ["x"]}}),
        ("null", OK, {"body": {**CLAIMS, "sub": None}}),
        ("not ASCII", OK, {"body": {**CLAIMS, "sub": "é"}}),
        ("upper case", OK, {"body": {**CLAIMS, "sub": "X"}}),
    ],
    UserInfoInvalid: [
        *[(f"status {status}", OK, {"body": CLAIMS, "status": status}) for status in (204, 302, 401, 403, 500)],
        ("HTML", OK, {"body": b"<html>"}),
        ("a list", OK, {"body": [CLAIMS]}),
        ("empty", OK, {"body": b""}),
        ("sub twice", OK, {"body": b'{"sub":"y","sub":"x"}'}),
        ("signed", {**OK, "content_type": "application/json;charset=utf-8"}, {**OK, "content_type": "application/jwt"}),
        ("sent as text", OK, {**OK, "content_type": "text/html"}),
        ("sent as nothing", OK, {**OK, "content_type": ""}),
    ],
}
ROWS = [pytest.param(error, *row[1:], id=f"{error.code}: {row[0]}") for error, rows in TABLES.items() for row in rows]


@pytest.mark.parametrize(("error", "accepted", "refused"), ROWS)
def test_judge_userinfo_response_one_thing_wrong_is_refused(
    answer: Answer, error: type[UserInfoError], accepted: dict[str, Any], refused: dict[str, Any]
) -> None:
    assert judge_userinfo_response(answer(**accepted), sub="x") == CLAIMS
    with pytest.raises(error) as caught:
        judge_userinfo_response(answer(**refused), sub="x")
    assert type(caught.value) is error
    assert caught.value.__context__ is None


def test_judge_userinfo_response_every_code_of_r7_has_a_table() -> None:
    assert set(UserInfoError.__subclasses__()) == set(TABLES)


def test_build_userinfo_request_token_stands_in_the_header_alone(metadata: ProviderMetadata) -> None:
    request = build_userinfo_request(metadata=metadata, access_token="at-secret")
    assert (request.method, request.url, request.body) == ("GET", metadata.userinfo_endpoint, None)
    assert request.headers["Authorization"] == "Bearer at-secret"
    assert "secret" not in repr(request)


def test_build_userinfo_request_without_endpoint_is_userinfo_invalid(metadata: ProviderMetadata) -> None:
    with pytest.raises(UserInfoInvalid) as caught:
        build_userinfo_request(metadata=replace(metadata, userinfo_endpoint=""), access_token="at")
    assert caught.value.code == "userinfo_invalid"


@given(
    st.binary() | st.dictionaries(st.sampled_from(["sub", "x"]), st.none() | st.text() | st.floats()).map(json.dumps)
)
def test_judge_userinfo_response_anything_is_judged_or_refused_by_our_own_error(
    answer: Answer, body: bytes | str
) -> None:
    try:
        result: object = judge_userinfo_response(answer(body.encode() if isinstance(body, str) else body), sub="x")
    except UserInfoError as error:
        result = error
    assert isinstance(result, dict | UserInfoError)
