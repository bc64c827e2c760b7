"""The token endpoint and client authentication. Spec: RFC 6749 4.1.3, 5, 6; RFC 9700 4.14."""

import base64
import json
import threading
from datetime import timedelta

import jwt
import pytest

from django_phi_oidc.testing.mock_provider import compute_half_hash

ALGS = ["PS256", "ES256", "EdDSA", "RS256"]


def decode(op, rp, token, **options):
    keys = jwt.PyJWKSet.from_dict(rp.send("GET", "/jwks").json)
    key = keys[jwt.get_unverified_header(token)["kid"]]
    return jwt.decode(token, key, algorithms=[op.signing_alg], audience=rp.client_id, issuer=op.issuer)


@pytest.mark.parametrize("alg", ALGS)
def test_token_for_a_code_returns_a_valid_id_token(op, rp, alg):
    op.signing_alg = alg
    answer = rp.redeem(rp.callback()["code"])
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json["token_type"] == "Bearer"
    assert answer.json["expires_in"] == 600
    assert op.is_token_active(answer.json["access_token"])
    assert op.is_token_active(answer.json["refresh_token"])
    claims = decode(op, rp, answer.json["id_token"])
    grant = op.last_grant
    assert claims.pop("exp") - claims["iat"] == 600
    assert claims.pop("iat") >= claims["auth_time"]
    assert claims == {
        "iss": op.issuer,
        "sub": op.get_subject("amina", "portal"),
        "aud": "portal",
        "auth_time": int(grant.auth_time.timestamp()),
        "nonce": "the-nonce",
        "acr": "urn:example:loa:2",
        "sid": grant.sid,
        "at_hash": compute_half_hash(answer.json["access_token"], alg=alg),
    }


def test_half_hash_matches_the_example_of_the_specification():
    # OpenID Connect Core 1.0, appendix A.3: the access token and the at_hash of the example response.
    assert compute_half_hash("jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y", alg="RS256") == "77QmUPtjPfzWtF2AnpK9RQ"


def test_id_token_contains_the_claims_of_the_claims_parameter(op, rp):
    claims = json.dumps({"id_token": {"birthdate": None, "sub": None}, "userinfo": {"email": {"essential": True}}})
    claims = decode(op, rp, rp.tokens(claims=claims, scope="openid address")["id_token"])
    assert claims["birthdate"] == "1984-03-09"
    assert not {"email", "address"} & set(claims)


def test_id_token_contains_the_claims_of_the_scope_if_configured(op, rp):
    op.state.scope_claims_in_id_token = True
    claims = decode(op, rp, rp.tokens(scope="openid address")["id_token"])
    assert claims["address"]["locality"] == "Stockholm"


def test_id_token_of_a_heart_provider_has_jti_and_nbf_and_five_minutes(op, rp):
    op.state.heart_claims = True
    first, second = (decode(op, rp, rp.tokens()["id_token"]) for _ in range(2))
    assert first["exp"] - first["iat"] == 300
    assert first["nbf"] == first["iat"]
    assert first["jti"] != second["jti"]
    op.state.heart_claims = False
    assert not {"jti", "nbf"} & set(decode(op, rp, rp.tokens()["id_token"]))


def test_reused_code_revokes_the_tokens_of_its_first_use(op, rp):
    code = rp.callback()["code"]
    first = rp.redeem(code).json
    assert op.is_token_active(first["access_token"])
    again = rp.redeem(code)
    assert (again.status, again.json["error"]) == (400, "invalid_grant")
    assert op.active_tokens == []


INVALID_CODE_FORMS = {
    "other verifier": ({"code_verifier": "b" * 43}, "invalid_grant"),
    "no verifier": ({"code_verifier": None}, "invalid_request"),
    "other redirect": ({"redirect_uri": "https://portal.example/second/?of=two"}, "invalid_grant"),
    "no redirect": ({"redirect_uri": None}, "invalid_request"),
    "unknown code": ({"code": "nonsense-ü"}, "invalid_grant"),
    "no code": ({"code": None}, "invalid_request"),
    "no grant type": ({"grant_type": None}, "invalid_request"),
    "password grant": ({"grant_type": "password"}, "unsupported_grant_type"),
}


@pytest.mark.parametrize(("changes", "error"), INVALID_CODE_FORMS.values(), ids=INVALID_CODE_FORMS)
def test_token_for_a_code_with_an_invalid_parameter_is_refused(op, rp, changes, error):
    answer = rp.redeem(rp.callback()["code"], **changes)
    assert (answer.status, answer.json["error"]) == (400, error)
    assert op.tokens == []


def test_token_for_an_expired_code_is_refused(rp, clock):
    code = rp.callback()["code"]
    clock.ahead += timedelta(seconds=60)
    assert rp.redeem(code).json["error"] == "invalid_grant"


def test_code_of_another_client_is_refused_without_using_it(rp, other_rp):
    code = rp.callback()["code"]
    assert other_rp.redeem(code, redirect_uri=rp.redirect_uri).json["error"] == "invalid_grant"
    assert rp.redeem(code).status == 200


def test_concurrent_requests_for_one_code_succeed_once(op, rp):
    code = rp.callback()["code"]
    barrier = threading.Barrier(8)
    statuses = []

    def redeem():
        barrier.wait()
        statuses.append(rp.redeem(code).status)

    threads = [threading.Thread(target=redeem) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [400] * 7
    assert [request.path for request in op.requests].count("/token") == 8
    assert op.active_tokens == []


def test_refresh_rotates_tokens_and_repeats_no_nonce(op, rp):
    first = rp.tokens()
    second = rp.refresh(first["refresh_token"])
    assert second.status == 200
    assert not op.is_token_active(first["refresh_token"])
    assert op.is_token_active(second.json["access_token"])
    before, after = decode(op, rp, first["id_token"]), decode(op, rp, second.json["id_token"])
    assert "nonce" not in after
    assert all(after[name] == before[name] for name in ("iss", "sub", "aud", "auth_time", "sid"))


def test_reused_refresh_token_revokes_all_tokens_of_its_grant(op, rp):
    first = rp.tokens()
    rp.refresh(first["refresh_token"])
    assert rp.refresh(first["refresh_token"]).json["error"] == "invalid_grant"
    assert op.active_tokens == []


def test_refresh_may_reduce_but_not_extend_the_scope(rp):
    first = rp.tokens(scope="openid email")
    wider = rp.refresh(first["refresh_token"], scope="openid phone")
    assert wider.json["error"] == "invalid_scope"
    assert rp.refresh(first["refresh_token"], scope="openid").json["scope"] == "openid"


def test_refresh_with_a_foreign_expired_or_missing_token_is_refused(rp, other_rp, clock):
    tokens = rp.tokens()
    assert other_rp.refresh(tokens["refresh_token"]).json["error"] == "invalid_grant"
    assert rp.refresh(tokens["access_token"]).json["error"] == "invalid_grant"
    assert rp.refresh("").json["error"] == "invalid_request"
    clock.ahead += timedelta(hours=12)
    assert rp.refresh(tokens["refresh_token"]).json["error"] == "invalid_grant"


def test_client_without_the_refresh_grant_type_gets_no_refresh_token(op, rp):
    op.register_client(op.state.clients["portal"].__class__("portal", rp.secret, [rp.redirect_uri], grant_types=["x"]))
    assert "refresh_token" not in rp.tokens()


def test_access_token_expires(op, rp, clock):
    token = rp.tokens()["access_token"]
    assert op.is_token_active(token)
    clock.ahead += timedelta(seconds=600)
    assert not op.is_token_active(token)


# Client authentication. Spec: RFC 6749 2.3.1


def basic(text):
    return {"Authorization": f"Basic {base64.b64encode(text.encode()).decode()}"}


def test_client_secret_in_the_form_is_accepted(rp):
    form = rp.code_form(rp.callback()["code"], client_id=rp.client_id, client_secret=rp.secret)
    assert rp.send("POST", "/token", form).status == 200


INVALID_HEADERS = {
    "not form-encoded": basic("portal:p:ss w+rd%ü"),
    "other secret": basic("portal:other"),
    "empty secret": basic("portal:"),
    "unknown client": basic("nobody:p%3Ass+w%2Brd%25%C3%BC"),
    "no colon": basic("portal"),
    "not base64": {"Authorization": "Basic §§§".encode("latin-1").decode("latin-1")},
    "bearer": {"Authorization": "Bearer abc"},
    "nothing": {},
}


@pytest.mark.parametrize("headers", INVALID_HEADERS.values(), ids=INVALID_HEADERS)
def test_invalid_client_secret_in_the_header_is_refused(op, rp, headers):
    answer = rp.send("POST", "/token", rp.code_form(rp.callback()["code"]), headers)
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert answer.headers["www-authenticate"].startswith("Basic")
    assert op.tokens == []


def test_client_auth_by_two_methods_or_in_the_url_is_refused(rp):
    code = rp.callback()["code"]
    form = rp.code_form(code, client_secret=rp.secret, client_id=rp.client_id)
    assert rp.send("POST", "/token", form, rp.basic).json["error"] == "invalid_request"
    answer = rp.send("POST", "/token?client_id=portal", rp.code_form(code), rp.basic)
    assert answer.json["error"] == "invalid_request"
    assert rp.redeem(code).status == 200


def test_client_auth_by_an_unregistered_method_is_refused(op, rp):
    only_post = op.state.clients["portal"].__class__(
        "portal", rp.secret, [rp.redirect_uri], token_endpoint_auth_methods=["client_secret_post"]
    )
    op.register_client(only_post)
    form = rp.code_form(rp.callback()["code"])
    assert rp.send("POST", "/token", form, rp.basic).json["error"] == "invalid_client"
    form |= {"client_id": rp.client_id, "client_secret": rp.secret}
    assert rp.send("POST", "/token", form).status == 200


def test_client_auth_with_another_client_id_in_the_form_is_refused(rp):
    form = rp.code_form(rp.callback()["code"])
    assert rp.send("POST", "/token", {**form, "client_id": "lab"}, rp.basic).json["error"] == "invalid_client"
    assert rp.send("POST", "/token", {**form, "client_id": "portal"}, rp.basic).status == 200


def test_token_with_a_repeated_parameter_is_refused(rp):
    code = rp.callback()["code"]
    form = [*rp.code_form(code).items(), ("code", code)]
    assert rp.send("POST", "/token", form, rp.basic).json["error"] == "invalid_request"
    assert rp.redeem(code).status == 200
