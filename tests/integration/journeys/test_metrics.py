"""Prometheus metrics of real sign-ins, refusals and logouts."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from prometheus_client.parser import text_string_to_metric_families

from django_phi_oidc._internal import metrics
from django_phi_oidc.audit.models import AuditUnsealed
from django_phi_oidc.contrib.monitoring import prometheus
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser
from tests.support.log_capture import leaks
from tests.support.portal_fixtures import EVERYTHING, declaration

pytestmark = pytest.mark.django_db(**EVERYTHING)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def prometheus_metrics(op: DemoProvider, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.metered_urls"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "METRICS": ["prometheus"]}


def scrape(browser: Browser) -> tuple[str, Samples]:
    """Return the metrics page as text and as parsed samples."""
    prometheus.GAUGE_COLLECTOR._gauges._fresh_until = float("-inf")
    page = browser.get("/metrics/")
    assert page.status == 200
    assert page.join_header_values("Cache-Control") == "no-store"
    samples = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.body)
        if family.name.startswith("phi_oidc_")
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    return page.body, samples


def total(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of the samples with that name and at least these labels."""
    return sum(value for (metric, pairs), value in samples.items() if metric == name and labels.items() <= set(pairs))


def test_sign_ins_and_their_steps_are_counted_and_timed(
    op: DemoProvider, browser: Browser, prometheus_metrics: None
) -> None:
    _, before = scrape(browser)
    browser.get("/oidc/callback/?state=invented&code=invented")
    browser.sign_in(op)
    browser.get("/birthdate/")
    text, signed_in = scrape(browser)
    browser.post("/oidc/logout/")
    _, after = scrape(browser)

    def increase(name: str, **labels: str) -> float:
        return total(after, name, **labels) - total(before, name, **labels)

    counted = "phi_oidc_sign_ins_total"
    assert increase(counted, outcome="success", stage="callback", provider="default", reason="") == 1
    assert increase(counted, outcome="failure", reason="state_unknown") == 1
    assert increase(counted) == 2
    assert increase("phi_oidc_events_total", action="claim.revealed", outcome="success", provider="") == 1
    assert increase("phi_oidc_events_total", action="login.refused", reason="state_unknown", provider="default") == 1
    assert increase("phi_oidc_events_total", action="session.ended", reason="logout") == 1
    for step in ("request", "exchange", "authenticate", "admit"):
        assert increase("phi_oidc_sign_in_seconds_count", step=step, provider="default") == 1
    for call, times in (("token", 1), ("revocation", 2)):
        assert increase("phi_oidc_provider_call_seconds_count", call=call, outcome="2xx", provider="default") == times
    assert increase("phi_oidc_provider_call_seconds_sum", call="token") > 0
    gauges = [
        (total(samples, "phi_oidc_sessions_live"), total(samples, "phi_oidc_revocations_due"))
        for samples in (signed_in, after)
    ]
    assert gauges == [(1, 0), (0, 0)]
    assert total(after, "phi_oidc_events_unsealed") == AuditUnsealed.objects.using("phi_audit").count() > 3
    assert "phi_oidc_claims_overdue 0.0" in text


def test_labels_contain_no_personal_data(op: DemoProvider, browser: Browser, prometheus_metrics: None) -> None:
    browser.sign_in(op)
    browser.get("/birthdate/")
    browser.get("/oidc/undeclared-provider/callback/?state=invented")
    text, samples = scrape(browser)
    session, user = OIDCSession.objects.get(), get_user_model().objects.get()
    assert leaks(text, [op]) == []
    assert not any(str(known) in text for known in (session.pk, session.subject.uuid, user.get_username()))
    allowed = {label for metric in (*metrics.COUNTERS, *metrics.TIMERS) for label in metric.labels} | {"le"}
    assert {label for _, labels in samples for label, _ in labels} <= allowed
    values = {value for _, labels in samples for label, value in labels if label == "provider"}
    assert values <= {"", "default", "region"}, "only declared names"
    assert "undeclared-provider" not in text


def test_calls_to_an_unreachable_provider_are_counted_by_error_code(
    op: DemoProvider, browser: Browser, prometheus_metrics: None, settings: Any
) -> None:
    unreachable = {**declaration(op), "issuer": "http://127.0.0.1:9"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": unreachable}}
    labels = {"call": "metadata", "outcome": "transport_unreachable"}
    before = total(scrape(browser)[1], "phi_oidc_provider_call_seconds_count", **labels)
    assert browser.start_sign_in().status == 503
    assert total(scrape(browser)[1], "phi_oidc_provider_call_seconds_count", **labels) == before + 1


def test_metrics_page_starts_no_session(browser: Browser, prometheus_metrics: None) -> None:
    scrape(browser)
    assert browser.cookies == {}


PROGRAM = """
import sys
from tests import settings
settings.PHI_OIDC["METRICS"] = ["prometheus"]
import django
django.setup()
from django.test import RequestFactory
from django_phi_oidc._internal import metrics
from django_phi_oidc.contrib.monitoring.prometheus import metrics as metrics_view
metrics.increment(metrics.COMPLETED_SIGN_INS, provider="default", stage="callback", outcome="success", reason="")
sys.stdout.write(metrics_view(RequestFactory().get("/metrics/")).content.decode())
"""


@pytest.mark.sqlite
def test_processes_of_one_server_are_scraped_together(tmp_path: Path) -> None:
    """Each process counts one. The page of the second process shows the sum."""
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for counted in (1.0, 2.0):
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        (family,) = [item for item in text_string_to_metric_families(ran.stdout) if item.name == "phi_oidc_sign_ins"]
        assert [sample.value for sample in family.samples] == [counted]
