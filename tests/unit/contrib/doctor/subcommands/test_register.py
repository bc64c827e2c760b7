"""`manage.py phi_oidc register` with the npm oidc-provider and with a misbehaving provider."""

import json
import re
import stat
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from typing import Any

import jwt
import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc.testing.attack.federation_cases import build_federation_options
from django_phi_oidc.testing.mock_provider import DemoProvider, MutableExchange, Reply, TLSFiles, demo_accounts
from tests.support.certified_provider import CertifiedProvider, certified_provider
from tests.support.client_keys import create_private_key_pem
from tests.support.scripted_server import Peer, reply, serving
from tests.support.tls import (
    CertificateAuthority,
    create_certificate_authority,
    create_certificate_pem,
    write_client_certificate,
)

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(databases=["default", "phi_audit"])]
TOKEN = "initial-access-token"
PORTAL = "https://your.host"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> CertificateAuthority:
    return create_certificate_authority(tmp_path_factory.mktemp("authority"), "trusted")


@pytest.fixture(scope="module")
def certified(node_path_of_module: str, authority: CertificateAuthority) -> Iterator[CertifiedProvider]:
    certificate = authority.create_server_certificate("127.0.0.1", "localhost")
    with certified_provider(
        node_path_of_module, certificate=certificate, ca_bundle=authority.certificate_path
    ) as provider:
        provider.configure(initial_access_token=TOKEN)
        yield provider


@pytest.fixture(scope="module")
def node_path_of_module() -> str:
    from tests.support.external_tools import PARTS  # noqa: PLC0415 -- only if the marker selected the test

    return PARTS["node"]().where


@pytest.fixture(scope="module")
def op(authority: CertificateAuthority) -> Iterator[DemoProvider]:
    certificate = authority.create_server_certificate("127.0.0.1")
    provider = DemoProvider(accounts=demo_accounts(), tls=TLSFiles(certificate, certificate))
    with provider.running():
        yield provider


@pytest.fixture
def token_file(tmp_path: Path) -> Path:
    path = tmp_path / "token"
    path.write_text(f"{TOKEN}\n")
    return path


def declare(settings: Any, issuer: str, authority: CertificateAuthority, **options: Any) -> None:
    provider = {
        "issuer": issuer,
        "client_id": "none yet",
        "client_secret": "none yet",
        "ca_bundle": authority.certificate_path,
    }
    settings.PHI_OIDC = {
        **settings.PHI_OIDC,
        "PROVIDERS": {"default": {name: value for name, value in (provider | options).items() if value is not None}},
    }


def run(output: Path, *words: str) -> list[str]:
    """Return the printed lines, and the error as the last line."""
    out = StringIO()
    arguments = ["phi_oidc", "register", "default", "--portal", PORTAL, "--output", str(output), *words]
    try:
        call_command(*arguments, stdout=out, stderr=out, skip_checks=True)
    except CommandError as error:
        return [*out.getvalue().splitlines(), f"CommandError: {error}"]
    return out.getvalue().splitlines()


@pytest.mark.node
def test_certified_provider_registers_the_portal_as_declared(
    certified: CertifiedProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path, token_file: Path
) -> None:
    declare(settings, certified.issuer, authority, max_age=600)
    lines = run(tmp_path / "client.json", "--initial-access-token", str(token_file))
    assert all(line.startswith("  ok ") for line in lines[:-1]), lines
    answer = json.loads((tmp_path / "client.json").read_text())
    assert stat.S_IMODE((tmp_path / "client.json").stat().st_mode) == 0o600
    assert answer["redirect_uris"] == ["https://your.host/oidc/callback/"]
    assert answer["subject_type"] == "pairwise"
    assert answer["require_auth_time"] is True
    assert answer["backchannel_logout_uri"] == "https://your.host/oidc/backchannel-logout/"
    secrets = [answer["client_secret"], answer["registration_access_token"], TOKEN]
    assert not any(secret in line for secret in secrets for line in lines)
    declare(settings, certified.issuer, authority, client_id=answer["client_id"], client_secret=answer["client_secret"])
    out = StringIO()
    call_command("phi_oidc", "doctor", "--json", stdout=out, skip_checks=True)
    known = [json.loads(line) for line in out.getvalue().splitlines() if line.startswith("{")]
    assert ("ok", "client") in [(line["level"], line["check"]) for line in known]
    assert "invalid_client" not in out.getvalue()


@pytest.mark.node
def test_certified_provider_registers_a_client_with_a_key(
    certified: CertifiedProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path, token_file: Path
) -> None:
    keyed = {
        "token_endpoint_auth_method": "private_key_jwt",
        "client_keys": [create_private_key_pem("EC")],
        "client_secret": None,
    }
    declare(settings, certified.issuer, authority, **keyed)
    lines = run(tmp_path / "client.json", "--initial-access-token", str(token_file))
    assert "  ok       registered  jwks_uri: https://your.host/oidc/jwks.json" in lines
    answer = json.loads((tmp_path / "client.json").read_text())
    assert answer["token_endpoint_auth_method"] == "private_key_jwt"
    assert "client_secret" not in answer


@pytest.mark.node
def test_certified_provider_registers_a_client_with_a_certificate(
    certified: CertifiedProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path, token_file: Path
) -> None:
    path = write_client_certificate(tmp_path / "client.pem", authority=authority)
    for method, member in (
        ("tls_client_auth", "tls_client_auth_subject_dn: CN=portal.example"),
        ("self_signed_tls_client_auth", "jwks_uri: https://your.host/oidc/jwks.json"),
    ):
        by_certificate = {"token_endpoint_auth_method": method, "client_certificate": path, "client_secret": None}
        declare(settings, certified.issuer, authority, **by_certificate)
        lines = run(tmp_path / f"{method}.json", "--initial-access-token", str(token_file))
        assert f"  ok       registered  {member}" in lines
        assert "  ok       registered  tls_client_certificate_bound_access_tokens: True" in lines
        answer = json.loads((tmp_path / f"{method}.json").read_text())
        assert (answer["token_endpoint_auth_method"], "client_secret" in answer) == (method, False)


def test_unreadable_certificate_registers_nothing(
    op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    add_registration(op, Reply(status=201, json=REQUESTED))
    by_certificate = {"token_endpoint_auth_method": "tls_client_auth", "client_secret": None}
    declare(settings, op.issuer, authority, client_certificate=tmp_path / "missing.pem", **by_certificate)
    (line,) = run(tmp_path / "client.json")
    assert line.startswith("CommandError: Nothing was registered: client_certificate is no readable PEM file")


UDAP_ARGUMENTS = {
    "--client-name": "Portal",
    "--contact": "mailto:privacy@your.host",
    "--logo": "https://your.host/logo.png",
}


def answer_udap(peer: Peer) -> None:
    """Answer as a provider that registers what the software statement says."""
    issuer = peer.server.url
    metadata = {
        "issuer": issuer,
        "registration_endpoint": f"{issuer}register",
        "id_token_signing_alg_values_supported": ["RS256"],
    }
    while request := peer.read():
        if request.startswith(b"GET "):
            peer.send(reply(json.dumps(metadata).encode(), "Content-Type: application/json"))
        else:
            claims = decode_statement(request)
            peer.send(reply(json.dumps({**claims, "client_id": "new"}).encode(), status="201 Created"))


def decode_statement(request: bytes) -> dict[str, Any]:
    """Return the claims. test_udap.py verifies the signature."""
    body = json.loads(request.partition(b"\r\n\r\n")[2])
    assert body.keys() == {"software_statement", "udap"}
    return dict(jwt.decode(body["software_statement"], options={"verify_signature": False}))


def test_udap_registers_by_a_signed_statement(authority: CertificateAuthority, settings: Any, tmp_path: Path) -> None:
    pem = create_private_key_pem("RSA")
    by_key = {
        "client_secret": None,
        "token_endpoint_auth_method": "private_key_jwt",
        "client_keys": [{"key": pem, "certificate": create_certificate_pem(pem, uris=["https://your.host/app"])}],
        "client_key_header": "x5c",
    }
    arguments = [word for pair in UDAP_ARGUMENTS.items() for word in pair]
    with serving(answer_udap, tls=authority.create_server_context("127.0.0.1")) as server:
        issuer = server.url
        declare(settings, issuer, authority, **by_key)
        (line,) = run(tmp_path / "client.json", "--udap", *arguments)
        assert line == "CommandError: PROVIDERS['default']['udap'] must be True."
        declare(settings, issuer, authority, **by_key, udap=True)
        for missing in UDAP_ARGUMENTS:
            words = [word for name, value in UDAP_ARGUMENTS.items() if name != missing for word in (name, value)]
            assert "--udap requires" in run(tmp_path / "client.json", "--udap", *words)[0]
        assert server.requests == []
        lines = run(tmp_path / "client.json", "--udap", *arguments)
    assert all(line.startswith("  ok ") for line in lines[:-1]), lines
    claims = decode_statement(server.requests[-1])
    assert (claims["iss"], claims["aud"]) == ("https://your.host/app", f"{issuer}register")
    assert claims["redirect_uris"] == ["https://your.host/oidc/callback/"]
    assert claims["contacts"] == ["mailto:privacy@your.host"]


@pytest.mark.node
def test_certified_provider_refuses_a_wrong_initial_access_token(
    certified: CertifiedProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    declare(settings, certified.issuer, authority)
    wrong = tmp_path / "wrong"
    wrong.write_text("another")
    (line,) = run(tmp_path / "client.json", "--initial-access-token", str(wrong))
    assert line.startswith("CommandError: Nothing was registered: The provider did not register the client: invalid_")
    assert not (tmp_path / "client.json").exists()


def add_registration(op: DemoProvider, answer: Reply) -> None:
    """Add a registration endpoint with this response to the demo provider."""

    def tamper(endpoint: str, exchange: MutableExchange) -> Reply | None:
        if endpoint == "discovery":
            exchange.reply.json["registration_endpoint"] = f"{op.issuer}/register"
        return answer if endpoint == "unknown" else None

    op.mutate = tamper


REQUESTED = {
    "redirect_uris": ["https://your.host/oidc/callback/"],
    "subject_type": "pairwise",
    "id_token_signed_response_alg": "PS256",
    "grant_types": ["refresh_token", "authorization_code"],
    "post_logout_redirect_uris": ["https://your.host/oidc/logged-out/"],
    "backchannel_logout_uri": "https://your.host/oidc/backchannel-logout/",
    "backchannel_logout_session_required": True,
    "client_id": "new",
    "client_secret": "new secret",
    "client_secret_expires_at": 0,
}
DIFFERENCES: dict[str, tuple[dict[str, Any], list[str], bool]] = {
    "public subjects": ({"subject_type": "public"}, ["failure subject_type"], False),
    "an additional callback": (
        {"redirect_uris": [*REQUESTED["redirect_uris"], "https://evil.example/"]},
        ["failure redirect_uris"],
        False,
    ),
    "HS256": ({"id_token_signed_response_alg": "HS256"}, ["failure id_token_signed_response_alg"], False),
    "no algorithm": ({"id_token_signed_response_alg": None}, ["failure id_token_signed_response_alg"], False),
    "secret in the body": (
        {"token_endpoint_auth_method": "client_secret_post"},
        ["failure token_endpoint_auth_method"],
        False,
    ),
    "no refresh": ({"grant_types": ["authorization_code"]}, ["warning grant_types"], True),
    "no back-channel": ({"backchannel_logout_uri": None}, ["warning backchannel_logout_uri"], True),
    "an expiring secret": ({"client_secret_expires_at": 4102444800}, ["warning client_secret"], True),
    "as requested": ({}, [], True),
    "a time out of range": ({"client_secret_expires_at": 10**20}, [], True),
    "not a time": ({"client_secret_expires_at": True}, [], True),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differing_members_are_reported(
    name: str, op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    changed, expected, is_good = DIFFERENCES[name]
    answer = {key: value for key, value in (REQUESTED | changed).items() if value is not None}
    add_registration(op, Reply(status=201, json=answer))
    declare(settings, op.issuer, authority)
    lines = run(tmp_path / "client.json")
    differences = re.findall(r"^  (warning|failure) +registered +(\w+)", "\n".join(lines), re.MULTILINE)
    assert [" ".join(difference) for difference in differences] == expected
    assert (
        lines[-1] == "CommandError: The client is registered, but a critical member differs from the declaration."
    ) is not is_good
    assert json.loads((tmp_path / "client.json").read_text()) == answer, "it is registered anyway"
    assert "new secret" not in "\n".join(lines)


REFUSALS: dict[str, tuple[Reply, str]] = {
    "a refused redirect URI": (
        Reply(status=400, json={"error": "invalid_redirect_uri"}),
        "invalid_redirect_uri",
    ),
    "an unregistered error": (Reply(status=400, json={"error": "\x1b[2J"}), "status_400"),
    "no JSON": (Reply(status=201, body=b"<html>"), "status_201"),
    "no client": (Reply(status=201, json={"client_id": ""}), "status_201"),
    "out of order": (Reply(status=500, json=REQUESTED), "status_500"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusal_registers_nothing_and_leaves_no_file(
    name: str, op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    answer, error = REFUSALS[name]
    add_registration(op, answer)
    declare(settings, op.issuer, authority)
    message = f"The provider did not register the client: {error}. [registration_refused]"
    assert run(tmp_path / "client.json") == [f"CommandError: Nothing was registered: {message}"]
    assert not (tmp_path / "client.json").exists()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "no endpoint": ({"registration_endpoint": None}, "registration_unsupported"),
    "an endpoint without TLS": ({"registration_endpoint": "http://op.example/register"}, "transport_not_https"),
    "another issuer": ({"issuer": "https://op.example"}, "issuer_mismatch"),
    "no supported algorithm": ({"id_token_signing_alg_values_supported": ["HS256"]}, "alg_unsupported"),
}


@pytest.mark.parametrize("name", WRONG)
def test_nothing_is_sent_to_a_misconfigured_provider(
    name: str, op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    changed, code = WRONG[name]

    def tamper(endpoint: str, exchange: MutableExchange) -> None:
        if endpoint == "discovery":
            exchange.reply.json.update({"registration_endpoint": f"{op.issuer}/register", **changed})
            for key in [key for key, value in changed.items() if value is None]:
                del exchange.reply.json[key]

    op.mutate = tamper
    op.requests.clear()
    declare(settings, op.issuer, authority)
    (line,) = run(tmp_path / "client.json")
    assert line.startswith("CommandError: Nothing was registered: ")
    assert line.endswith(f"[{code}]")
    assert [request.path for request in op.requests] == ["/.well-known/openid-configuration"]


def test_metadata_of_another_issuer_are_accepted_as_declared(
    op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    add_registration(op, Reply(status=201, json={**REQUESTED, "id_token_signed_response_alg": "RS256"}))
    answer = op.mutate

    def tamper(endpoint: str, exchange: MutableExchange) -> Any:
        if endpoint == "discovery":
            exchange.reply.json |= {"issuer": "https://fhir.example", "id_token_signing_alg_values_supported": []}
        return answer(endpoint, exchange) if answer else None

    op.mutate = tamper
    options: dict[str, Any] = {
        "metadata_url": f"{op.issuer}/.well-known/openid-configuration",
        "metadata_overrides": {"id_token_signing_alg_values_supported": ["RS256"]},
    }
    declare(settings, op.issuer, authority, **options)
    assert run(tmp_path / "client.json")[0].endswith("[issuer_mismatch]")
    declare(settings, op.issuer, authority, **options, metadata_issuer="https://fhir.example")
    assert "CommandError" not in "".join(run(tmp_path / "client.json"))


def test_member_of_a_federation_is_not_registered_at_the_provider(
    op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    op.requests.clear()
    declare(settings, op.issuer, authority, **build_federation_options(op))
    (line,) = run(tmp_path / "client.json")
    assert line.endswith("[registration_unsupported]")
    assert op.requests == []


def test_existing_file_is_kept_and_nothing_is_sent(
    op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    (tmp_path / "client.json").write_text("old")
    declare(settings, op.issuer, authority)
    op.requests.clear()
    (line,) = run(tmp_path / "client.json")
    assert line.endswith("client.json: File exists.")
    assert (tmp_path / "client.json").read_text() == "old"
    assert len(op.requests) == 0


def test_portal_address_must_be_an_origin(
    op: DemoProvider, authority: CertificateAuthority, settings: Any, tmp_path: Path
) -> None:
    declare(settings, op.issuer, authority)
    for origin in ("your.host", "https://your.host/portal/", "ftp://your.host"):
        with pytest.raises(CommandError, match="--portal must be an origin"):
            call_command(
                "phi_oidc", "register", "default", "--portal", origin, "--output", str(tmp_path / "x"), skip_checks=True
            )
    with pytest.raises(CommandError, match="There is no provider unknown"):
        call_command(
            "phi_oidc", "register", "unknown", "--portal", PORTAL, "--output", str(tmp_path / "x"), skip_checks=True
        )


@pytest.mark.node
def test_page_shows_the_output(
    certified: CertifiedProvider,
    authority: CertificateAuthority,
    settings: Any,
    tmp_path: Path,
    token_file: Path,
    monkeypatch: Any,
) -> None:
    page = (Path(__file__).parents[5] / "docs" / "how-to" / "register.md").read_text()
    block = re.search(r"<!-- tested: register -->\n```console\n(.*?)```", page, re.DOTALL)
    assert block
    monkeypatch.chdir(tmp_path)
    declare(settings, certified.issuer, authority)
    assert block[1].splitlines()[1:] == run(Path("client.json"), "--initial-access-token", str(token_file))
