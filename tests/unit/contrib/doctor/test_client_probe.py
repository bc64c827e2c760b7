"""`doctor --portal` finds how the client is registered: at the demo provider, and at the npm oidc-provider."""

import json
from typing import Any

import pytest

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.recorder import record
from django_phi_oidc.contrib.doctor import client_probe
from django_phi_oidc.contrib.doctor.client_probe import (
    AuthorizationAnswer,
    RegistrationAnswers,
    TokenAnswer,
)
from django_phi_oidc.errors import Code, PARError, PushedRequestError
from django_phi_oidc.http.transport import TransportResponse
from django_phi_oidc.testing.mock_provider import Client, DemoProvider, Reply
from tests.support.certified_provider import SECRET, certified_provider
from tests.support.manual_blocks import block
from tests.support.tls import CertificateAuthority
from tests.unit.contrib.doctor.test_diagnostics import DECLARED
from tests.unit.contrib.doctor.test_probe import (  # noqa: F401 -- fixtures
    Findings,
    _op,
    authority,
    declare,
    find_problems,
    op,
    run,
    with_metadata,
)

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
PORTAL, CALLBACK = "https://portal.example", "https://portal.example/oidc/callback/"
PAR_MODES = {"off": "never", "offered": "auto", "required": "require"}


def find_registration_problems() -> tuple[Findings, str]:
    """Return the findings that are not ok, without that of `par: never`, and their texts with the remedies."""
    lines = [json.loads(line) for line in run("--json", "--portal", PORTAL) if line.startswith("{")]
    lines = [line for line in lines if line["level"] != "ok" and not line["code"].startswith("django_phi_oidc.")]
    return (
        [(line["level"], line["check"], line["code"]) for line in lines],
        "\n".join(f"{line['text']} {line['remedy']}" for line in lines),
    )


def list_checks(*words: str) -> list[tuple[str, str]]:
    lines = [json.loads(line) for line in run("--json", *words) if line.startswith("{")]
    return [(line["check"], line["text"]) for line in lines]


@pytest.fixture(params=PAR_MODES)
def par(request: Any, op: DemoProvider, authority: CertificateAuthority, settings: Any) -> Any:
    """The demo provider without pushed requests, with them, and with them only."""
    op.par = request.param
    declare(settings, op.issuer, authority, par=PAR_MODES[request.param])
    yield PAR_MODES[request.param]
    op.par = "offered"


def test_right_registration_is_sound(op: DemoProvider, par: str) -> None:
    grants, sent = dict(op.state.grants), len(op.requests)
    assert find_registration_problems() == ([], "")
    assert op.state.grants == grants
    paths = [request.path for request in op.requests[sent:]]
    assert paths.count("/token") == 1
    assert paths.count("/authorize") == 2, "the second one is with an invented redirect URI"
    assert all("cookie" not in request.headers for request in op.requests[sent:])
    checks = list_checks("--portal", PORTAL)
    assert ("client", "the token endpoint knows the client: it refused an invented code") in checks
    assert ("redirect", f"{CALLBACK} is registered") in checks
    assert [check for check, _ in list_checks() if check == "redirect"] == [], "only with --portal"


def test_unregistered_redirect_uri_is_found(op: DemoProvider, par: str) -> None:
    op.register_client(Client("portal", "s3cret", ["https://portal.example/oidc/callback"]))
    problems, text = find_registration_problems()
    assert problems == [("failure", "redirect", "redirect_uri_unregistered")]
    assert f"Register exactly {CALLBACK} as a redirect URI at the provider" in text


def test_manual_shows_the_printed_report(op: DemoProvider) -> None:
    op.register_client(Client("portal", "s3cret", [CALLBACK]))
    report = run("--portal", "https://your.host")
    command, first, *shown = block("doctor", "registration").splitlines()
    assert command == "$ python manage.py phi_oidc doctor --portal https://your.host"
    assert first == "default: https://op.example"
    at = report.index(shown[0])
    assert report[at : at + len(shown)] == shown


def test_unregistered_host_is_found(op: DemoProvider) -> None:
    assert "redirect_uri_unregistered" in "".join(run("--portal", "http://portal.example"))
    assert "redirect_uri_unregistered" in "".join(run("--portal", "https://www.portal.example"))
    assert "redirect_uri_unregistered" not in "".join(run("--portal", PORTAL))


def test_wrong_client_id_is_found(
    op: DemoProvider,
    par: str,
    authority: CertificateAuthority,
    settings: Any,
) -> None:
    declare(settings, op.issuer, authority, par=par, client_id="portal-of-another-hospital")
    problems, text = find_registration_problems()
    # The revocation endpoint refuses it, too.
    assert problems == [("failure", "client", "invalid_client")] * 2
    assert "client_id must be that of the registration at this issuer" in text


def test_wrong_client_secret_is_found(
    op: DemoProvider,
    par: str,
    authority: CertificateAuthority,
    settings: Any,
) -> None:
    declare(settings, op.issuer, authority, par=par, client_secret="another")
    problems, text = find_registration_problems()
    assert problems == [("failure", "client", "invalid_client")] * 2
    assert "the authorization endpoint knows the client_id" in text
    assert "client_secret or client_keys must be those of the registration" in text
    assert "another" not in text


@pytest.mark.parametrize("endpoint", ["par", "token"])
@pytest.mark.parametrize("error", ["invalid_dpop_proof", "use_dpop_nonce"])
def test_client_that_is_bound_to_dpop_is_found(endpoint: str, error: str, op: DemoProvider) -> None:
    op.intercept = lambda at, exchange: Reply(status=400, json={"error": error}) if at == endpoint else None
    problems, text = find_registration_problems()
    assert problems == [("failure", "dpop", "dpop_required")]
    assert "Declare dpop: require" in text


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
@pytest.mark.parametrize(
    ("fields", "is_found"),
    [
        ({"reason": "token_type_unsupported"}, True),
        ({"reason": "token_error", "detail": {"provider_error": "invalid_dpop_proof"}}, True),
        ({"reason": "token_error", "detail": {"provider_error": "invalid_client"}}, False),
        ({"reason": "token_type_unsupported", "provider": "another"}, False),
    ],
)
def test_recent_sign_ins_with_bound_tokens_are_found(
    fields: dict[str, Any],
    is_found: bool,
    op: DemoProvider,
) -> None:
    fields = {"provider": "default", "outcome": "failure", **fields}
    record(Action.LOGIN_REFUSED, origin=Origin(), now=clock.now(), **fields)
    assert find_problems() == ([("warning", "dpop", "dpop_required")] if is_found else [])


def test_offer_of_dpop_is_compared_with_the_declaration(
    op: DemoProvider, authority: CertificateAuthority, settings: Any
) -> None:
    assert "dpop" not in dict(list_checks())
    op.mutate = with_metadata(dpop_signing_alg_values_supported=["ES256"])
    assert dict(list_checks())["dpop"].startswith("offered, but not used")
    for dpop in ("auto", "require"):
        declare(settings, op.issuer, authority, dpop=dpop)
        assert dict(list_checks())["dpop"] == "tokens are bound to a key of each session"
    op.mutate = with_metadata(dpop_signing_alg_values_supported=["RS256"])
    assert ("failure", "dpop", "dpop_unsupported") in find_problems()


def test_registration_that_requires_dpop_is_sound(
    op: DemoProvider, authority: CertificateAuthority, settings: Any
) -> None:
    op.state.dpop, op.state.dpop_nonce = "required", "n"
    try:
        assert find_registration_problems()[0] == [("failure", "dpop", "dpop_required")]
        declare(settings, op.issuer, authority, dpop="require")
        assert find_registration_problems() == ([], "")
    finally:
        op.state.dpop, op.state.dpop_nonce = "off", ""


ANSWERS: dict[str, tuple[str, Reply, Findings, str]] = {
    "a client without the grant type": (
        *("token", Reply(status=400, json={"error": "unauthorized_client"})),
        *([("failure", "client", "unauthorized_client")], "Allow the client the grant types"),
    ),
    "an error of its own": (
        *("token", Reply(status=403, json={"error": "invalid_code"})),
        *([("warning", "client", "token_error")], "Sign in once"),
    ),
    "a token endpoint out of order": (
        *("token", Reply(status=503)),
        *([("warning", "client", "token_error")], "Sign in once"),
    ),
    "a token endpoint that redirects": (
        *("token", Reply(status=302, headers={"Location": "/"})),
        *([("failure", "client", "transport_redirect")], "Declare the issuer"),
    ),
    "a page instead of a redirect": (
        *("authorize", Reply(body=b"<h1>Sign in</h1>")),
        *([("warning", "redirect", "redirect_uri_unconfirmed")], "then sign in once"),
    ),
    "a redirect to its own page": (
        *("authorize", Reply(status=302, headers={"Location": "/login"})),
        *([("warning", "redirect", "redirect_uri_unconfirmed")], "then sign in once"),
    ),
    "no authorization endpoint": (
        *("authorize", Reply(raw=())),
        *([("warning", "redirect", "redirect_uri_unconfirmed")], "could not be asked (transport_unreachable)"),
    ),
    "a refused scope": (
        *("authorize", Reply(status=302, redirect_to=CALLBACK, query={"error": "invalid_scope"})),
        *([("failure", "request", "provider_error")], "Register the client for the scopes"),
    ),
    "a refused prompt": (
        *("authorize", Reply(status=302, redirect_to=CALLBACK, query={"error": "invalid_request"})),
        *([("warning", "request", "provider_error")], "error invalid_request"),
    ),
    "an error that is not registered": (
        *("authorize", Reply(status=302, redirect_to=CALLBACK, query={"error": "\x1b[2J"})),
        *([("warning", "request", "provider_error")], "error other"),
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answer_of_a_provider_is_reported_with_a_cure(
    name: str,
    op: DemoProvider,
    authority: CertificateAuthority,
    settings: Any,
) -> None:
    declare(settings, op.issuer, authority, par="never")
    endpoint, reply, expected, words = ANSWERS[name]
    op.intercept = lambda at, exchange: reply if at == endpoint else None
    problems, text = find_registration_problems()
    assert problems == expected
    assert words in text
    assert text.isprintable() or "\n" in text


def test_provider_that_accepts_any_redirect_uri_is_found(
    op: DemoProvider,
    authority: CertificateAuthority,
    settings: Any,
) -> None:
    def answer_anywhere(at: str, exchange: Any) -> Reply | None:
        query = {"error": "login_required"}
        return (
            Reply(status=302, redirect_to=exchange.parameters["redirect_uri"], query=query)
            if at == "authorize"
            else None
        )

    declare(settings, op.issuer, authority, par="never")
    op.intercept = answer_anywhere
    problems, text = find_registration_problems()
    assert problems == [("warning", "redirect", "redirect_uri_unchecked")]
    assert "without a wildcard" in text


def test_refused_push_with_a_registered_redirect_uri_is_reported_as_such(op: DemoProvider) -> None:
    op.intercept = lambda at, exchange: Reply(status=400, json={"error": "invalid_scope"}) if at == "par" else None
    problems, text = find_registration_problems()
    assert problems == [("failure", "par", "par_error")]
    assert "Register the client for the scopes" in text


@pytest.mark.parametrize("origin", ["portal.example", "https://portal.example/app", "ftp://portal.example", ""])
def test_portal_that_is_no_origin_is_refused(origin: str, op: DemoProvider) -> None:
    assert run("--portal", origin) == ["CommandError: --portal must be an origin, such as https://your.host."]


@pytest.mark.urls("tests.unit.contrib.doctor.test_client_probe")
def test_portal_without_the_urls_is_refused(op: DemoProvider) -> None:
    (*_, last) = run("--portal", PORTAL)
    assert last == (
        "CommandError: The URLs of the portal have no callback: add"
        ' path("oidc/", include("django_phi_oidc.urls")) to urlpatterns.'
    )


urlpatterns: list[Any] = []


def test_callback_of_one_of_several_providers_contains_its_name(
    op: DemoProvider,
    settings: Any,
) -> None:
    one = settings.PHI_OIDC["PROVIDERS"]["default"]
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"one": one, "two": one}}
    op.register_client(Client("portal", "s3cret", [f"{PORTAL}/oidc/one/callback/"]))
    lines = [json.loads(line) for line in run("--json", "--portal", PORTAL) if line.startswith("{")]
    found = {line["provider"]: line["level"] for line in lines if line["check"] == "redirect"}
    assert found == {"one": "ok", "two": "failure"}


# The pure checks


CALLED_BACK, ELSEWHERE, REFUSED = (
    AuthorizationAnswer(place=place, text="-") for place in ("callback", "elsewhere", "refused")
)


def answers(**changed: Any) -> RegistrationAnswers:
    given: dict[str, Any] = {
        "callback_url": CALLBACK,
        "token": TokenAnswer(verdict="known", text="-"),
        "authorization": CALLED_BACK,
        "invented": REFUSED,
        "par": "unused",
        **changed,
    }
    return RegistrationAnswers(**given)


REJECTED = TokenAnswer(verdict="rejected", text="-", error="invalid_client")
COMBINATIONS: list[tuple[dict[str, Any], list[tuple[str, str]]]] = [
    ({}, [("ok", ""), ("ok", "")]),
    ({"authorization": ELSEWHERE}, [("ok", ""), ("ok", "")]),
    ({"authorization": ELSEWHERE, "invented": ELSEWHERE}, [("ok", ""), ("warning", "redirect_uri_unconfirmed")]),
    ({"invented": CALLED_BACK}, [("ok", ""), ("warning", "redirect_uri_unchecked")]),
    ({"invented": ELSEWHERE}, [("ok", ""), ("ok", "")]),
    ({"authorization": ELSEWHERE, "invented": ELSEWHERE, "par": "accepted"}, [("ok", ""), ("ok", "")]),
    ({"authorization": REFUSED, "par": "accepted"}, [("ok", ""), ("ok", "")]),
    ({"authorization": REFUSED}, [("ok", ""), ("failure", "redirect_uri_unregistered")]),
    ({"token": REJECTED, "authorization": ELSEWHERE, "invented": ELSEWHERE}, [("failure", "invalid_client")]),
    ({"token": REJECTED, "authorization": ELSEWHERE}, [("failure", "invalid_client"), ("ok", "")]),
    ({"token": REJECTED, "invented": CALLED_BACK}, [("failure", "invalid_client")]),
    ({"token": REJECTED, "authorization": REFUSED}, [("failure", "invalid_client")]),
    ({"token": REJECTED}, [("failure", "invalid_client"), ("ok", "")]),
    (
        {"token": REJECTED, "par": PARError(status=401, error="invalid_client")},
        [("failure", "invalid_client"), ("ok", "")],
    ),
    (
        {"authorization": REFUSED, "par": PARError(status=400, error="invalid_request")},
        [("ok", ""), ("failure", "redirect_uri_unregistered")],
    ),
    (
        {"authorization": ELSEWHERE, "invented": ELSEWHERE, "par": PARError(status=400, error="invalid_request")},
        [("ok", ""), ("warning", "redirect_uri_unconfirmed"), ("failure", "par_error")],
    ),
    (
        {"par": PushedRequestError(Code.PAR_RESPONSE_INVALID)},
        [("ok", ""), ("ok", ""), ("failure", "par_response_invalid")],
    ),
]


@pytest.mark.parametrize(("changed", "expected"), COMBINATIONS)
def test_combination_of_answers_has_one_meaning(changed: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    findings = list(client_probe.check_registration(answers(**changed)))
    assert [(finding.level, finding.code) for finding in findings] == expected
    assert all(bool(finding.remedy) is (finding.level != "ok") for finding in findings)


@pytest.mark.parametrize(
    ("status", "error", "verdict"),
    [
        (400, "invalid_grant", "known"),
        (400, "invalid_client", "rejected"),
        (401, "invalid_client", "rejected"),
        (401, "invalid_request", "rejected"),
        (400, "unauthorized_client", "forbidden"),
        (400, "invalid_dpop_proof", "proof_required"),
        (401, "use_dpop_nonce", "proof_required"),
        (400, "invalid_code", "unclear"),
        (500, "server_error", "unclear"),
        (200, "", "unclear"),
    ],
)
def test_answer_to_an_invented_code_shows_whether_the_client_is_known(status: int, error: str, verdict: str) -> None:
    body = json.dumps({"error": error} if error else []).encode()
    response = TransportResponse(status=status, headers={}, body=body)
    assert client_probe.process_token_answer(response, declaration=DECLARED).verdict == verdict


@pytest.mark.parametrize(
    ("status", "location", "place"),
    [
        (302, f"{CALLBACK}?error=login_required", "callback"),
        (303, f"{CALLBACK}#error=login_required", "callback"),
        (302, "https://portal.example.evil.example/oidc/callback/", "elsewhere"),
        (302, f"{CALLBACK}other/?error=x", "elsewhere"),
        (302, f"https://op.example/error?back={CALLBACK}", "elsewhere"),
        (302, "", "elsewhere"),
        (200, CALLBACK, "elsewhere"),
        (400, CALLBACK, "refused"),
        (500, "", "elsewhere"),
    ],
)
def test_place_of_an_answer(status: int, location: str, place: str) -> None:
    response = TransportResponse(status=status, headers={"location": location}, body=b"")
    assert client_probe.process_authorization_answer(response, redirect_uri=CALLBACK).place == place


# The npm oidc-provider


@pytest.mark.node
@pytest.mark.parametrize("par_mode", ["offered", "required", "off"])
def test_registration_at_the_certified_provider_is_checked(
    par_mode: str,
    node_path: str,
    authority: CertificateAuthority,
    settings: Any,
) -> None:
    certificate = authority.create_server_certificate("127.0.0.1", "localhost", valid_days=90)
    registered = {
        "client_id": "portal",
        "client_secret": SECRET,
        "redirect_uris": [CALLBACK],
        "subject_type": "pairwise",
        "id_token_signed_response_alg": "PS256",
    }
    options = {"client_secret": SECRET, "id_token_signed_response_alg": ["PS256"]}
    with certified_provider(node_path, certificate=certificate, ca_bundle=authority.certificate_path) as certified:
        certified.configure(registered, par=par_mode)
        declare(settings, certified.issuer, authority, **options)
        assert find_registration_problems() == ([], "")
        declare(settings, certified.issuer, authority, **{**options, "client_secret": "another"})
        problems, text = find_registration_problems()
        assert problems == [("failure", "client", "invalid_client")] * 2
        assert "the authorization endpoint knows the client_id" in text
        declare(settings, certified.issuer, authority, **options, client_id="nobody")
        problems, text = find_registration_problems()
        assert problems == [("failure", "client", "invalid_client")] * 2
        assert "client_id must be that of the registration" in text
        declare(settings, certified.issuer, authority, **options)
        certified.configure({**registered, "redirect_uris": ["https://portal.example/callback"]}, par=par_mode)
        problems, text = find_registration_problems()
        assert problems == [("failure", "redirect", "redirect_uri_unregistered")]
        assert CALLBACK in text
        assert certified.tokens() == []
