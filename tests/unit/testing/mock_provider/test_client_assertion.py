"""Clients that prove themselves by their key. Spec: RFC 7523 2.2, 3; OIDC Core 9."""

import itertools
import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from django_phi_oidc.testing.mock_provider import (
    Client,
    corrupt_signature,
    create_signing_key,
    create_signing_keys,
    sign_jwt,
)
from tests.support.http_server import served_by

TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
ALGS = ["PS256", "ES256", "EdDSA", "RS256"]
_jtis = (f"jti-{number}" for number in itertools.count())


@pytest.fixture(scope="module")
def client_keys():
    return create_signing_keys()


@pytest.fixture
def key(op, rp, client_keys):
    """Register the client with its public keys alone, and return the one that it signs with."""
    register(op, rp, jwks={"keys": [one.public_jwk() for one in client_keys.values()]})
    return client_keys["ES256"]


def register(op, rp, **more):
    op.register_client(Client("portal", "", [rp.redirect_uri], token_endpoint_auth_methods=["private_key_jwt"], **more))


def assertion(op, key, *, header=None, now=None, **changes):
    now = now or int(op.state.clock().timestamp())
    claims = {
        "iss": "portal",
        "sub": "portal",
        "aud": op.issuer,
        "jti": next(_jtis),
        "iat": now,
        "exp": now + 60,
        **changes,
    }
    claims = {name: value for name, value in claims.items() if value is not None}
    headers = {"alg": key.alg, "kid": key.kid, **(header or {})}
    return sign_jwt({name: value for name, value in headers.items() if value is not None}, claims, key)


def introspect(rp, proof, headers=None, **more):
    """Ask with that assertion: authentication is all that this endpoint can refuse here."""
    form = {"token": "x", "client_assertion_type": TYPE, "client_assertion": proof, **more}
    return rp.send("POST", "/introspect", {name: value for name, value in form.items() if value is not None}, headers)


def refused(answer):
    return (answer.status, answer.json.get("error")) == (401, "invalid_client")


@pytest.mark.parametrize("alg", ALGS)
def test_assertion_signed_with_each_algorithm_is_accepted(op, rp, key, client_keys, alg):
    code = rp.callback()["code"]
    form = rp.code_form(code, client_assertion_type=TYPE, client_assertion=assertion(op, client_keys[alg]))
    assert rp.send("POST", "/token", form).status == 200


def test_assertion_is_accepted_at_every_back_channel_endpoint(op, rp, key):
    op.par = "offered"

    def proof():
        return {"client_assertion_type": TYPE, "client_assertion": assertion(op, key)}

    pushed = rp.send("POST", "/par", {**rp.parameters(), **proof()})
    assert pushed.status == 201
    assert not [name for name in next(iter(op.state.pushed_requests.values())).parameters if "assertion" in name]
    op.authorize(rp.pushed_url(pushed.json["request_uri"]), "amina")
    tokens = rp.send("POST", "/token", {**rp.code_form(op.last_grant.code), **proof()}).json
    assert introspect(rp, assertion(op, key), token=tokens["access_token"]).json["active"] is True
    assert rp.send("POST", "/revoke", {"token": tokens["refresh_token"], **proof()}).status == 200
    assert op.active_tokens == []


def test_assertion_stands_in_the_log_without_its_signature(op, rp, key):
    token = assertion(op, key)
    introspect(rp, token)
    logged = op.requests[-1]
    assert (logged.auth_method, logged.authorization) == ("private_key_jwt", "")
    assert logged.assertion["kid"] == key.kid
    assert logged.assertion["alg"] == "ES256"
    assert logged.assertion["aud"] == op.issuer
    assert logged.assertion["jti"].startswith("jti-")
    assert "client_assertion" not in logged.parameters
    assert token.rpartition(".")[2] not in json.dumps([dict(logged.assertion), dict(logged.parameters)])
    introspect(rp, "nonsense")
    assert op.requests[-1].assertion == {}


def test_assertion_counts_once(op, rp, key):
    token = assertion(op, key)
    assert introspect(rp, token).status == 200
    assert refused(introspect(rp, token))
    assert introspect(rp, assertion(op, key)).status == 200


def test_assertion_that_is_refused_spends_no_jti(op, rp, key):
    assert refused(introspect(rp, assertion(op, key, jti="mine", exp=1)))
    assert introspect(rp, assertion(op, key, jti="mine")).status == 200


def test_assertion_from_many_at_once_counts_once(op, rp, key):
    token = assertion(op, key)
    barrier = threading.Barrier(6)
    statuses = []

    def ask():
        barrier.wait()
        statuses.append(introspect(rp, token).status)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [401] * 5


NOW = 1_900_000_000
WRONG_CLAIMS = {
    "no iss": {"iss": None},
    "other iss": {"iss": "lab"},
    "iss a list": {"iss": ["portal"]},
    "unknown client": {"iss": "nobody", "sub": "nobody"},
    "no sub": {"sub": None},
    "other sub": {"sub": "lab"},
    "no aud": {"aud": None},
    "other aud": {"aud": "https://elsewhere.example"},
    "aud with a slash more": {"aud": "{issuer}/"},
    "aud of the endpoint asked": {"aud": "{issuer}/introspect"},
    "other auds": {"aud": ["https://elsewhere.example", 7, {}]},
    "no exp": {"exp": None},
    "exp now": {"exp": NOW},
    "exp of words": {"exp": "soon"},
    "exp true": {"exp": True},
    "exp not a number": {"exp": float("nan")},
    "exp too far": {"exp": NOW + 601},
    "iat ahead": {"iat": NOW + 11},
    "iat of words": {"iat": "now"},
    "iat true": {"iat": True},
    "nbf ahead": {"nbf": NOW + 11},
    "no jti": {"jti": None},
    "empty jti": {"jti": ""},
    "jti a number": {"jti": 7},
}


@pytest.mark.parametrize("changes", WRONG_CLAIMS.values(), ids=WRONG_CLAIMS)
def test_assertion_with_one_claim_wrong_is_refused(op, rp, key, clock, changes):
    stop(clock)
    changes = {name: of_issuer(op, value) for name, value in changes.items()}
    assert refused(introspect(rp, assertion(op, key, now=NOW, **changes)))
    assert introspect(rp, assertion(op, key, now=NOW)).status == 200


RIGHT_CLAIMS = {
    "token endpoint": {"aud": "{issuer}/token"},
    "one of several": {"aud": ["https://elsewhere.example", "{issuer}"]},
    "exp at the end": {"exp": NOW + 600},
    "exp at the last moment": {"exp": NOW + 1},
    "no iat": {"iat": None},
    "iat a little ahead": {"iat": NOW + 10},
    "nbf come": {"nbf": NOW},
}


@pytest.mark.parametrize("changes", RIGHT_CLAIMS.values(), ids=RIGHT_CLAIMS)
def test_assertion_at_the_edge_of_what_is_right_is_accepted(op, rp, key, clock, changes):
    stop(clock)
    changes = {name: of_issuer(op, value) for name, value in changes.items()}
    assert introspect(rp, assertion(op, key, now=NOW, **changes)).status == 200


def stop(clock):
    """Let the provider's clock stand at NOW, but for the time that the test takes."""
    clock.ahead = timedelta(seconds=NOW - clock().timestamp())


def of_issuer(op, value):
    if isinstance(value, list):
        return [of_issuer(op, one) for one in value]
    return value.replace("{issuer}", op.issuer) if isinstance(value, str) else value


def test_assertion_audiences_are_those_that_the_provider_is_set_to(op, rp, key):
    op.state.assertion_audiences = ("issuer",)
    assert refused(introspect(rp, assertion(op, key, aud=f"{op.issuer}/token")))
    assert introspect(rp, assertion(op, key)).status == 200
    op.state.assertion_audiences = ("token_endpoint",)
    assert refused(introspect(rp, assertion(op, key)))
    assert introspect(rp, assertion(op, key, aud=f"{op.issuer}/token")).status == 200


WRONG_HEADERS = {
    "no kid": {"kid": None},
    "unknown kid": {"kid": "another"},
    "kid a number": {"kid": 7},
    "alg none": {"alg": "none"},
    "alg HS256": {"alg": "HS256"},
    "alg of another key": {"alg": "RS256"},
    "alg a list": {"alg": ["ES256"]},
    "no alg": {"alg": None},
    "crit": {"crit": ["exp"], "exp": 1},
}


@pytest.mark.parametrize("header", WRONG_HEADERS.values(), ids=WRONG_HEADERS)
def test_assertion_with_one_thing_wrong_in_its_header_is_refused(op, rp, key, header):
    assert refused(introspect(rp, assertion(op, key, header=header)))


def test_assertion_with_another_signature_is_refused(op, rp, key):
    assert refused(introspect(rp, corrupt_signature(assertion(op, key))))
    assert refused(introspect(rp, assertion(op, create_signing_key("ES256", kid=key.kid))))
    assert introspect(rp, assertion(op, key)).status == 200


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "[" * 5000, "ü", "e30.W10."])
def test_assertion_that_is_no_jwt_is_refused(rp, key, token):
    assert refused(introspect(rp, token))


FORMS = {
    "another type": {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
    "no type": {"client_assertion_type": None},
    "another client": {"client_id": "lab"},
}


@pytest.mark.parametrize("more", FORMS.values(), ids=FORMS)
def test_assertion_beside_something_else_in_the_form_is_refused(op, rp, key, more):
    assert refused(introspect(rp, assertion(op, key), **more))
    assert introspect(rp, assertion(op, key), client_id="portal").status == 200


def test_assertion_beside_a_secret_is_two_methods(op, rp, key):
    for headers, more in ((rp.basic, {}), (None, {"client_secret": "s"})):
        answer = introspect(rp, assertion(op, key), headers, **more)
        assert (answer.status, answer.json["error"]) == (400, "invalid_request")


def test_assertion_of_a_client_with_another_method_is_refused_and_so_is_the_reverse(op, rp, client_keys):
    key = client_keys["ES256"]
    op.register_client(Client("portal", rp.secret, [rp.redirect_uri], jwks={"keys": [key.public_jwk()]}))
    assert refused(introspect(rp, assertion(op, key)))
    assert rp.send("POST", "/introspect", {"token": "x"}, rp.basic).status == 200
    register(op, rp, jwks={"keys": [key.public_jwk()]})
    assert introspect(rp, assertion(op, key)).status == 200
    assert rp.send("POST", "/introspect", {"token": "x"}, rp.basic).status == 401


def test_assertion_with_another_than_the_registered_alg_is_refused(op, rp, client_keys):
    jwks = {"keys": [one.public_jwk() for one in client_keys.values()]}
    register(op, rp, jwks=jwks, token_endpoint_auth_signing_alg="PS256")
    assert refused(introspect(rp, assertion(op, client_keys["ES256"])))
    assert introspect(rp, assertion(op, client_keys["PS256"])).status == 200


def test_assertion_by_a_key_for_something_else_is_refused(op, rp, client_keys):
    key = client_keys["PS256"]
    jwk = key.public_jwk()
    for changes in ({"use": "enc"}, {"alg": "RS256"}, {"kty": "EC"}, {"n": 7}, {"n": None}):
        register(op, rp, jwks={"keys": ["no key", {**jwk, **changes}]})
        assert refused(introspect(rp, assertion(op, key))), changes
    register(op, rp, jwks={"keys": [jwk]})
    assert introspect(rp, assertion(op, key)).status == 200


@pytest.fixture
def origin(served):
    """Return the address of a client that is there and serves what `served` holds by path."""

    class Portal(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", "/jwks.json")
            self.send_header("Content-Length", str(len(served[self.path])))
            self.end_headers()
            self.wfile.write(served[self.path])

        def log_message(self, *args):
            """Say nothing."""

    with served_by(Portal) as address:
        yield address


@pytest.fixture
def served():
    return {}


def key_set(*keys):
    return json.dumps({"keys": [one.public_jwk() for one in keys]}).encode()


def test_assertion_by_a_key_of_the_jwks_uri_counts_as_long_as_the_key_stands_there(op, rp, client_keys, served, origin):
    register(op, rp, jwks_uri=f"{origin}/jwks.json")
    old, new = client_keys["ES256"], client_keys["EdDSA"]
    for keys, good in (([old], old), ([new, old], new), ([new, old], old), ([new], new)):
        served["/jwks.json"] = key_set(*keys)
        assert introspect(rp, assertion(op, good)).status == 200
    assert refused(introspect(rp, assertion(op, old)))


def test_assertion_of_a_client_whose_key_set_can_not_be_read_is_refused(op, rp, client_keys, served, origin):
    key = client_keys["ES256"]
    for garbage in (b"not JSON", b"[]", b'{"keys": 7}', b"[" * 5000, b"\xff"):
        served["/jwks.json"] = garbage
        register(op, rp, jwks_uri=f"{origin}/jwks.json")
        assert refused(introspect(rp, assertion(op, key)))
    served["/jwks.json"] = served["/moved"] = key_set(key)
    assert introspect(rp, assertion(op, key)).status == 200
    register(op, rp, jwks_uri=f"{origin}/moved")
    assert refused(introspect(rp, assertion(op, key)))
    register(op, rp, jwks_uri="http://127.0.0.1:9/jwks.json")
    assert refused(introspect(rp, assertion(op, key)))


def test_assertion_of_a_client_without_keys_is_refused(op, rp, client_keys):
    register(op, rp)
    assert refused(introspect(rp, assertion(op, client_keys["ES256"])))


def test_discovery_names_the_method_and_its_algorithms(op, rp):
    metadata = rp.send("GET", "/.well-known/openid-configuration").json
    for endpoint in ("token", "revocation", "introspection"):
        assert "private_key_jwt" in metadata[f"{endpoint}_endpoint_auth_methods_supported"]
        assert metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] == ALGS
