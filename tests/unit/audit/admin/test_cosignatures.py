"""The page of a checkpoint shows which witnesses have cosigned it, and its file contains their signatures."""

from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.test import override_settings

from django_phi_oidc.audit.log.models import Cosignature
from django_phi_oidc.audit.log.witnesses import submit_newest_checkpoint
from django_phi_oidc.audit.models import AuditCheckpoint
from tests.support.audit_log import KEY, NOW, sealed
from tests.support.officers import sign_in_officer
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.witness_server import witness

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
PAGE = "/admin/phi_oidc_audit/auditcheckpoint/2/"


@pytest.fixture(autouse=True)
def _plain_http(settings: Any) -> None:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False


def test_cosignatures_are_shown_and_downloaded(tmp_path: Path) -> None:
    sealed(2)
    client = sign_in_officer("view_auditcheckpoint")
    assert "Cosignatures" not in client.get(f"{PAGE}change/").content.decode()
    logs = {"phi-oidc-audit": KEY.public_key()}
    with witness("w.example/1", tmp_path, logs) as first, witness("w.example/2", tmp_path, logs, lie="fail") as second:
        first.clock = NOW.timestamp
        declared = {
            "archive": {"key": first.vkey, "url": first.url},
            "auditor": {"key": second.vkey, "url": second.url},
        }
        with override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, AUDIT={"witnesses": declared})):
            submit_newest_checkpoint(clock=lambda: NOW)
            page = client.get(f"{PAGE}change/").content.decode()
            file = client.get(f"{PAGE}note/").content.decode()
            Cosignature.objects.update(line="— w.example/1 AAAA\n")
            damaged = client.get(f"{PAGE}change/").content.decode()
    assert "<dt>archive</dt><dd>2026-11-24 16:05:09 UTC</dd>" in page
    assert "<dt>auditor</dt><dd>not cosigned</dd>" in page
    assert "Required of them: 2." in page
    assert file == AuditCheckpoint.objects.get().note + file.partition("\n\n")[2].splitlines(keepends=True)[1]
    assert "— w.example/1 " in file
    assert "<dt>archive</dt><dd>not cosigned</dd>" in damaged
