"""R3 and R4. Spec: Core 3.1.2, RFC 6749 4.1, RFC 7636, RFC 9207."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.config.providers import ProviderDeclaration
from django_phi_oidc.errors import CallbackError, Code, ProviderError
from django_phi_oidc.oidc.authorization import (
    AuthorizationRequest,
    build_authorization_parameters,
    build_authorization_url,
    compute_code_challenge,
    get_state,
    process_authorization_response,
)
from django_phi_oidc.oidc.metadata import ProviderMetadata
from tests.support.error_codes import raises

OP = "https://op.example"
# RFC 7636 appendix B.
VERIFIER = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
CHALLENGE = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
REQUEST = AuthorizationRequest(
    state="the-state", nonce="the-nonce", code_verifier=VERIFIER, redirect_uri="https://rp.example/callback/?a=b&c"
)
Declare = Callable[..., ProviderDeclaration]


def url_for(metadata: ProviderMetadata, declaration: ProviderDeclaration, **options: Any) -> str:
    parameters = build_authorization_parameters(
        metadata=metadata, declaration=declaration, **{"request": REQUEST, "scope": "openid", **options}
    )
    return build_authorization_url(metadata=metadata, parameters=parameters)


def query_of(url: str) -> dict[str, list[str]]:
    return parse_qs(urlsplit(url).query, keep_blank_values=True, strict_parsing=True)


def test_code_challenge_example_of_rfc_7636_is_its_challenge() -> None:
    assert compute_code_challenge(VERIFIER) == CHALLENGE


def test_build_authorization_url_plain_declaration_sends_the_code_flow_with_pkce(
    metadata: ProviderMetadata, declare: Declare
) -> None:
    url = url_for(metadata, declare(), scope="openid profile")
    assert url.startswith(f"{OP}/authorize?")
    assert "&redirect_uri=https%3A%2F%2Frp.example%2Fcallback%2F%3Fa%3Db%26c&scope=openid%20profile&" in url
    assert query_of(url) == {
        "response_type": ["code"],
        "client_id": ["portal"],
        "redirect_uri": [REQUEST.redirect_uri],
        "scope": ["openid profile"],
        "state": ["the-state"],
        "nonce": ["the-nonce"],
        "code_challenge": [CHALLENGE],
        "code_challenge_method": ["S256"],
    }


def test_build_authorization_url_declared_options_are_sent(metadata: ProviderMetadata, declare: Declare) -> None:
    declaration = declare(
        acr_values=("urn:a", "urn:b"),
        acr_accepted=("urn:c",),
        vtr=("P9.Cp.Cd", "P9.Cm"),
        vtm="https://op.example/mark",
        amr_required=("mfa",),
        resource="https://api.example/fhir?tenant=7",
        max_age=0,
        authorization_parameters=(("prompt", "login"), ("ui_locales", "de fr"), ("login_hint", "@clinic.example")),
    )
    claims = {"userinfo": {"birthdate": {"essential": True}, "name": None}}
    query = query_of(url_for(metadata, declaration, claims=claims))
    sent = {name: query[name] for name in ("acr_values", "max_age", "prompt", "ui_locales", "login_hint")}
    assert sent == {
        "acr_values": ["urn:a urn:b"],
        "max_age": ["0"],
        "prompt": ["login"],
        "ui_locales": ["de fr"],
        "login_hint": ["@clinic.example"],
    }
    assert (query["vtr"], query["resource"]) == (['["P9.Cp.Cd","P9.Cm"]'], ["https://api.example/fhir?tenant=7"])
    assert not {"acr_accepted", "vtm", "amr", "amr_required"} & query.keys(), "verified on return only"
    assert query["claims"] == ['{"userinfo":{"birthdate":{"essential":true},"name":null}}']


@pytest.mark.parametrize(
    ("scope", "prompt", "supported", "sent"),
    [
        pytest.param("openid offline_access", "", (), ["consent"], id="requested"),
        pytest.param("openid offline_access", "", ("login", "consent"), ["consent"], id="supported"),
        pytest.param("openid offline_access", "", ("login",), None, id="not supported"),
        pytest.param("openid offline_access", "login", (), ["login"], id="another declared"),
        pytest.param("openid", "", (), None, id="no offline access"),
        pytest.param("openid offline_access.read", "", (), None, id="another scope"),
    ],
)
def test_authorization_parameters_offline_access_asks_for_consent(
    metadata: ProviderMetadata,
    declare: Declare,
    scope: str,
    prompt: str,
    supported: tuple[str, ...],
    sent: list[str] | None,
) -> None:
    changed = replace(metadata, prompt_values_supported=supported)
    assert (
        query_of(url_for(changed, declare(authorization_parameters=(("prompt", prompt),)), scope=scope)).get("prompt")
        == sent
    )


@pytest.mark.parametrize(
    ("scope", "prompt", "sent"),
    [
        pytest.param("openid", "", "login", id="alone"),
        pytest.param("openid", "login", "login", id="declared too"),
        pytest.param("openid", "none", "login", id="next to none"),
        pytest.param("openid", "consent select_account", "consent select_account login", id="next to others"),
        pytest.param("openid offline_access", "", "consent login", id="next to consent to offline access"),
    ],
)
def test_authorization_parameters_login_prompt_comes_first(
    metadata: ProviderMetadata, declare: Declare, scope: str, prompt: str, sent: str
) -> None:
    request = replace(REQUEST, prompts_login=True)
    assert query_of(
        url_for(metadata, declare(authorization_parameters=(("prompt", prompt),)), scope=scope, request=request)
    )["prompt"] == [sent]


@pytest.mark.parametrize(
    ("endpoint", "start"),
    [
        (f"{OP}/authorize", f"{OP}/authorize?response_type="),
        (f"{OP}/authorize?", f"{OP}/authorize?response_type="),
        (f"{OP}/authorize?tenant=a%20b", f"{OP}/authorize?tenant=a%20b&response_type="),
        (f"{OP}/authorize?tenant=a&", f"{OP}/authorize?tenant=a&response_type="),
    ],
)
def test_build_authorization_url_query_of_the_endpoint_is_kept(
    metadata: ProviderMetadata, declare: Declare, endpoint: str, start: str
) -> None:
    changed = replace(metadata, authorization_endpoint=endpoint)
    url = url_for(changed, declare())
    assert url.startswith(start)


def test_build_authorization_url_contains_no_secret_or_verifier(metadata: ProviderMetadata, declare: Declare) -> None:
    url = url_for(metadata, declare(client_secret="topsecret"))
    assert "topsecret" not in url
    assert VERIFIER not in url


def test_authorization_request_repr_shows_nothing() -> None:
    assert repr(REQUEST) == "AuthorizationRequest(…)"


STATE_ROWS = [
    pytest.param(Code.STATE_MISSING, {"state": ["s"]}, {}, id="state_missing: absent"),
    pytest.param(Code.STATE_MISSING, {"state": ["s"]}, {"state": [""]}, id="state_missing: empty"),
    pytest.param(Code.STATE_MISSING, {"state": ["s"]}, {"state": []}, id="state_missing: no value"),
    pytest.param(Code.STATE_UNKNOWN, {"state": ["s"]}, {"state": ["ſ"]}, id="state_unknown: not ASCII"),
    pytest.param(Code.STATE_UNKNOWN, {"state": ["s"]}, {"state": ["\ud800"]}, id="state_unknown: lone surrogate"),
    *[
        pytest.param(
            Code.PARAMETER_REPEATED,
            {"state": ["s"], name: ["s"]},
            {"state": ["s"], name: ["s", "s"]},
            id=f"parameter_repeated: {name}",
        )
        for name in ("state", "code", "iss", "error")
    ],
]


@pytest.mark.parametrize(("error", "accepted", "refused"), STATE_ROWS)
def test_get_state_one_fault_is_refused(
    error: Code, accepted: dict[str, list[str]], refused: dict[str, list[str]]
) -> None:
    assert get_state(accepted) == "s"
    with raises(error) as caught:
        get_state(refused)
    assert caught.value.code is error


CODE = {"code": ["c"]}
ERROR = {"error": ["access_denied"]}
RESPONSE_ROWS = [
    # error, provider advertises iss, accepted, refused
    pytest.param(Code.PARAMETER_REPEATED, False, CODE, {"code": ["c", "c"]}, id="parameter_repeated: code"),
    pytest.param(Code.PARAMETER_REPEATED, False, CODE, {**CODE, "state": ["s", "s"]}, id="parameter_repeated: state"),
    pytest.param(
        Code.PARAMETER_REPEATED, False, {**CODE, "iss": [OP]}, {**CODE, "iss": [OP, OP]}, id="parameter_repeated: iss"
    ),
    pytest.param(Code.PARAMETER_REPEATED, False, CODE, {"error": ["a", "b"]}, id="parameter_repeated: error"),
    pytest.param(
        Code.ISS_MISMATCH, True, {**CODE, "iss": [OP]}, {**CODE, "iss": ["https://evil.example"]}, id="iss_mismatch"
    ),
    pytest.param(
        Code.ISS_MISMATCH, False, {**CODE, "iss": [OP]}, {**CODE, "iss": [OP + "/"]}, id="iss_mismatch: a slash more"
    ),
    pytest.param(Code.ISS_MISMATCH, False, CODE, {**CODE, "iss": [""]}, id="iss_mismatch: empty"),
    pytest.param(
        Code.ISS_MISMATCH, False, {**CODE, "iss": [OP]}, {**ERROR, "iss": ["x"]}, id="iss_mismatch: before the error"
    ),
    pytest.param(Code.ISS_MISSING, True, {**CODE, "iss": [OP]}, CODE, id="iss_missing"),
    pytest.param(Code.ISS_MISSING, True, {**CODE, "iss": [OP]}, ERROR, id="iss_missing: before the error"),
    pytest.param(Code.PROVIDER_ERROR, False, CODE, ERROR, id="provider_error"),
    pytest.param(Code.PROVIDER_ERROR, False, CODE, {**CODE, **ERROR}, id="provider_error: next to a code"),
    pytest.param(
        Code.PROVIDER_ERROR, True, {**CODE, "iss": [OP]}, {**ERROR, "iss": [OP]}, id="provider_error: with iss"
    ),
    pytest.param(Code.CODE_MISSING, False, CODE, {}, id="code_missing: absent"),
    pytest.param(Code.CODE_MISSING, False, CODE, {"code": [""]}, id="code_missing: empty"),
    pytest.param(Code.CODE_MISSING, False, CODE, {"code": [], "error": [""]}, id="code_missing: empty error"),
    pytest.param(Code.CODE_MISSING, False, CODE, {"code": ["c\n"]}, id="code_missing: control character"),
    pytest.param(Code.CODE_MISSING, False, CODE, {"code": ["ç"]}, id="code_missing: not ASCII"),
    pytest.param(Code.CODE_MISSING, False, CODE, {"code": ["\ud800"]}, id="code_missing: lone surrogate"),
]


def test_response_names_the_issuer_of_the_metadata(metadata: ProviderMetadata) -> None:
    """RFC 9207 2.4: the issuer of the server that the request was sent to, also if ID Tokens name another one."""
    server = "https://server.example"
    changed = replace(metadata, metadata_issuer=server)
    assert process_authorization_response({**CODE, "iss": [server]}, metadata=changed) == "c"
    for issuer, other in ((OP, changed), (server, metadata)):
        with raises(Code.ISS_MISMATCH):
            process_authorization_response({**CODE, "iss": [issuer]}, metadata=other)


@pytest.mark.parametrize(("error", "advertised", "accepted", "refused"), RESPONSE_ROWS)
def test_process_authorization_response_one_fault_is_refused(
    metadata: ProviderMetadata,
    error: Code,
    advertised: bool,
    accepted: dict[str, list[str]],
    refused: dict[str, list[str]],
) -> None:
    changed = replace(metadata, authorization_response_iss_parameter_supported=advertised)
    assert process_authorization_response(accepted, metadata=changed) == "c"
    with raises(error) as caught:
        process_authorization_response(refused, metadata=changed)
    assert caught.value.code is error


def test_process_authorization_response_every_code_of_r4_has_a_row() -> None:
    tabled = {row.values[0] for row in (*STATE_ROWS, *RESPONSE_ROWS)}
    of_the_keeper_of_states = {"state_replayed", "state_expired"}
    assert {code for code in Code if code.rule == "R4"} - of_the_keeper_of_states == tabled


@pytest.mark.parametrize(
    ("sent", "expected"),
    [
        ("access_denied", "access_denied"),
        ("login_required", "login_required"),
        ("interaction_required", "interaction_required"),
        ("temporarily_unavailable", "temporarily_unavailable"),
        ("unmet_authentication_requirements", "unmet_authentication_requirements"),
        ("Access_Denied", "other"),
        ("sub=248289761001", "other"),
        ("<script>", "other"),
        ("a" * 10_000, "other"),
    ],
)
def test_process_authorization_response_unregistered_error_becomes_other(
    metadata: ProviderMetadata, sent: str, expected: str
) -> None:
    parameters = {"error": [sent], "error_description": ["Jane Doe, born 1970"]}
    with raises(ProviderError) as caught:
        process_authorization_response(parameters, metadata=metadata)
    assert caught.value.error == expected
    assert "Jane" not in f"{caught.value!r} {vars(caught.value)}"


@given(
    st.dictionaries(
        st.sampled_from(["code", "state", "iss", "error", "x"]),
        st.lists(st.text(alphabet=st.characters(exclude_categories=())) | st.just(OP), max_size=2),
    ),
    st.booleans(),
)
def test_process_authorization_response_any_input_gives_a_code_or_a_callback_error(
    metadata: ProviderMetadata, parameters: dict[str, Any], advertised: bool
) -> None:
    changed = replace(metadata, authorization_response_iss_parameter_supported=advertised)
    for process in (
        lambda: process_authorization_response(parameters, metadata=changed),
        lambda: get_state(parameters),
    ):
        try:
            result: object = process()
        except CallbackError as error:
            result = error
        assert isinstance(result, str | CallbackError)
