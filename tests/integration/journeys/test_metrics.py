"""What a real sign-in, its refusals and its end are counted as, as Prometheus reads it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from prometheus_client.parser import text_string_to_metric_families

from django_phi_oidc._internal import metrics
from django_phi_oidc.audit.models import AuditUnsealed
from django_phi_oidc.metrics import prometheus
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.support.http_browser import Browser
from tests.support.log_capture import leaks
from tests.support.portal_fixtures import EVERYTHING, declaration

pytestmark = pytest.mark.django_db(**EVERYTHING)
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def metered(op: DemoProvider, settings: Any) -> None:
    settings.ROOT_URLCONF = "tests.integration.journeys.metered_urls"
    settings.PHI_OIDC = {**settings.PHI_OIDC, "METRICS": ["prometheus"]}


def scrape(browser: Browser) -> tuple[str, Samples]:
    """Return the page as text, and as Prometheus's parser reads it."""
    prometheus.GAUGE_COLLECTOR._gauges._fresh_until = float("-inf")
    page = browser.get("/metrics/")
    assert page.status == 200
    assert page.join_header_values("Cache-Control") == "no-store"
    found = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(page.body)
        if family.name.startswith("phi_oidc_")
        for sample in family.samples
        if not sample.name.endswith("_created")
    }
    return page.body, found


def of(samples: Samples, name: str, **labels: str) -> float:
    """Return the sum of that metric's samples which have these labels, among others."""
    return sum(value for (found, with_), value in samples.items() if found == name and labels.items() <= set(with_))


def test_sign_ins_and_their_parts_are_counted_and_timed(op: DemoProvider, browser: Browser, metered: None) -> None:
    _, before = scrape(browser)
    browser.get("/oidc/callback/?state=invented&code=invented")
    browser.sign_in(op)
    browser.get("/birthdate/")
    text, signed_in = scrape(browser)
    browser.post("/oidc/logout/")
    _, after = scrape(browser)

    def grown(name: str, **labels: str) -> float:
        return of(after, name, **labels) - of(before, name, **labels)

    counted = "phi_oidc_sign_ins_total"
    assert grown(counted, outcome="success", stage="callback", provider="default", reason="") == 1
    assert grown(counted, outcome="failure", reason="state_unknown") == 1
    assert grown(counted) == 2
    assert grown("phi_oidc_events_total", action="claim.revealed", outcome="success", provider="") == 1
    assert grown("phi_oidc_events_total", action="login.refused", reason="state_unknown", provider="default") == 1
    assert grown("phi_oidc_events_total", action="session.ended", reason="logout") == 1
    for step in ("request", "exchange", "authenticate", "admit"):
        assert grown("phi_oidc_sign_in_seconds_count", step=step, provider="default") == 1
    for call, times in (("token", 1), ("revocation", 2)):
        assert grown("phi_oidc_provider_call_seconds_count", call=call, outcome="2xx", provider="default") == times
    assert grown("phi_oidc_provider_call_seconds_sum", call="token") > 0
    gauges = [(of(each, "phi_oidc_sessions_live"), of(each, "phi_oidc_revocations_due")) for each in (signed_in, after)]
    assert gauges == [(1, 0), (0, 0)]
    assert of(after, "phi_oidc_events_unsealed") == AuditUnsealed.objects.using("phi_audit").count() > 3
    assert "phi_oidc_claims_overdue 0.0" in text


def test_no_label_holds_what_tells_of_a_person(op: DemoProvider, browser: Browser, metered: None) -> None:
    browser.sign_in(op)
    browser.get("/birthdate/")
    browser.get("/oidc/nobody-s-provider/callback/?state=invented")
    text, samples = scrape(browser)
    session, user = OIDCSession.objects.get(), get_user_model().objects.get()
    assert leaks(text, [op]) == []
    assert not any(str(known) in text for known in (session.pk, session.subject.uuid, user.get_username()))
    allowed = {label for metric in (*metrics.COUNTERS, *metrics.TIMERS) for label in metric.labels} | {"le"}
    assert {label for _, labels in samples for label, _ in labels} <= allowed
    values = {value for _, labels in samples for label, value in labels if label == "provider"}
    assert values <= {"", "default", "region"}, "names that are declared, and no other"
    assert "nobody-s-provider" not in text


def test_provider_that_is_away_is_told_by_the_fault_s_code(
    op: DemoProvider, browser: Browser, metered: None, settings: Any
) -> None:
    away = {**declaration(op), "issuer": "http://127.0.0.1:9"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": away}}
    labels = {"call": "metadata", "outcome": "transport_unreachable"}
    before = of(scrape(browser)[1], "phi_oidc_provider_call_seconds_count", **labels)
    assert browser.start_sign_in().status == 503
    assert of(scrape(browser)[1], "phi_oidc_provider_call_seconds_count", **labels) == before + 1


def test_metrics_page_begins_no_session(browser: Browser, metered: None) -> None:
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
from django_phi_oidc.metrics.prometheus import metrics
metrics.count(metrics.SIGN_INS, provider="default", stage="callback", outcome="success", reason="")
sys.stdout.write(metrics(RequestFactory().get("/metrics/")).content.decode())
"""


@pytest.mark.sqlite
def test_processes_of_one_server_are_scraped_together(tmp_path: Path) -> None:
    """Each counts one; the page of the second one tells of both."""
    environment = {"DJANGO_SETTINGS_MODULE": "tests.settings", "PROMETHEUS_MULTIPROC_DIR": str(tmp_path)}
    for counted in (1.0, 2.0):
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True, timeout=60
        )
        (family,) = [each for each in text_string_to_metric_families(ran.stdout) if each.name == "phi_oidc_sign_ins"]
        assert [sample.value for sample in family.samples] == [counted]
