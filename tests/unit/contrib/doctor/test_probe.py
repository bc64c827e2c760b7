"""Probes of live providers: the demo provider, sound and with each defect, and the npm oidc-provider."""

import io
import json
import re
import socket
import ssl
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Action, Origin
from django_phi_oidc.audit.recorder import record
from django_phi_oidc.testing.mock_provider import Client, DemoProvider, Reply, TLSFiles, demo_accounts
from tests.support.audit_outage import audit_database_fails
from tests.support.certified_provider import SECRET, certified_provider
from tests.support.client_keys import create_private_key_pem
from tests.support.http_server import served_by
from tests.support.manual_blocks import block
from tests.support.scripted_server import once, reply, serving
from tests.support.tls import CertificateAuthority, create_certificate_authority, write_client_certificate

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])
SECOND = timedelta(seconds=1)
Findings = list[tuple[str, str, str]]
UNDECLARED = ("warning", "provider", "federation_undeclared")
SOUND = [
    *(
        "discovery",
        "tls",
        "clock",
        "issuer",
        "metadata",
        "algorithms",
        "pairwise",
        "pkce",
        "par",
        "client",
        "revocation",
    ),
    *("logout", "logout", "mix-up", "claims", "assurance", "keys", "client", "lifetimes"),
]
"""The checks, in the order of the report."""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return create_certificate_authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture(scope="module")
def _op(authority: CertificateAuthority) -> Iterator[DemoProvider]:
    certificate = authority.create_server_certificate("127.0.0.1", valid_days=90)
    op = DemoProvider(accounts=demo_accounts(), tls=TLSFiles(certificate, certificate), par="offered")
    with op.running():
        yield op


@pytest.fixture
def op(_op: DemoProvider, authority: CertificateAuthority, settings: Any) -> Iterator[DemoProvider]:
    """The demo provider over TLS, with the portal as its client."""
    _op.register_client(Client("portal", "s3cret", ["https://portal.example/oidc/callback/"]))
    declare(settings, _op.issuer, authority)
    yield _op
    _op.mutate = _op.intercept = None


def declaration(issuer: str, authority: CertificateAuthority, **options: Any) -> dict[str, Any]:
    named = {
        "issuer": issuer,
        "client_id": "portal",
        "client_secret": "s3cret",
        "ca_bundle": authority.certificate_path,
        **options,
    }
    return {name: value for name, value in named.items() if value is not None}


def declare(settings: Any, issuer: str, authority: CertificateAuthority, **options: Any) -> None:
    providers = {"default": declaration(issuer, authority, **options)}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}


def run(*words: str) -> list[str]:
    """Return the printed lines, and the error, if any, as the last one."""
    out = io.StringIO()
    try:
        call_command("phi_oidc", "doctor", *words, stdout=out, skip_checks=True)
    except CommandError as error:
        return [*out.getvalue().splitlines(), f"CommandError: {error}"]
    return out.getvalue().splitlines()


def list_findings() -> Findings:
    lines = [json.loads(line) for line in run("--json") if line.startswith("{")]
    return [(line["level"], line["check"], line["code"]) for line in lines]


def find_problems() -> Findings:
    return [line for line in list_findings() if line[0] != "ok"]


def with_metadata(**members: Any) -> Callable[[str, Any], None]:
    """Change members of the metadata; None removes the member."""

    def change_metadata(endpoint: str, exchange: Any) -> None:
        if endpoint == "discovery":
            exchange.reply.json.update(members)
            for name, value in members.items():
                if value is None:
                    del exchange.reply.json[name]

    return change_metadata


def answering(endpoint: str, **reply: Any) -> Callable[[str, Any], Reply | None]:
    return lambda at, exchange: Reply(**reply) if at == endpoint else None


def test_demo_provider_is_sound(op: DemoProvider) -> None:
    assert list_findings() == [("ok", check, "") for check in SOUND]
    first, *lines, last = run()
    assert first == f"default: {op.issuer}"
    assert lines[1].startswith(
        f"  ok       tls         {op.issuer.removeprefix('https://')}: TLSv1.3, certificate until "
    )
    assert all(line.startswith("  ok       ") for line in lines)
    assert last == "0 failures, 0 warnings."


def test_manual_shows_the_printed_report(authority: CertificateAuthority, settings: Any) -> None:
    certificate = authority.create_server_certificate("127.0.0.1", valid_days=20)
    op = DemoProvider(accounts=demo_accounts(), tls=TLSFiles(certificate, certificate), par="offered")
    op.register_client(Client("portal", "s3cret", ["https://portal.example/oidc/callback/"]))
    op.mutate = with_metadata(code_challenge_methods_supported=None)
    with op.running():
        declare(settings, op.issuer, authority, client_secret="another")
        report = "\n".join(run()).replace(op.issuer.removeprefix("https://"), "op.example")
    command, _, shown = block("doctor", "doctor").strip().partition("\n")
    assert command == "$ python manage.py phi_oidc doctor"
    varying = re.compile(r"\d+ bytes|\d{4}-\d\d-\d\d \(\d+ days\)")
    assert varying.sub("", shown) == varying.sub("", report)


def test_end_of_the_client_certificate_is_reported(
    op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    path = tmp_path / "client.pem"
    for days, finding in ((31, None), (29, ("warning", "client", "client_certificate_expires"))):
        expires_at = clock.now() + timedelta(days=days, hours=1)
        write_client_certificate(path, expires_at=expires_at)
        declare(settings, op.issuer, authority, client_certificate=path)
        assert find_problems() == ([finding] if finding else [])
        text = f"client_certificate: certificate until {expires_at:%Y-%m-%d} ({days} days)"
        assert any(text in line for line in run())
    path.write_text("")
    assert ("failure", "client", "django_phi_oidc.E106") in find_problems()


def test_host_that_requires_the_client_certificate_gets_it(
    op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    context = authority.create_server_context("127.0.0.1")
    context.load_verify_locations(authority.certificate_path)
    context.verify_mode, context.maximum_version = ssl.CERT_REQUIRED, ssl.TLSVersion.TLSv1_2
    path = write_client_certificate(tmp_path / "client.pem", authority=authority)
    with serving(once(reply()), tls=context) as server:
        op.mutate = with_metadata(mtls_endpoint_aliases={"userinfo_endpoint": f"{server.url}userinfo"})
        declare(settings, op.issuer, authority, client_certificate=path)
        lines = [line for line in run() if f"127.0.0.1:{server.port}" in line]
    assert len(lines) == 1
    assert "TLSv1.2, certificate until" in lines[0]


DEFECTS: dict[str, tuple[Any, Findings]] = {
    "another issuer": (with_metadata(issuer="https://op.example"), [("failure", "issuer", "issuer_mismatch")]),
    "no issuer": (with_metadata(issuer=None), [("failure", "issuer", "issuer_mismatch")]),
    "no token endpoint": (with_metadata(token_endpoint=None), [("failure", "metadata", "metadata_invalid")]),
    "an endpoint of the wrong type": (
        with_metadata(userinfo_endpoint=7),
        [("failure", "metadata", "metadata_invalid")],
    ),
    "aliases of the wrong type": (
        with_metadata(mtls_endpoint_aliases=["token_endpoint"]),
        [("failure", "metadata", "metadata_invalid")],
    ),
    "an endpoint without TLS": (
        with_metadata(userinfo_endpoint="http://op.example/userinfo"),
        [("failure", "metadata", "transport_not_https")],
    ),
    "a flag of the wrong type": (
        with_metadata(authorization_response_iss_parameter_supported="yes"),
        [("failure", "metadata", "metadata_invalid")],
    ),
    "no allowed algorithm": (
        with_metadata(id_token_signing_alg_values_supported=["HS256", "none"]),
        [("failure", "algorithms", "alg_unsupported"), ("failure", "keys", "key_not_found")],
    ),
    "public subjects": (
        with_metadata(subject_types_supported=["public"]),
        [("failure", "pairwise", "pairwise_unsupported")],
    ),
    "subject types that are no list": (
        with_metadata(subject_types_supported="pairwise"),
        [("failure", "metadata", "metadata_invalid"), ("failure", "pairwise", "pairwise_unsupported")],
    ),
    "PKCE untold": (with_metadata(code_challenge_methods_supported=None), [("warning", "pkce", "pkce_untold")]),
    "PKCE in plain": (
        with_metadata(code_challenge_methods_supported=["plain"]),
        [("failure", "pkce", "pkce_unsupported")],
    ),
    "no client secret": (
        with_metadata(token_endpoint_auth_methods_supported=["private_key_jwt"]),
        [("failure", "client", "client_auth_unsupported")],
    ),
    "no revocation": (with_metadata(revocation_endpoint=None), [("failure", "revocation", "revocation_unsupported")]),
    "revocation by key alone": (
        with_metadata(revocation_endpoint_auth_methods_supported=["private_key_jwt"]),
        [("failure", "revocation", "client_auth_unsupported")],
    ),
    "no end of session": (with_metadata(end_session_endpoint=None), [("warning", "logout", "end_session_absent")]),
    "no back-channel": (
        with_metadata(backchannel_logout_supported=None),
        [("warning", "logout", "backchannel_absent")],
    ),
    "back-channel without sid": (
        with_metadata(backchannel_logout_session_supported=False),
        [("warning", "logout", "backchannel_without_sid")],
    ),
    "a claim that is not listed": (
        with_metadata(claims_supported=["sub", "auth_time"]),
        [("warning", "claims", "claim_untold")],
    ),
    "a scope that is not listed": (with_metadata(scopes_supported=["openid"]), [("warning", "claims", "claim_untold")]),
    "no metadata": (
        answering("discovery", status=404, json={}),
        [("failure", "discovery", "metadata_invalid"), UNDECLARED],
    ),
    "metadata that is no object": (
        answering("discovery", json=[]),
        [("failure", "discovery", "metadata_invalid"), UNDECLARED],
    ),
    "a redirect": (
        answering("discovery", status=302, headers={"Location": "https://op.example/"}),
        [("failure", "discovery", "transport_redirect")],
    ),
    "no key set": (answering("jwks", status=404), [("failure", "keys", "metadata_invalid")]),
    "keys out of order": (answering("jwks", status=503), [("failure", "keys", "provider_unavailable")]),
    "metadata out of order": (answering("discovery", status=429), [("failure", "discovery", "provider_unavailable")]),
    "an empty key set": (answering("jwks", json={"keys": []}), [("failure", "keys", "key_not_found")]),
    "keys elsewhere": (
        answering("jwks", status=302, headers={"Location": "/"}),
        [("failure", "keys", "transport_redirect")],
    ),
    "revocation out of order": (answering("revocation", status=503), [("warning", "client", "revocation_failed")]),
    "revocation of what is known alone": (
        answering("revocation", status=400, json={"error": "invalid_request"}),
        [("warning", "client", "revocation_failed")],
    ),
    "revocation elsewhere": (
        answering("revocation", status=302, headers={"Location": "/"}),
        [("failure", "client", "transport_redirect")],
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defect_of_a_provider_is_reported(name: str, op: DemoProvider) -> None:
    assert find_problems() == []
    op.mutate, expected = DEFECTS[name]
    assert find_problems() == expected
    failures = sum(level == "failure" for level, *_ in expected)
    last = f"{failures} failures, {len(expected) - failures} warnings."
    lines = run()
    assert lines[-1] == (f"CommandError: {last}" if failures else last)
    for level, check, code in expected:
        (at,) = [n for n, line in enumerate(lines) if line.startswith(f"  {level:<8} {check:<11} ") and code in line]
        assert lines[at].endswith(f" [{code}]")
        assert lines[at + 1].startswith(" " * 23 + "A") or lines[at + 1].strip(), "the remedy"


def test_introspection_is_checked_if_declared(op: DemoProvider, settings: Any) -> None:
    assert "api" not in [check for _, check, _ in list_findings()]
    for method, absent in (("introspection", ("failure", "api", "introspection_failed")), ("jwt", None)):
        op.mutate = None
        api = {"default": {"audience": "https://portal.example/api", "method": method}}
        settings.PHI_OIDC = {**settings.PHI_OIDC, "API": api}
        assert [line for line in list_findings() if line[1] == "api"] == ([("ok", "api", "")] if absent else [])
        op.mutate = with_metadata(introspection_endpoint=None)
        assert [line for line in list_findings() if line[1] == "api"] == ([absent] if absent else [])


OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], Findings]] = {
    "public subjects": (
        {"subject_type": "public"},
        {},
        [("warning", "pairwise", "django_phi_oidc.W001")],
    ),
    "requests never pushed": ({"par": "never"}, {}, [("warning", "par", "django_phi_oidc.W013")]),
    "pushing required": (
        {"par": "require"},
        {"pushed_authorization_request_endpoint": None},
        [("failure", "par", "par_unsupported")],
    ),
    "pushing demanded": (
        {"par": "never"},
        {"require_pushed_authorization_requests": True},
        [("failure", "par", "par_unsupported")],
    ),
    "revocation if possible": (
        {"revocation": "best_effort"},
        {"revocation_endpoint": None},
        [("warning", "revocation", "django_phi_oidc.W002")],
    ),
    "claims one by one": (
        {"claims_request": "parameter"},
        {"claims_parameter_supported": False},
        [("warning", "claims", "claims_parameter_unsupported")],
    ),
    "an unknown acr": ({"acr_values": ["platinum"]}, {}, [("warning", "assurance", "acr_insufficient")]),
    "algorithms of which one has no key": (
        {"id_token_signed_response_alg": ["RS256", "ES256"]},
        {},
        [],
    ),
    "a wrong secret": ({"client_secret": "another"}, {}, [("failure", "client", "invalid_client")]),
    "an unknown client": ({"client_id": "unknown"}, {}, [("failure", "client", "invalid_client")]),
    "an unsupported assertion algorithm": (
        {
            "token_endpoint_auth_method": "private_key_jwt",
            "client_secret": None,
            "client_keys": create_private_key_pem("RSA"),
        },
        {"token_endpoint_auth_signing_alg_values_supported": ["ES256"]},
        [("failure", "client", "client_auth_unsupported"), ("failure", "client", "invalid_client")],
    ),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_declaration_that_does_not_fit_the_provider_is_reported(
    name: str, op: DemoProvider, authority: CertificateAuthority, settings: Any
) -> None:
    options, members, expected = OPTIONS[name]
    declare(settings, op.issuer, authority, **options)
    op.mutate = with_metadata(**members)
    assert find_problems() == expected


def test_missing_response_issuer_is_reported_with_several_providers(
    op: DemoProvider, authority: CertificateAuthority, settings: Any
) -> None:
    op.mutate = with_metadata(authorization_response_iss_parameter_supported=None)
    assert find_problems() == []
    one = declaration(op.issuer, authority)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"one": one, "two": {**one, "par": "never"}}}
    lines = [json.loads(line) for line in run("--json")]
    assert [(line["provider"], line["code"]) for line in lines if line["level"] != "ok"] == [
        *(("one", "iss_missing"), ("two", "django_phi_oidc.W013"), ("two", "iss_missing")),
    ]
    assert {json.loads(line)["provider"] for line in run("two", "--json")} == {"two"}
    assert run("three") == ["CommandError: There is no provider three. Did you mean one or two?"]


# TLS


def test_certificates_of_all_hosts_are_checked(
    op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    soon, other = (
        authority.create_server_certificate("localhost", valid_days=20),
        create_certificate_authority(tmp_path, "other"),
    )
    for certificate, expected in (
        (soon, ("warning", "tls", "certificate_expires")),
        (authority.create_server_certificate("localhost", valid_days=45), ("ok", "tls", "")),
        (authority.create_server_certificate("localhost", expired=True), ("failure", "tls", "transport_tls")),
        (authority.create_server_certificate("elsewhere.example"), ("failure", "tls", "transport_tls")),
        (other.create_server_certificate("localhost"), ("failure", "tls", "transport_tls")),
    ):
        with listening(certificate) as port:
            op.mutate = with_metadata(userinfo_endpoint=f"https://localhost:{port}/userinfo")
            assert [line for line in list_findings() if line[1] == "tls"] == [("ok", "tls", ""), expected], certificate
            assert [line for line in find_problems() if line[1] != "tls"] == []


class listening:  # noqa: N801 -- reads as what it does
    """A server that only completes TLS handshakes."""

    def __init__(self, certificate: Path) -> None:
        self.op = DemoProvider(tls=TLSFiles(certificate, certificate), host="127.0.0.1")

    def __enter__(self) -> int:
        self.op.start()
        return self.op.port

    def __exit__(self, *fault: object) -> None:
        self.op.stop()


def test_unverifiable_certificate_is_a_failure(op: DemoProvider, settings: Any, tmp_path: Path) -> None:
    declare(settings, op.issuer, create_certificate_authority(tmp_path, "other"))
    assert list_findings() == [("failure", "discovery", "transport_tls")]


def test_unreachable_provider_is_a_failure(op: DemoProvider, authority: CertificateAuthority, settings: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        declare(settings, f"https://127.0.0.1:{taken.getsockname()[1]}", authority)
        assert list_findings() == [("failure", "discovery", "transport_unreachable")]


def test_unreachable_host_of_the_keys_is_a_failure(op: DemoProvider) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        op.mutate = with_metadata(jwks_uri=f"https://127.0.0.1:{taken.getsockname()[1]}/jwks")
        assert find_problems() == [
            ("failure", "tls", "transport_unreachable"),
            ("failure", "keys", "transport_unreachable"),
        ]


def test_http_on_loopback_is_a_warning(settings: Any, authority: CertificateAuthority) -> None:
    op = DemoProvider([Client("portal", "s3cret", ["https://portal.example/"])], demo_accounts())
    with op.running():
        declare(settings, op.issuer, authority, allow_loopback_http=True, ca_bundle=None)
        assert find_problems() == [("warning", "tls", "transport_not_https")]
        declare(settings, op.issuer, authority, ca_bundle=None)
        assert find_problems() == [("failure", "discovery", "transport_not_https")]


def test_clock_is_compared_with_the_provider(op: DemoProvider) -> None:
    real = clock.now
    with clock.override_clock(lambda: clock._get_system_time() + 20 * SECOND):
        assert find_problems() == [("warning", "clock", "iat_invalid")]
    with clock.override_clock(lambda: clock._get_system_time() - 60 * SECOND):
        assert find_problems() == [("failure", "clock", "iat_invalid")]
    assert real is clock.now
    assert find_problems() == []


@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_recent_alerts_about_lifetimes_are_reported(op: DemoProvider) -> None:
    now = clock.now()
    for provider, rule, at in (
        ("another", "access_token_lifetime", now),
        ("default", "sealing_lag", now),
        ("default", "access_token_lifetime", now - timedelta(days=31)),
    ):
        record(Action.ALERT_RAISED, origin=Origin(), now=at, provider=provider, detail={"rule": rule})
    assert find_problems() == []
    record(Action.ALERT_RAISED, origin=Origin(), now=now, provider="default", detail={"rule": "access_token_lifetime"})
    assert find_problems() == [("warning", "lifetimes", "access_token_lifetime")]
    with audit_database_fails():
        assert find_problems() == []


def test_terminal_escapes_of_a_provider_are_not_printed(op: DemoProvider) -> None:
    op.mutate = with_metadata(
        issuer="\x1b[2J", subject_types_supported=["\x1b[31m"], code_challenge_methods_supported=["\u202e"]
    )
    assert all(line.isascii() and line.isprintable() for line in run())


# The npm oidc-provider


@pytest.mark.node
def test_certified_provider_is_sound(node_path: str, authority: CertificateAuthority, settings: Any) -> None:
    certificate = authority.create_server_certificate("127.0.0.1", "localhost", valid_days=90)
    with certified_provider(node_path, certificate=certificate, ca_bundle=authority.certificate_path) as certified:
        registered = {
            "client_id": "portal",
            "client_secret": SECRET,
            "redirect_uris": ["https://portal.example/oidc/callback/"],
            "subject_type": "pairwise",
            "id_token_signed_response_alg": "PS256",
        }
        certified.configure(registered)
        options = {"client_secret": SECRET, "id_token_signed_response_alg": ["PS256"]}
        declare(settings, certified.issuer, authority, **options)
        assert find_problems() == []
        assert [check for _, check, _ in list_findings() if check != "dpop"] == SOUND
        declare(settings, certified.issuer, authority, **{**options, "client_secret": "another"})
        assert find_problems() == [("failure", "client", "invalid_client")]


class EntityConfigurationHandler(BaseHTTPRequestHandler):
    """A member of a federation, without metadata of OpenID Connect Discovery."""

    media_type = "application/entity-statement+jwt"

    def do_GET(self) -> None:
        is_found = self.path == "/.well-known/openid-federation"
        self.send_response(200 if is_found else 404)
        self.send_header("Content-Type", self.media_type if is_found else "text/plain")
        self.send_header("Content-Length", "5")
        self.end_headers()
        self.wfile.write(b"a.b.c")

    def log_message(self, *args: Any) -> None:
        pass


class OtherDocumentHandler(EntityConfigurationHandler):
    media_type = "text/html"


@pytest.mark.parametrize(
    ("handler", "expected"),
    [
        (EntityConfigurationHandler, [UNDECLARED]),
        (OtherDocumentHandler, []),
    ],
)
def test_entity_configuration_in_place_of_metadata_is_a_warning_to_declare_the_federation(
    handler: type[BaseHTTPRequestHandler],
    expected: Findings,
    authority: CertificateAuthority,
    settings: Any,
) -> None:
    with served_by(handler) as url:
        declare(settings, url, authority, allow_loopback_http=True)
        problems = [line for line in find_problems() if line[1] not in ("tls", "clock")]
        assert problems == [("failure", "discovery", "metadata_invalid"), *expected]
