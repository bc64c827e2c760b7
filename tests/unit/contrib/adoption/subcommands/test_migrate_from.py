"""`manage.py phi_oidc migrate-from`: output, --json, exit status. tests/integration/adoption has complete projects."""

import io
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from tests.unit.contrib.adoption.metadata_server import MetadataServer, run_metadata_server

pytestmark = pytest.mark.django_db(databases=["default", "phi_audit"])


@pytest.fixture
def mozilla_settings() -> Iterator[dict[str, Any]]:
    """The settings of mozilla-django-oidc, in a project without PHI_OIDC."""
    with run_metadata_server() as server:
        server.publish("")
        endpoint = f"{server.base}/protocol/openid-connect/auth"
        declared = {
            "OIDC_RP_CLIENT_ID": "portal",
            "OIDC_RP_CLIENT_SECRET": "s3cret",
            "OIDC_OP_AUTHORIZATION_ENDPOINT": endpoint,
        }
        with override_settings(PHI_OIDC={}, **declared):
            yield {**declared, "issuer": server.base}


def run(*words: str) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "migrate-from", *words, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def test_printed_settings_are_python_and_json_has_the_same(mozilla_settings: dict[str, Any]) -> None:
    text, document = run("mozilla"), json.loads(run("mozilla", "--json"))
    compile(text, "printed", "exec")
    assert "s3cret" not in text + json.dumps(document)
    provider = document["PHI_OIDC"]["PROVIDERS"]["default"]
    assert provider["issuer"] == mozilla_settings["issuer"]
    assert provider["client_secret"] == {"env": "OIDC_CLIENT_SECRET"}
    assert document["library"] == "mozilla-django-oidc"
    for note in document["not_taken_over"]:
        assert note["subject"] in text
    assert {note["subject"] for note in document["not_taken_over"]} >= {"OIDC_RP_SIGN_ALGO"}
    assert "post-logout redirect URI: https://your.host/oidc/logged-out/" in document["urls"]


def test_command_runs_without_checks_of_settings_that_do_not_exist_yet(mozilla_settings: dict[str, Any]) -> None:
    out = io.StringIO()
    call_command("phi_oidc", "migrate-from", "mozilla", stdout=out, stderr=io.StringIO(), skip_checks=False)
    assert "PHI_OIDC = {" in out.getvalue()
    with pytest.raises(CommandError):
        call_command("check")


def test_init_writes_the_settings_of_the_library_and_no_secret(
    mozilla_settings: dict[str, Any], tmp_path: Path
) -> None:
    out = io.StringIO()
    call_command("phi_oidc", "init", str(tmp_path / "secrets"), "--from", "mozilla", stdout=out)
    written = (tmp_path / "secrets" / "settings.py").read_text()
    compile(written, "settings.py", "exec")
    assert (
        '{**read_provider(), "allow_loopback_http": True, "token_endpoint_auth_method": "client_secret_post"}'
        in written
    )
    assert "import add_audit_database, read_keys, read_provider\n" in written
    assert "birthdate" not in written, "the claim of a new project"
    variables = (tmp_path / "secrets" / "portal.env").read_text().splitlines()
    assert variables[:3] == [
        f"OIDC_ISSUER={mozilla_settings['issuer']}",
        "OIDC_CLIENT_ID=portal",
        "#OIDC_CLIENT_SECRET=",
    ]
    assert "Not taken over:\n- " in out.getvalue()
    assert "\n- OIDC_RP_SIGN_ALGO: " in out.getvalue()
    assert "s3cret" not in out.getvalue() + written


def test_shell_reads_what_a_provider_has_sent_as_text(tmp_path: Path) -> None:
    with run_metadata_server() as server:
        path = "/$(id);'&"
        endpoint = f"{server.base}{path}/auth"
        issuer = server.publish(path, authorization_endpoint=endpoint)
        with override_settings(OIDC_RP_CLIENT_ID="a $HOME b", OIDC_OP_AUTHORIZATION_ENDPOINT=endpoint, PHI_OIDC={}):
            call_command("phi_oidc", "init", str(tmp_path / "s"), "--from", "mozilla", stdout=io.StringIO())
    script = f'. {tmp_path / "s" / "portal.env"}; printf "%s\n" "$OIDC_ISSUER" "$OIDC_CLIENT_ID"'
    shell = subprocess.run(["sh", "-euc", script], capture_output=True, text=True, check=True)
    assert shell.stdout.splitlines() == [issuer, "a $HOME b"]


def test_project_without_the_library_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="OIDC_RP_CLIENT_ID is missing"):
        run("mozilla")
    with pytest.raises(CommandError, match="SOCIALACCOUNT_PROVIDERS is missing"):
        run("allauth")
    with pytest.raises(CommandError, match="OIDC_RP_CLIENT_ID is missing"):
        call_command("phi_oidc", "init", str(tmp_path / "secrets"), "--from", "mozilla")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(CommandError, match="invalid choice"):
        run("social_django")
    with pytest.raises(CommandError, match="required"):
        run()


def test_users_of_mozilla_django_oidc_are_not_linked(mozilla_settings: dict[str, Any]) -> None:
    with pytest.raises(CommandError, match="Nothing was linked"):
        run("mozilla", "--apply")


def test_users_of_allauth_are_not_linked_without_its_models(server: MetadataServer) -> None:
    application = {"provider_id": "a", "client_id": "portal", "secret": "s", "settings": {"server_url": server.base}}
    with override_settings(SOCIALACCOUNT_PROVIDERS={"openid_connect": {"APPS": [application]}}):
        assert '"a": {' in run("allauth")
        with pytest.raises(CommandError, match="not in INSTALLED_APPS"):
            run("allauth", "--apply")


@pytest.fixture
def server() -> Iterator[MetadataServer]:
    with run_metadata_server() as server:
        server.publish("")
        yield server
