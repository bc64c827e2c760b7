"""The core works without each app, and each app works alone: sign-in, refresh, logout, reveal, scrub, guard, seal."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.installed_apps import CONTRIB_APPS, VARIABLE

ROOT = Path(__file__).resolve().parents[2]
REQUIRED = {
    "django_phi_oidc.contrib.adoption": ("django_phi_oidc.contrib.doctor",),
    "django_phi_oidc.contrib.invitations": ("django_phi_oidc.contrib.subject_links",),
    "django_phi_oidc.contrib.scim": ("django_phi_oidc.contrib.role_mapping",),
}
SELECTIONS = {
    "core": (),
    **{name.rpartition(".")[2]: (*REQUIRED.get(name, ()), name) for name in CONTRIB_APPS},
}
JOURNEYS = (
    "tests/integration/journeys/test_sign_in_details.py",
    "tests/unit/access/test_enforcement.py",
    "tests/unit/audit/log/test_sequencer.py",
    "tests/unit/claims/test_disclosure.py",
    "tests/unit/sessions/test_backchannel_logout_view.py",
    "tests/unit/sessions/test_frontchannel_logout.py",
    "tests/unit/sessions/test_middleware_timeouts.py",
    "tests/unit/sessions/test_token_refresh.py",
    "tests/unit/sessions/test_user_logout.py",
)
CONTENT = """
import json, sys
import django
django.setup()
from django.apps import apps
from django.core.checks import run_checks
from django.core.management import load_command_class
from django.urls import NoReverseMatch, reverse
from django_phi_oidc import extensions, schedule, urls
from django_phi_oidc.management.commands.phi_oidc import SUBCOMMANDS
command = load_command_class("django_phi_oidc", "phi_oidc")
command.create_parser("manage.py", "phi_oidc")
link_help = command.subcommands["subject"].subcommands["link"].format_help()
pages = []
for name in ("add", "import"):
    try:
        reverse(f"admin:django_phi_oidc_pairwisesubject_{name}")
        pages.append(name)
    except NoReverseMatch:
        pass
own = [config for config in apps.get_app_configs() if "phi_oidc" in config.label]
print(json.dumps({
    "account_sources": [source.__class__.__name__ for source in extensions.account_sources],
    "checks": [message.id for message in run_checks()],
    "claim_key_sources": [source.__class__.__name__ for source in extensions.claim_key_sources],
    "labels": sorted({model._meta.app_label for model in apps.get_models() if "phi_oidc" in model._meta.app_label}),
    "link_options": [name for name in ("--user", "--csv", "--dry-run") if name in link_help],
    "link_pages": pages,
    "modules": sorted({name.split(".")[2] for name in sys.modules if name.startswith("django_phi_oidc.contrib.")}),
    "role_sources": [source.__class__.__name__ for source in extensions.role_sources],
    "subcommands": sorted(SUBCOMMANDS),
    "tasks": sorted(schedule.beat_schedule()),
    "urls": sorted({pattern.name for pattern in urls.urlpatterns if hasattr(pattern, "name")} - {None}),
}))
"""
GERMAN = """
import json
import django
django.setup()
from django.conf import settings
from django.test import Client
from django.utils.translation import gettext, override
settings.LANGUAGE_CODE = "de"
with override("de"):
    texts = {text: gettext(text) for text in ("Audit log", "Legal holds")}
page = Client().get("/oidc/logged-out/", secure=True)
print(json.dumps({"page": page.content.decode(), "texts": texts}))
"""
RULE_CODES = """
import json
import django
django.setup()
from django_phi_oidc.errors import list_codes
print(json.dumps({"codes": list(list_codes())}))
"""
SIGNED_IN = """
import json
import django
django.setup()
from django.conf import settings
from django.contrib.auth.models import User
from django.test import RequestFactory
from django_phi_oidc.login.redirect_url import SignedInView
settings.DEBUG = True
request = RequestFactory().get("/oidc/signed-in/")
request.user = User(pk=7)
request.session = {}
print(json.dumps({"page": SignedInView.as_view()(request).content.decode()}))
"""
CORE = {
    "subcommands": ["apps", "audit", "configuration", "scrub", "sessions", "subject"],
    "labels": ["django_phi_oidc", "phi_oidc_audit"],
}


def build_environment(names: tuple[str, ...]) -> dict[str, str]:
    return {
        **os.environ,
        VARIABLE: " ".join(names),
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "PYTHONPATH": str(ROOT),
    }


def execute(script: str, names: tuple[str, ...]) -> dict[str, Any]:
    """Return what the script prints in a process with the core and these apps."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        env=build_environment(names),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


def read_content(names: tuple[str, ...]) -> dict[str, list[str]]:
    """Return what a process with the core and these apps has."""
    return execute(CONTENT, names)


def test_core_has_nothing_of_an_app() -> None:
    content = read_content(())
    assert content["checks"] == []
    assert content["modules"] == []
    assert content["labels"] == CORE["labels"]
    assert content["subcommands"] == CORE["subcommands"]
    assert "oidc_authentication_init" in content["urls"]
    assert {"oidc_emergency", "oidc_account", "oidc_health", "oidc_local_login"}.isdisjoint(content["urls"])
    assert "phi_oidc.sweep_revocations" in content["tasks"]
    assert {"phi_oidc.watch", "phi_oidc.deliver", "phi_oidc.send_notices"}.isdisjoint(content["tasks"])


def test_accounts_are_linked_one_at_a_time_without_the_app_that_links_many() -> None:
    officer_admin = "django_phi_oidc.contrib.officer_admin"
    content = read_content((officer_admin,))
    assert content["link_pages"] == ["add"]
    assert content["link_options"] == ["--user"]
    assert content["account_sources"] == []
    content = read_content((officer_admin, "django_phi_oidc.contrib.subject_links"))
    assert content["link_pages"] == ["add", "import"]
    assert content["link_options"] == ["--user", "--csv", "--dry-run"]
    assert content["account_sources"] == ["VerifiedEmailSource"]


def test_claims_change_no_role_without_the_app_that_maps_them() -> None:
    content = read_content(())
    assert content["role_sources"] == []
    assert "roles" not in content["subcommands"]
    content = read_content(("django_phi_oidc.contrib.role_mapping",))
    assert content["role_sources"] == ["RoleRules"]
    assert "roles" in content["subcommands"]


def test_another_site_starts_no_sign_in_without_the_app() -> None:
    assert "oidc_initiate_login" not in read_content(())["urls"]
    assert "oidc_initiate_login" in read_content(("django_phi_oidc.contrib.third_party_login",))["urls"]


def test_rule_codes_are_those_of_the_installed_apps() -> None:
    of_apps = {"trust_chain_invalid", "activation_refused", "stream_refused", "emergency_refused", "key_in_use"}
    assert {"state_missing", "proof_invalid"} <= {*execute(RULE_CODES, ())["codes"]}
    assert of_apps.isdisjoint(execute(RULE_CODES, ())["codes"])
    assert of_apps <= {*execute(RULE_CODES, CONTRIB_APPS)["codes"]}


def test_page_after_a_sign_in_names_the_command_if_its_app_is_installed() -> None:
    assert "phi_oidc admin grant" not in execute(SIGNED_IN, ())["page"]
    assert "phi_oidc admin grant pk:7" in execute(SIGNED_IN, ("django_phi_oidc.contrib.administrators",))["page"]


def test_claims_have_no_keys_of_their_own_without_the_app_that_destroys_them() -> None:
    content = read_content(())
    assert content["claim_key_sources"] == []
    content = read_content(("django_phi_oidc.contrib.retention_keys",))
    assert content["claim_key_sources"] == ["RetentionKeySource"]
    assert "phi_oidc_retention_keys" in content["labels"]


@pytest.mark.parametrize(
    ("names", "of_app"),
    [((), "Legal holds"), (CONTRIB_APPS, "Gesetzliche Aufbewahrungen")],
    ids=["core", "all"],
)
def test_translations_are_those_of_the_installed_apps(names: tuple[str, ...], of_app: str) -> None:
    german = execute(GERMAN, names)
    assert "abgemeldet" in german["page"]
    assert german["texts"] == {"Audit log": "Audit-Protokoll", "Legal holds": of_app}


@pytest.mark.parametrize("selection", [name for name in SELECTIONS if name != "core"])
def test_app_alone_is_checked_and_adds_only_its_own(selection: str) -> None:
    names = SELECTIONS[selection]
    content = read_content(names)
    assert content["checks"] == []
    # `common` is no app, and apps share its code.
    assert {*content["modules"]} - {"common"} == {name.rpartition(".")[2] for name in names}
    assert set(content["labels"]) <= {*CORE["labels"], f"phi_oidc_{selection}"}


@pytest.mark.parametrize("selection", SELECTIONS)
def test_journeys_of_the_core_work_with_these_apps(selection: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--scope", "all", *JOURNEYS]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=build_environment(SELECTIONS[selection]),
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert done.returncode == 0, done.stdout[-3000:]
