"""Client authentication by `private_key_jwt`. Spec: RFC 7523 2.2, 3; OIDC Core 9."""

import itertools
import json
import threading
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from django_phi_oidc.config.signature_algorithms import SIGNATURE_ALGORITHMS
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
    """Register the client with all public keys, and return the signing key."""
    register(op, rp, jwks={"keys": [key.public_jwk() for key in client_keys.values()]})
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
    """Introspect a token with that assertion. Only the client authentication can fail."""
    form = {"token": "x", "client_assertion_type": TYPE, "client_assertion": proof, **more}
    return rp.send("POST", "/introspect", {name: value for name, value in form.items() if value is not None}, headers)


def is_refused(response):
    return (response.status, response.json.get("error")) == (401, "invalid_client")


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


def test_assertion_is_logged_without_its_signature(op, rp, key):
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


def test_assertion_is_accepted_once(op, rp, key):
    token = assertion(op, key)
    assert introspect(rp, token).status == 200
    assert is_refused(introspect(rp, token))
    assert introspect(rp, assertion(op, key)).status == 200


def test_refused_assertion_does_not_use_its_jti(op, rp, key):
    assert is_refused(introspect(rp, assertion(op, key, jti="mine", exp=1)))
    assert introspect(rp, assertion(op, key, jti="mine")).status == 200


def test_concurrent_assertions_are_accepted_once(op, rp, key):
    token = assertion(op, key)
    barrier = threading.Barrier(6)
    statuses = []

    def send():
        barrier.wait()
        statuses.append(introspect(rp, token).status)

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] + [401] * 5


NOW = 1_900_000_000
INVALID_CLAIMS = {
    "no iss": {"iss": None},
    "other iss": {"iss": "lab"},
    "iss a list": {"iss": ["portal"]},
    "unknown client": {"iss": "nobody", "sub": "nobody"},
    "no sub": {"sub": None},
    "other sub": {"sub": "lab"},
    "no aud": {"aud": None},
    "other aud": {"aud": "https://elsewhere.example"},
    "aud with an additional slash": {"aud": "{issuer}/"},
    "aud of the requested endpoint": {"aud": "{issuer}/introspect"},
    "other auds": {"aud": ["https://elsewhere.example", 7, {}]},
    "no exp": {"exp": None},
    "exp now": {"exp": NOW},
    "exp a string": {"exp": "soon"},
    "exp true": {"exp": True},
    "exp not a number": {"exp": float("nan")},
    "exp too far": {"exp": NOW + 601},
    "iat in the future": {"iat": NOW + 11},
    "iat a string": {"iat": "now"},
    "iat true": {"iat": True},
    "nbf in the future": {"nbf": NOW + 11},
    "no jti": {"jti": None},
    "empty jti": {"jti": ""},
    "jti a number": {"jti": 7},
}


@pytest.mark.parametrize("changes", INVALID_CLAIMS.values(), ids=INVALID_CLAIMS)
def test_assertion_with_an_invalid_claim_is_refused(op, rp, key, clock, changes):
    set_clock(clock)
    changes = {name: insert_issuer(op, value) for name, value in changes.items()}
    assert is_refused(introspect(rp, assertion(op, key, now=NOW, **changes)))
    assert introspect(rp, assertion(op, key, now=NOW)).status == 200


VALID_CLAIMS = {
    "token endpoint": {"aud": "{issuer}/token"},
    "one of several": {"aud": ["https://elsewhere.example", "{issuer}"]},
    "latest exp": {"exp": NOW + 600},
    "earliest exp": {"exp": NOW + 1},
    "no iat": {"iat": None},
    "iat slightly in the future": {"iat": NOW + 10},
    "nbf now": {"nbf": NOW},
}


@pytest.mark.parametrize("changes", VALID_CLAIMS.values(), ids=VALID_CLAIMS)
def test_assertion_with_a_valid_edge_case_is_accepted(op, rp, key, clock, changes):
    set_clock(clock)
    changes = {name: insert_issuer(op, value) for name, value in changes.items()}
    assert introspect(rp, assertion(op, key, now=NOW, **changes)).status == 200


def set_clock(clock):
    """Set the provider's clock to NOW."""
    clock.ahead = timedelta(seconds=NOW - clock().timestamp())


def insert_issuer(op, value):
    if isinstance(value, list):
        return [insert_issuer(op, item) for item in value]
    return value.replace("{issuer}", op.issuer) if isinstance(value, str) else value


def test_assertion_audiences_are_configurable(op, rp, key):
    op.state.assertion_audiences = ("issuer",)
    assert is_refused(introspect(rp, assertion(op, key, aud=f"{op.issuer}/token")))
    assert introspect(rp, assertion(op, key)).status == 200
    op.state.assertion_audiences = ("token_endpoint",)
    assert is_refused(introspect(rp, assertion(op, key)))
    assert introspect(rp, assertion(op, key, aud=f"{op.issuer}/token")).status == 200


INVALID_HEADERS = {
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


@pytest.mark.parametrize("header", INVALID_HEADERS.values(), ids=INVALID_HEADERS)
def test_assertion_with_an_invalid_header_is_refused(op, rp, key, header):
    assert is_refused(introspect(rp, assertion(op, key, header=header)))


def test_assertion_with_an_invalid_signature_is_refused(op, rp, key):
    assert is_refused(introspect(rp, corrupt_signature(assertion(op, key))))
    assert is_refused(introspect(rp, assertion(op, create_signing_key("ES256", kid=key.kid))))
    assert introspect(rp, assertion(op, key)).status == 200


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c", "[" * 5000, "ü", "e30.W10."])
def test_assertion_that_is_not_a_jwt_is_refused(rp, key, token):
    assert is_refused(introspect(rp, token))


INVALID_FORMS = {
    "another type": {"client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:saml2-bearer"},
    "no type": {"client_assertion_type": None},
    "another client": {"client_id": "lab"},
}


@pytest.mark.parametrize("more", INVALID_FORMS.values(), ids=INVALID_FORMS)
def test_assertion_in_an_invalid_form_is_refused(op, rp, key, more):
    assert is_refused(introspect(rp, assertion(op, key), **more))
    assert introspect(rp, assertion(op, key), client_id="portal").status == 200


def test_assertion_with_a_secret_is_refused(op, rp, key):
    for headers, more in ((rp.basic, {}), (None, {"client_secret": "s"})):
        response = introspect(rp, assertion(op, key), headers, **more)
        assert (response.status, response.json["error"]) == (400, "invalid_request")


def test_clients_may_only_use_their_registered_method(op, rp, client_keys):
    key = client_keys["ES256"]
    op.register_client(Client("portal", rp.secret, [rp.redirect_uri], jwks={"keys": [key.public_jwk()]}))
    assert is_refused(introspect(rp, assertion(op, key)))
    assert rp.send("POST", "/introspect", {"token": "x"}, rp.basic).status == 200
    register(op, rp, jwks={"keys": [key.public_jwk()]})
    assert introspect(rp, assertion(op, key)).status == 200
    assert rp.send("POST", "/introspect", {"token": "x"}, rp.basic).status == 401


def test_assertion_with_an_unregistered_alg_is_refused(op, rp, client_keys):
    jwks = {"keys": [key.public_jwk() for key in client_keys.values()]}
    register(op, rp, jwks=jwks, token_endpoint_auth_signing_alg="PS256")
    assert is_refused(introspect(rp, assertion(op, client_keys["ES256"])))
    assert introspect(rp, assertion(op, client_keys["PS256"])).status == 200


def test_assertion_with_a_key_for_another_use_is_refused(op, rp, client_keys):
    key = client_keys["PS256"]
    jwk = key.public_jwk()
    for changes in ({"use": "enc"}, {"alg": "RS256"}, {"kty": "EC"}, {"n": 7}, {"n": None}):
        register(op, rp, jwks={"keys": ["not a key", {**jwk, **changes}]})
        assert is_refused(introspect(rp, assertion(op, key))), changes
    register(op, rp, jwks={"keys": [jwk]})
    assert introspect(rp, assertion(op, key)).status == 200


@pytest.fixture
def origin(served):
    """Run an HTTP server for the content of `served`, by path, and return its URL."""

    class Portal(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(302 if self.path == "/moved" else 200)
            self.send_header("Location", "/jwks.json")
            self.send_header("Content-Length", str(len(served[self.path])))
            self.end_headers()
            self.wfile.write(served[self.path])

        def log_message(self, *args):
            """Do not log."""

    with served_by(Portal) as address:
        yield address


@pytest.fixture
def served():
    return {}


def key_set(*keys):
    return json.dumps({"keys": [key.public_jwk() for key in keys]}).encode()


def test_assertion_is_accepted_while_its_key_is_at_the_jwks_uri(op, rp, client_keys, served, origin):
    register(op, rp, jwks_uri=f"{origin}/jwks.json")
    old, new = client_keys["ES256"], client_keys["EdDSA"]
    for keys, signing_key in (([old], old), ([new, old], new), ([new, old], old), ([new], new)):
        served["/jwks.json"] = key_set(*keys)
        assert introspect(rp, assertion(op, signing_key)).status == 200
    assert is_refused(introspect(rp, assertion(op, old)))


def test_assertion_of_a_client_with_an_unreadable_key_set_is_refused(op, rp, client_keys, served, origin):
    key = client_keys["ES256"]
    for garbage in (b"not JSON", b"[]", b'{"keys": 7}', b"[" * 5000, b"\xff"):
        served["/jwks.json"] = garbage
        register(op, rp, jwks_uri=f"{origin}/jwks.json")
        assert is_refused(introspect(rp, assertion(op, key)))
    served["/jwks.json"] = served["/moved"] = key_set(key)
    assert introspect(rp, assertion(op, key)).status == 200
    register(op, rp, jwks_uri=f"{origin}/moved")
    assert is_refused(introspect(rp, assertion(op, key)))
    register(op, rp, jwks_uri="http://127.0.0.1:9/jwks.json")
    assert is_refused(introspect(rp, assertion(op, key)))


def test_assertion_of_a_client_without_keys_is_refused(op, rp, client_keys):
    register(op, rp)
    assert is_refused(introspect(rp, assertion(op, client_keys["ES256"])))


def test_discovery_names_the_method_and_its_algorithms(op, rp):
    metadata = rp.send("GET", "/.well-known/openid-configuration").json
    for endpoint in ("token", "revocation", "introspection"):
        assert "private_key_jwt" in metadata[f"{endpoint}_endpoint_auth_methods_supported"]
        assert metadata[f"{endpoint}_endpoint_auth_signing_alg_values_supported"] == list(SIGNATURE_ALGORITHMS)
