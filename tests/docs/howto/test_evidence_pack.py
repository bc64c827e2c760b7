"""The blocks of the page on evidence packs run in this order, and print what the page shows."""

import json
import re
import shlex
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from django.conf import settings
from django.core.management import call_command
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.merkle.checkpoint import encode_verifier_key
from tests.support.audit_log import KEY, NOW, PEM, sealed
from tests.support.manual_blocks import ROOT, block, commands
from tests.support.phi_oidc_settings import override_phi_oidc

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
EXAMPLE_KEY = "portal.example/audit+1d5a4a4f+AQ…"


def read_outputs(name: str) -> list[str]:
    """Return what the page shows after each command, as patterns."""
    outputs = re.split(r"^\$ .*\n", block("evidence-pack", name), flags=re.MULTILINE)[1:]
    return [re.escape(text).replace("…", ".*") for text in outputs]


def test_blocks_of_the_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    sealed(312)
    options = override_phi_oidc(settings.PHI_OIDC, KEYS={"audit_signing": PEM})
    with override_settings(PHI_OIDC=options), clock.override_clock(lambda: NOW + timedelta(minutes=1)):
        for command, output in zip(commands("evidence-pack", "write"), read_outputs("write"), strict=True):
            call_command(*command[2:])
            assert re.fullmatch(output, capsys.readouterr().out)
    exec(block("evidence-pack", "documents"), {})
    assert json.loads(Path("sbom.cdx.json").read_text())["bomFormat"] == "CycloneDX"
    assert json.loads(Path("component-definition.json").read_text()).keys() == {"component-definition"}
    Path("auditor_settings.py").write_text(block("evidence-pack", "settings"))
    (command,) = commands("evidence-pack", "verify")
    key = encode_verifier_key("phi-oidc-audit", KEY.public_key())
    done = subprocess.run(
        shlex.split(shlex.join([sys.executable, *command[1:]]).replace(EXAMPLE_KEY, key)),
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    (output,) = read_outputs("verify")
    assert re.fullmatch(output, done.stdout), done.stdout + done.stderr
