"""The code of the pages on the leak guard, metrics and health, run in a project."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from django.conf import settings

from django_phi_oidc._internal.metrics import COUNTERS, TIMERS
from django_phi_oidc.contrib.monitoring.gauges import GAUGES
from tests.support.databases import child_environment

ROOT = Path(__file__).resolve().parents[3]
GUARD, METRICS = (
    (ROOT / "docs" / "how-to" / f"{name}.md").read_text() for name in ("detect-leaked-secrets", "metrics-and-health")
)


def block(page: str, name: str) -> str:
    found = re.search(rf"<!-- tested: {name} -->\n```\w+\n(.*?)```", page, re.DOTALL)
    assert found, name
    return found[1]


USE = """
import json, logging, sys
import django
django.setup()
from django.core.checks import run_checks
from django.test import Client
from django.views.debug import get_exception_reporter_class
from tests.support.leaking_views import JWT
import sentry_sdk

found = {message.id for message in run_checks()}
assert not found & {"django_phi_oidc.E030", "django_phi_oidc.W030"}, found
client = Client(raise_request_exception=False)
health = client.get("/oidc/health/")
leaky = client.get("/page/?leak=jwt&at=location")
metrics = client.get("/internal/metrics/").content.decode()
logging.getLogger("hospital").warning("Looked at %s", JWT)
print(json.dumps({
    "health": health.json(),
    "status": leaky.status_code,
    "reporter": get_exception_reporter_class(None).__name__,
    "metrics": metrics,
    "before_send": sentry_sdk.get_client().options["before_send"]({"message": JWT}, {}),
    "alerts": [line for line in metrics.splitlines() if "alert.raised" in line],
}))
"""


@pytest.mark.postgresql
@pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
def test_code_of_both_pages_works_in_one_project(tmp_path: Path) -> None:
    declared = "".join(block(GUARD, name) for name in ("guard", "logging", "reporter")) + block(METRICS, "metrics")
    blocking = 'PHI_OIDC["LEAKAGE_GUARD"] = "block"\n'
    sentry = 'SENTRY_DSN = "https://key@sentry.invalid/1"\n' + block(GUARD, "sentry")
    (tmp_path / "project.py").write_text(
        f"from tests.settings import *\nROOT_URLCONF = 'project_urls'\n{declared}{blocking}{sentry}"
    )
    (tmp_path / "project_urls.py").write_text(
        "from tests.support.leaking_views import urlpatterns as leaking_urls\n"
        f"urlpatterns = [*leaking_urls]\n{block(METRICS, 'urls')}"
    )
    (tmp_path / "use.py").write_text(USE)
    environment = {
        **child_environment(os.environ, settings.DATABASES),
        "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
        "DJANGO_SETTINGS_MODULE": "project",
    }
    ran = subprocess.run(
        [sys.executable, tmp_path / "use.py"], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    output = json.loads(ran.stdout.splitlines()[-1])
    assert output["health"] == json.loads(block(METRICS, "health"))
    assert (output["status"], output["reporter"]) == (500, "MaskingReporter")
    assert output["before_send"] == {"message": "•••"}
    assert "phi_oidc_sessions_live 0.0" in output["metrics"]
    assert len(output["alerts"]) == 2, "the counter, and when it began"
    assert "Looked at •••" in ran.stderr
    assert "eyJ" not in ran.stderr + ran.stdout


def test_every_metric_and_label_is_documented() -> None:
    rows = [line.split("|") for line in METRICS.splitlines() if line.startswith("| `phi_oidc")]
    documented = {cells[1].strip(" `"): (cells[2].strip(" `"), set(re.findall(r"`(\w+)`", cells[3]))) for cells in rows}
    expected = {f"phi_oidc_{m.name}_total": (f"phi_oidc.{m.name}", set(m.labels)) for m in COUNTERS}
    expected |= {f"phi_oidc_{m.name}_seconds": (f"phi_oidc.{m.name}", set(m.labels)) for m in TIMERS}
    expected |= {f"phi_oidc_{name}": (f"phi_oidc.{name}", set()) for name in GAUGES}
    assert documented == expected
