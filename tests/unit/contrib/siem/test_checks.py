from typing import Any

import pytest

from django_phi_oidc.checks.core import check_declarations
from django_phi_oidc.contrib.siem.checks import check_sinks
from tests.support.phi_oidc_settings import override_phi_oidc


def ids(settings: Any, **sink: Any) -> list[str]:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM={"siem": sink})
    return [str(message.id) for message in (*check_declarations(None), *check_sinks(None))]


def test_e002_reports_a_wrong_sink(settings: Any) -> None:
    assert ids(settings, type="syslog", host="siem.example") == []
    assert ids(settings, type="syslog", host="siem.example", tls=False) == ["django_phi_oidc.E002"]


@pytest.mark.parametrize(
    ("safe", "plain"),
    [
        ({"type": "syslog", "host": "127.0.0.1"}, {"type": "syslog", "host": "127.0.0.1", "tls": False}),
        ({"type": "https", "url": "https://127.0.0.1/"}, {"type": "https", "url": "http://127.0.0.1/"}),
    ],
)
def test_w016_reports_a_sink_without_tls_outside_development(settings: Any, safe: Any, plain: Any) -> None:
    assert ids(settings, **safe) == []
    assert ids(settings, **plain) == ["django_phi_oidc.W016"]
    settings.DEBUG = True
    assert ids(settings, **plain) == []
