"""`phi_oidc attack` on the example portal: it holds, loosened rules are accepted by choice, broken rules fail."""

import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.testing.attack.suite import Attack, list_attacks
from tests.security.attack.example_project import ROOT, SCIM, Project, create_project, parse_json_lines
from tests.support import databases
from tests.support.encrypted_tokens import ENCRYPTION_KEY_ENTRY
from tests.support.rule_code_catalogue import list_all_codes
from tests.support.tls import write_client_certificate

HOW_TO = (ROOT / "docs/how-to/attack-kit.md").read_text()
SIGN_IN_CODES = {code for code in list_all_codes() if code.rule}
OTHER_CODES = {"logout_token_invalid", "logout_token_replayed", "set_invalid", "break_glass_refused"}
LOOSE_DECLARATION = {
    **{"issuer": "https://clinic.example", "client_id": "portal", "client_secret": "s3cret"},
    **{"subject_type": "public", "revocation": "best_effort", "leeway": 120, "trusted_audiences": ["billing"]},
    **{"allow_auth_time_zero": True, "allow_loopback_http": True, "allow_logout_token_without_exp": True},
    **{"max_access_token_lifetime": 172800, "require_logout_typ": True, "reauthentication": "never"},
}
ACCEPTED_BY_CHOICE = {
    "pairwise_unsupported": "subject_type",
    "sub_not_pairwise": "subject_type",
    "revocation_unsupported": "revocation",
    "transport_not_https": "allow_loopback_http",
    "access_token_lifetime": "max_access_token_lifetime",
    "auth_time_stale (1970)": "allow_auth_time_zero",
    "aud_invalid (additional audience with azp)": "trusted_audiences",
    "logout_token_invalid (no exp)": "allow_logout_token_without_exp",
    "ignored_logout (typ JWT)": "require_logout_typ",
    "shared_computer (after a timeout)": "reauthentication",
    "shared_computer (sign in again)": "reauthentication",
    "auth_time_stale (after a timeout)": "reauthentication",
    **dict.fromkeys(("exp_invalid", "iat_invalid", "iat_invalid (future)", "nbf_invalid", "auth_time_stale"), "leeway"),
    **dict.fromkeys(("logout_token_invalid (iat)", "logout_token_invalid (exp)"), "leeway"),
    "forged_host (Host)": "ALLOWED_HOSTS",
}


@pytest.fixture
def portal(tmp_path: Path) -> Project:
    return create_project(tmp_path / "var")


def format_name(outcome: dict[str, Any]) -> str:
    return f"{outcome['code']} ({outcome['id']})" if outcome["id"] else str(outcome["code"])


def list_attack_databases() -> set[str]:
    """Return the names of PostgreSQL databases that attacks have created."""
    if databases.kind(os.environ) != "postgresql":
        return set()
    with psycopg.connect(databases.given_url(os.environ)) as connection:
        rows = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'attack%'").fetchall()
    return {row[0] for row in rows}


def list_all_attacks() -> list[Attack]:
    declaration = parse_provider("default", {"issuer": "https://op.example", "client_id": "c", "client_secret": "s"})
    return list_attacks(declaration, claim_names=["birthdate"])


def test_every_code_is_attacked() -> None:
    assert {attack.code for attack in list_all_attacks()} >= SIGN_IN_CODES | OTHER_CODES
    names = [attack.name for attack in list_all_attacks()]
    assert len(names) == len(set(names))


def test_example_portal_holds(portal: Project) -> None:
    report = portal.var.parent / "report.xml"
    process = portal.attack("--json", "--junit", str(report), **SCIM)
    outcomes = parse_json_lines(process.stdout)
    assert process.returncode == 0, process.stderr
    others = {format_name(outcome): outcome["detail"] for outcome in outcomes if outcome["result"] != "held"}
    without_account = ("break_glass_refused", "flood (forms of the break-glass account)")
    assert others == dict.fromkeys(without_account, "there is no break-glass account")
    assert {outcome["code"] for outcome in outcomes} >= SIGN_IN_CODES | OTHER_CODES
    assert len(ElementTree.fromstring(report.read_bytes())) == len(outcomes)


@pytest.mark.each_database
def test_attacks_do_not_write_to_the_projects_files_or_databases(portal: Project) -> None:
    before = {path: path.read_bytes() for path in portal.var.rglob("*") if path.is_file()}
    databases_before = list_attack_databases()
    process = portal.attack("--only", "iss_invalid", "--only", "canary")
    assert process.returncode == 0, process.stderr
    assert "8 held, 0 failed" in process.stdout
    assert {path: path.read_bytes() for path in portal.var.rglob("*") if path.is_file()} == before
    assert list_attack_databases() <= databases_before


SETTINGS = """
import json, os
from portal.settings import *
ALLOWED_HOSTS = ["*"]
PHI_OIDC = {**PHI_OIDC, "PROVIDERS": {"clinic": json.loads(os.environ["DECLARATION"])}, "ROLES": {}}
PHI_OIDC["BREAK_GLASS_ACCOUNTS"] = ["glass"]
AUTHENTICATION_BACKENDS += ["django_phi_oidc.contrib.local_accounts.backends.BreakGlassBackend"]
"""
FAULTY = """
from portal.settings import *
AUTHENTICATION_BACKENDS = ["faulty_backends.Lenient"]
"""
BACKENDS = """
from django_phi_oidc.backends import OIDCAuthenticationBackend

class Lenient(OIDCAuthenticationBackend):
    def user_can_authenticate(self, user):
        return True
"""


def with_settings(portal: Project, **files: str) -> dict[str, str]:
    """Write the modules and return the variables that make the first one the settings of the example."""
    for module, text in files.items():
        (portal.var.parent / f"{module}.py").write_text(text)
    path = f"{portal.var.parent}{os.pathsep}{portal.environ['PYTHONPATH']}"
    return {"DJANGO_SETTINGS_MODULE": next(iter(files)), "PYTHONPATH": path}


def test_loosened_rules_are_accepted_by_choice_and_all_others_hold(portal: Project) -> None:
    variables = with_settings(portal, loose=SETTINGS)
    codes = {name.partition(" ")[0] for name in (*ACCEPTED_BY_CHOICE, "break_glass_refused", "flood", "iss_invalid")}
    only = [argument for code in sorted(codes) for argument in ("--only", code)]
    process = portal.attack(
        "--json", "--provider", "clinic", *only, **variables, DECLARATION=json.dumps(LOOSE_DECLARATION)
    )
    outcomes = parse_json_lines(process.stdout)
    others = {format_name(outcome): outcome["detail"] for outcome in outcomes if outcome["result"] != "held"}
    assert others == ACCEPTED_BY_CHOICE, process.stderr
    assert {outcome["code"] for outcome in outcomes} == codes
    assert "exp_invalid (beyond the leeway)" in {format_name(outcome) for outcome in outcomes}, (
        "a loosened rule still has a limit"
    )
    assert {outcome["result"] for outcome in outcomes if format_name(outcome) in ACCEPTED_BY_CHOICE} == {
        "accepted by choice"
    }
    assert process.returncode == 0


def create_certified_declarations(folder: Path) -> list[dict[str, Any]]:
    """Return declarations with certificates and signed requests, which the mock provider does not support."""
    path = write_client_certificate(folder / "client.pem")
    pem = path.read_text()
    plain = {
        "issuer": "https://clinic.example",
        "client_id": "portal",
        "client_keys": [{"key": pem, "certificate": pem}],
    }
    signing = {**plain, "request_object_signing_alg": "ES256", "client_key_header": "x5c"}
    return [
        {**signing, "token_endpoint_auth_method": "tls_client_auth", "client_certificate": str(path)},
        {**signing, "token_endpoint_auth_method": "private_key_jwt"},
        {**signing, "client_secret": "s3cret"},
    ]


def test_portal_with_certificates_is_attacked(portal: Project, tmp_path: Path) -> None:
    variables = with_settings(portal, loose=SETTINGS)
    only = ("--only", "iss_invalid", "--only", "par_error", "--only", "access_token_lifetime")
    for declared in create_certified_declarations(tmp_path):
        process = portal.attack("--json", "--provider", "clinic", *only, **variables, DECLARATION=json.dumps(declared))
        outcomes = parse_json_lines(process.stdout)
        assert {outcome["result"] for outcome in outcomes} == {"held"}, process.stderr
        assert len(outcomes) > 5


def test_project_whose_provider_encrypts_tokens_holds(portal: Project) -> None:
    encrypting = {
        **{"issuer": "https://clinic.example", "client_id": "portal", "client_secret": "s3cret"},
        **{"client_keys": ENCRYPTION_KEY_ENTRY, "id_token_encrypted_response_alg": ["ECDH-ES+A256KW"]},
        **{"userinfo_signed_response_alg": ["RS256"], "userinfo_encrypted_response_alg": ["ECDH-ES"]},
    }
    codes = {
        *("encryption_undeclared", "encryption_missing", "decryption_failed", "token_malformed", "token_replayed"),
        *("iss_invalid", "userinfo_invalid", "logout_token_invalid", "id_token_lifetime", "canary"),
    }
    only = [argument for code in sorted(codes) for argument in ("--only", code)]
    variables = with_settings(portal, encrypting=SETTINGS)
    process = portal.attack("--json", "--provider", "clinic", *only, **variables, DECLARATION=json.dumps(encrypting))
    outcomes = parse_json_lines(process.stdout)
    assert {outcome["code"] for outcome in outcomes} == codes, process.stderr
    assert [outcome for outcome in outcomes if outcome["result"] != "held"] == []
    assert process.returncode == 0


def test_project_with_a_broken_rule_fails(portal: Project) -> None:
    only = ("--only", "user_inactive", "--only", "iss_invalid")
    process = portal.attack(*only, **with_settings(portal, faulty=FAULTY, faulty_backends=BACKENDS))
    assert process.returncode == 1
    assert process.stdout.splitlines() == [
        "  held                iss_invalid",
        "  failed              user_inactive: the account's session is still valid",
    ]
    assert "CommandError: 1 held, 1 failed, 0 accepted by choice, 0 not applicable." in process.stderr
    process = portal.attack(*only)
    assert (process.returncode, process.stdout.splitlines()[-1]) == (
        0,
        "2 held, 0 failed, 0 accepted by choice, 0 not applicable.",
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "iss_invalid", "--only", "nothing"], "There is no attack for nothing."),
        (["--provider", "nobody"], "There is no provider nobody."),
    ],
)
def test_unknown_attack_or_provider_is_refused_before_databases_are_created(arguments: list[str], message: str) -> None:
    with pytest.raises(CommandError, match=message):
        call_command("phi_oidc", "attack", *arguments, skip_checks=True)


def test_howto_shows_the_printed_output(portal: Project) -> None:
    example = re.search(r"<!-- tested: attack -->\n```console\n\$ python (.*?)\n(.*?)```", HOW_TO, re.DOTALL)
    assert example
    process = portal.run(*example[1].split(), OIDC_ALLOW_LOOPBACK_HTTP="1")
    assert (process.returncode, process.stdout) == (0, example[2]), process.stderr


def test_howto_names_each_attack_without_a_rule_code() -> None:
    assert {attack.code for attack in list_all_attacks()} - SIGN_IN_CODES - OTHER_CODES <= set(
        re.findall(r"`(\w+)`", HOW_TO)
    )
    assert "pytest -p django_phi_oidc.testing.pytest_plugin --phi-oidc-attack" in HOW_TO, (
        "as test_pytest_plugin.py runs it"
    )
