"""scim2-tester against the example portal, served by a process of its own."""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from scim2_tester import CheckResult, Status, check_server

from django_phi_oidc.contrib.scim.declaration import SUBJECT_SCHEMA
from tests.integration.example_project.conftest import ROOT, serving
from tests.integration.example_project.served_portal import Site
from tests.support.scim_http_client import HTTPSCIMClient

CLINIC = {
    **{"issuer": "https://clinic.example", "client_id": "portal", "client_secret": "s"},
    **{"provisioning": "invitation", "scim": {"subject": "invitation"}},
}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    variables = {"OIDC_SCIM_JSON": '{"subject": "extension"}', "OIDC_PROVIDERS_JSON": json.dumps({"clinic": CLINIC})}
    with serving(tmp_path_factory.mktemp("portal"), **variables) as served:
        yield served


def connect(site: Site, provider: str) -> HTTPSCIMClient:
    """Return a client with a token that the command has created."""
    command = [sys.executable, "manage.py", "phi_oidc", "scim", "create", f"tester-{provider}", "--provider", provider]
    run: Any = {"cwd": ROOT, "env": site.environ, "capture_output": True, "text": True}
    token = json.loads(subprocess.run([*command, "--json"], check=True, **run).stdout)["token"]
    return HTTPSCIMClient(f"{site.portal}/oidc/scim/v2", token)


def list_failures(results: list[CheckResult]) -> list[tuple[str | None, str | None]]:
    failures = (Status.ERROR, Status.CRITICAL, Status.DEVIATION)
    return [(result.title, result.reason) for result in results if result.status in failures]


def test_every_check_passes(site: Site) -> None:
    results = check_server(connect(site, "clinic"))
    assert list_failures(results) == []
    counts = Counter(result.status for result in results)
    assert counts[Status.SUCCESS] >= 50
    assert counts[Status.SKIPPED] == 0


def test_with_the_extension_only_the_echo_of_a_secret_is_missed(site: Site) -> None:
    """The `sub` is never returned and never changes; the tester expects an extension back, and changes it."""
    failures = list_failures(check_server(connect(site, "default")))
    assert {title for title, _ in failures} == {"check_add_attribute", "check_replace_attribute"}
    assert len(failures) == 4
    assert all(SUBJECT_SCHEMA in str(reason) for _, reason in failures)


def test_another_token_is_refused(site: Site) -> None:
    assert HTTPSCIMClient(f"{site.portal}/oidc/scim/v2", "x").request("GET", "/Users").status_code == 401
