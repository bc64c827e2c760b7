"""`phi_oidc attack` on the example portal: all is held, what it loosens is its choice, what it breaks is found."""

import json
import os
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import psycopg
import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc import errors
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.testing.attack.suite import Attack, list_attacks
from tests.security.attack.example_project import ROOT, Project, objects, project
from tests.support import databases

HOW_TO = (ROOT / "docs/how-to/attack-your-portal.md").read_text()
SIGN_IN = {
    cls.code
    for cls in vars(errors).values()
    if isinstance(cls, type) and issubclass(cls, errors.SignInRefused) and "code" in vars(cls)
} - {errors.SignInRefused.code}
ALSO = {"logout_token_invalid", "logout_token_replayed", "break_glass_refused"}
LOOSE = {
    **{"issuer": "https://clinic.example", "client_id": "portal", "client_secret": "s3cret"},
    **{"subject_type": "public", "revocation": "best_effort", "leeway": 120, "trusted_audiences": ["billing"]},
    **{"allow_auth_time_zero": True, "allow_loopback_http": True, "allow_logout_token_without_exp": True},
    "max_access_token_lifetime": 172800,
}
BY_CHOICE = {
    "pairwise_unsupported": "subject_type",
    "sub_not_pairwise": "subject_type",
    "revocation_unsupported": "revocation",
    "transport_not_https": "allow_loopback_http",
    "access_token_lifetime": "max_access_token_lifetime",
    "auth_time_stale (1970)": "allow_auth_time_zero",
    "aud_invalid (one that others trust)": "trusted_audiences",
    "logout_token_invalid (no exp)": "allow_logout_token_without_exp",
    **dict.fromkeys(("exp_invalid", "iat_invalid", "iat_invalid (future)", "nbf_invalid", "auth_time_stale"), "leeway"),
    **dict.fromkeys(("logout_token_invalid (iat)", "logout_token_invalid (exp)"), "leeway"),
    "forged_host (Host)": "ALLOWED_HOSTS",
}


@pytest.fixture
def portal(tmp_path: Path) -> Project:
    return project(tmp_path / "var")


def name(outcome: dict[str, Any]) -> str:
    return f"{outcome['code']} ({outcome['id']})" if outcome["id"] else str(outcome["code"])


def databases_there() -> set[str]:
    """Return the names of PostgreSQL's databases that an attack has made."""
    if databases.kind(os.environ) != "postgresql":
        return set()
    with psycopg.connect(databases.given_url(os.environ)) as connection:
        found = connection.execute("SELECT datname FROM pg_database WHERE datname LIKE 'attack%'").fetchall()
    return {row[0] for row in found}


def attacks() -> list[Attack]:
    declared = parse_provider("default", {"issuer": "https://op.example", "client_id": "c", "client_secret": "s"})
    return list_attacks(declared, claim_names=["birthdate"])


def test_every_code_is_attacked() -> None:
    assert {attack.code for attack in attacks()} >= SIGN_IN | ALSO
    names = [attack.name for attack in attacks()]
    assert len(names) == len(set(names))


def test_example_holds(portal: Project) -> None:
    report = portal.var.parent / "report.xml"
    ran = portal.attack("--json", "--junit", str(report))
    outcomes = objects(ran.stdout)
    assert ran.returncode == 0, ran.stderr
    others = {name(outcome): outcome["told"] for outcome in outcomes if outcome["result"] != "held"}
    assert others == {"break_glass_refused": "there is no local account"}
    assert {outcome["code"] for outcome in outcomes} >= SIGN_IN | ALSO
    assert len(ElementTree.fromstring(report.read_bytes())) == len(outcomes)


@pytest.mark.each_database
def test_nothing_of_a_projects_own_is_written_to(portal: Project) -> None:
    before = {path: path.read_bytes() for path in portal.var.rglob("*") if path.is_file()}
    made = databases_there()
    ran = portal.attack("--only", "iss_invalid", "--only", "canary")
    assert ran.returncode == 0, ran.stderr
    assert "8 held, 0 failed" in ran.stdout
    assert {path: path.read_bytes() for path in portal.var.rglob("*") if path.is_file()} == before
    assert databases_there() <= made


SETTINGS = """
import json, os
from portal.settings import *
ALLOWED_HOSTS = ["*"]
PHI_OIDC = {**PHI_OIDC, "PROVIDERS": {"clinic": json.loads(os.environ["LOOSE"])}, "ROLES": {}}
PHI_OIDC["BREAK_GLASS_ACCOUNT"] = "glass"
AUTHENTICATION_BACKENDS = [*AUTHENTICATION_BACKENDS, "django_phi_oidc.login.backend.BreakGlassBackend"]
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
    """Write the modules and return the variables by which the example takes the first as its settings."""
    for module, text in files.items():
        (portal.var.parent / f"{module}.py").write_text(text)
    path = f"{portal.var.parent}{os.pathsep}{portal.environ['PYTHONPATH']}"
    return {"DJANGO_SETTINGS_MODULE": next(iter(files)), "PYTHONPATH": path}


def test_what_a_project_loosened_is_accepted_by_choice_and_the_rest_is_held(portal: Project) -> None:
    more = with_settings(portal, loose=SETTINGS)
    codes = {each.partition(" ")[0] for each in (*BY_CHOICE, "break_glass_refused", "iss_invalid")}
    only = [word for code in sorted(codes) for word in ("--only", code)]
    ran = portal.attack("--json", "--provider", "clinic", *only, **more, LOOSE=json.dumps(LOOSE))
    outcomes = objects(ran.stdout)
    others = {name(outcome): outcome["told"] for outcome in outcomes if outcome["result"] != "held"}
    assert others == BY_CHOICE, ran.stderr
    assert {outcome["code"] for outcome in outcomes} == codes
    assert "exp_invalid (beyond the leeway)" in {name(outcome) for outcome in outcomes}, "a choice has its limit"
    assert {outcome["result"] for outcome in outcomes if name(outcome) in BY_CHOICE} == {"accepted by choice"}
    assert ran.returncode == 0


def test_project_that_broke_a_rule_fails(portal: Project) -> None:
    only = ("--only", "user_inactive", "--only", "iss_invalid")
    ran = portal.attack(*only, **with_settings(portal, faulty=FAULTY, faulty_backends=BACKENDS))
    assert ran.returncode == 1
    assert ran.stdout.splitlines() == [
        "  held                iss_invalid",
        "  failed              user_inactive: a session of the account lives",
    ]
    assert "CommandError: 1 held, 1 failed, 0 accepted by choice, 0 not applicable." in ran.stderr
    held = portal.attack(*only)
    assert (held.returncode, held.stdout.splitlines()[-1]) == (
        0,
        "2 held, 0 failed, 0 accepted by choice, 0 not applicable.",
    )


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--only", "iss_invalid", "--only", "nothing"], "There is no attack for nothing."),
        (["--provider", "nobody"], "There is no provider nobody."),
    ],
)
def test_attack_that_there_is_not_is_refused_before_anything_is_made(words: list[str], told: str) -> None:
    with pytest.raises(CommandError, match=told):
        call_command("phi_oidc", "attack", *words, skip_checks=True)


def test_howto_shows_what_is_printed(portal: Project) -> None:
    found = re.search(r"<!-- tested: attack -->\n```console\n\$ python (.*?)\n(.*?)```", HOW_TO, re.DOTALL)
    assert found
    ran = portal.run(*found[1].split(), OIDC_ALLOW_LOOPBACK_HTTP="1")
    assert (ran.returncode, ran.stdout) == (0, found[2]), ran.stderr


def test_howto_names_each_attack_that_has_no_rule_code() -> None:
    assert {attack.code for attack in attacks()} - SIGN_IN - ALSO <= set(re.findall(r"`(\w+)`", HOW_TO))
    assert "pytest -p django_phi_oidc.testing.pytest_plugin --phi-oidc-attack" in HOW_TO, "as test_plugin.py runs it"
