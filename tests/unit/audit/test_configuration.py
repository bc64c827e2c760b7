"""A change of the configuration leaves one event for all processes that have it, and never a secret."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_phi_oidc._internal import clock
from django_phi_oidc.audit.configuration import ACTIVE_PERIOD, read_configuration, record_configuration
from django_phi_oidc.audit.effective_options import describe_value, iter_effective_options
from django_phi_oidc.audit.events import MAX_ITEMS, Action
from django_phi_oidc.audit.models import AuditEvent, AuditOutbox, RecordedConfiguration
from django_phi_oidc.audit.tasks import record_configuration as record_configuration_of_the_worker
from django_phi_oidc.errors import KeyMissing
from tests.settings import key
from tests.support.client_keys import create_private_key_pem
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import NOW
from tests.unit.audit.test_throttling import at_once

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
MINUTE = timedelta(minutes=1)
SIGNING_PEM = create_private_key_pem("OKP")
Details = list[dict[str, Any]]


@pytest.fixture(autouse=True)
def _checked_settings(settings: Any) -> None:
    """Settings that W057 does not warn of."""
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, ADMIN_ASSURANCE={"acr": ["urn:example:loa:3"]})


def change(settings: Any, **options: Any) -> Any:
    return override_settings(PHI_OIDC=override_phi_oidc(settings.PHI_OIDC, **options))


def with_provider(settings: Any, **options: Any) -> Any:
    return change(settings, PROVIDERS={"default": {**settings.PHI_OIDC["PROVIDERS"]["default"], **options}})


def list_details(component: str = "worker") -> Details:
    events = AuditEvent.objects.filter(action=Action.CONFIGURATION_CHANGED, resource=f"Configuration/{component}")
    return [json.loads(event.detail) for event in events.order_by("occurred_at", "id")]


def record(after: timedelta = timedelta(0), component: str = "worker") -> None:
    record_configuration(component, now=NOW + after)


def test_g15_first_configuration_is_recorded_once(settings: Any) -> None:
    settings.SILENCED_SYSTEM_CHECKS = ["django_phi_oidc.W004"]
    with clock.override_clock(lambda: NOW):
        record_configuration_of_the_worker()
        record_configuration_of_the_worker()
    (detail,) = list_details()
    assert detail == {
        "digest": read_configuration().digest,
        "previous": "",
        "options": [],
        "warnings_added": list(read_configuration().warnings),
        "warnings_removed": [],
        "silenced": ["django_phi_oidc.W004"],
    }
    assert RecordedConfiguration.objects.get().seen_at == NOW


def test_g15_option_that_loosens_a_rule_is_recorded_with_its_warning(settings: Any) -> None:
    record()
    first = read_configuration().digest
    with with_provider(settings, leeway=31):
        record(MINUTE)
    (_, detail) = list_details()
    assert (detail["previous"], detail["options"]) == (first, ["PROVIDERS.default.leeway"])
    assert (detail["warnings_added"], detail["warnings_removed"]) == (["django_phi_oidc.W004"], [])


def test_g15_option_without_a_warning_is_recorded_too(settings: Any) -> None:
    record()
    with change(settings, SESSIONS={"idle_timeout": timedelta(hours=1)}):
        record(MINUTE)
    assert list_details()[1]["options"] == ["SESSIONS.idle_timeout"]
    with override_settings(MIDDLEWARE=[*settings.MIDDLEWARE, "django.middleware.gzip.GZipMiddleware"]):
        record(2 * MINUTE)
    assert list_details()[2]["options"] == ["MIDDLEWARE", "SESSIONS.idle_timeout"], "compared with the newest"


def test_g15_silenced_check_is_recorded(settings: Any) -> None:
    with with_provider(settings, leeway=31):
        record()
        settings.SILENCED_SYSTEM_CHECKS = ["django_phi_oidc.W004"]
        record(MINUTE)
    (_, detail) = list_details()
    assert (detail["silenced"], detail["options"]) == (["django_phi_oidc.W004"], [])
    assert (detail["warnings_added"], detail["warnings_removed"]) == ([], ["django_phi_oidc.W004"])


def test_g15_concurrent_processes_write_one_event(settings: Any) -> None:
    at_once(record)
    assert len(list_details()) == 1
    with with_provider(settings, leeway=31):
        at_once(lambda: record(MINUTE))
    assert len(list_details()) == 2
    at_once(lambda: record(2 * ACTIVE_PERIOD))
    assert len(list_details()) == 3


class TestRollingDeployment:
    """Processes with the old and the new configuration take turns."""

    def run(self, settings: Any, *minutes: tuple[int, str]) -> list[str]:
        """Let a process record at each of these minutes, and return the configurations of the events."""
        settings_of = {name: with_provider(settings, leeway=leeway) for name, leeway in (("old", 10), ("new", 20))}
        for minute, name in minutes:
            with settings_of[name]:
                record(minute * MINUTE)
        digests = {}
        for name, used in settings_of.items():
            with used:
                digests[read_configuration().digest] = name
        return [digests[detail["digest"]] for detail in list_details()]

    def test_g15_turns_of_two_configurations_write_one_event_each(self, settings: Any) -> None:
        turns = [(minute, name) for minute in range(0, 300, 20) for name in ("new", "old")]
        assert self.run(settings, (-1, "old"), *turns) == ["old", "new"]

    def test_g15_finished_deployment_writes_no_further_event(self, settings: Any) -> None:
        turns = [(0, "old"), (1, "new"), (2, "old"), (3, "new"), (200, "new")]
        assert self.run(settings, *turns) == ["old", "new"]

    def test_g15_return_to_the_old_configuration_is_recorded(self, settings: Any) -> None:
        assert self.run(settings, (0, "old"), (1, "new"), (62, "old")) == ["old", "new", "old"]

    def test_g15_quick_return_is_recorded_when_the_new_configuration_is_gone(self, settings: Any) -> None:
        turns = [(0, "old"), (1, "new"), *((minute, "old") for minute in (2, 30, 60))]
        assert self.run(settings, *turns) == ["old", "new"]
        assert self.run(settings, (61, "old"), (62, "old"), (300, "old")) == ["old", "new", "old"]


def test_g15_components_are_recorded_separately(settings: Any) -> None:
    record()
    record(component="web")
    with with_provider(settings, leeway=31):
        record(MINUTE, component="web")
    assert (len(list_details()), len(list_details("web"))) == (1, 2)


SECRETS = ("client-secret-canary", "query-canary", "header-canary", "proxy-canary")


def test_g15_secrets_are_neither_stored_nor_compared(settings: Any) -> None:
    def with_secrets(number: int) -> Any:
        secret, query, header, proxy = (f"{secret}-{number}" for secret in SECRETS)
        url = f"https://siem.example.test/in?token={query}"
        sink = {"type": "https", "format": "ocsf", "url": url, "headers": {"Authorization": header}}
        settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SIEM={"siem": sink})
        return with_provider(settings, client_secret=secret, proxy=f"http://portal:{proxy}@proxy.example.test:3128")

    for number in (1, 2):
        with with_secrets(number):
            record(number * MINUTE)
    assert len(list_details()) == 1
    stored = "".join(row.content for row in RecordedConfiguration.objects.all()) + json.dumps(list_details())
    with with_secrets(1):
        assert "SIEM.siem.url" in read_configuration().options
    for secret in (*SECRETS, *settings.PHI_OIDC["KEYS"]["encryption"]):
        assert secret not in stored


@pytest.mark.parametrize(
    ("proxy", "value"),
    [
        ("http://portal:secret@proxy.example.test:3128", "http://proxy.example.test:3128"),
        ("http://portal:sec/ret@proxy.example.test:3128", "invalid"),
        ("http://portal:sec\u2100ret@proxy.example.test", "invalid"),
        ("", ""),
    ],
)
def test_g15_url_is_reduced_to_scheme_host_and_port(settings: Any, proxy: str, value: str) -> None:
    with with_provider(settings, proxy=proxy):
        found = dict(iter_effective_options(settings.PHI_OIDC))
    assert found["PROVIDERS.default.proxy"] == value


def test_g15_collector_at_another_host_is_recorded(settings: Any) -> None:
    for number, host in enumerate(("siem.example.test", "elsewhere.example.test")):
        sink = {"type": "https", "format": "ocsf", "url": f"https://{host}/in"}
        with change(settings, SIEM={"siem": sink}):
            record(number * MINUTE)
    assert list_details()[1]["options"] == ["SIEM.siem.url"]


def test_g15_key_is_represented_by_its_id(settings: Any) -> None:
    record()
    with change(settings, KEYS={"encryption": [key("another key"), *settings.PHI_OIDC["KEYS"]["encryption"]]}):
        record(MINUTE)
    assert list_details()[1]["options"] == ["KEYS.encryption"]


def test_g15_sealer_and_other_workers_have_the_same_digest(settings: Any, tmp_path: Path) -> None:
    digest = read_configuration().digest
    with change(settings, KEYS={"audit_signing": tmp_path / "missing.pem"}):
        assert read_configuration().digest != digest, "E022: it can't be read"
    with change(settings, KEYS={"audit_signing": SIGNING_PEM}):
        assert read_configuration().digest == digest


def test_g15_configuration_is_recorded_when_the_keys_are_back(settings: Any) -> None:
    with change(settings, KEYS={"audit_mac": []}), pytest.raises(KeyMissing):
        record()
    assert (list_details(), AuditOutbox.objects.count(), RecordedConfiguration.objects.count()) == ([], 0, 0)
    record()
    assert len(list_details()) == 1


def test_g15_invalid_option_is_recorded(settings: Any) -> None:
    record()
    with with_provider(settings, leeway="long"):
        record(MINUTE)
    detail = list_details()[1]
    assert detail["warnings_added"] == ["django_phi_oidc.E002"]
    assert "PROVIDERS" in detail["options"]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "None"),
        ("1", "'1'"),
        (1, "1"),
        (True, "True"),
        ([1, "a"], "[1, 'a']"),
        ({"b": 1, "a": [2]}, "{'a': [2], 'b': 1}"),
        (frozenset({"b", "a"}), "{'a', 'b'}"),
        (timedelta(minutes=1), "0:01:00"),
        (Path("/srv/keys"), "/srv/keys"),
        (record, f"{__name__}.record"),
        (KeyMissing, "django_phi_oidc.errors.KeyMissing"),
        (object(), "builtins.object"),
    ],
)
def test_value_is_described_without_addresses(value: Any, text: str) -> None:
    assert describe_value(value) == text


def test_g15_large_change_is_recorded_in_several_events(settings: Any) -> None:
    record()
    sinks = {
        f"sink{number:02}": {"type": "https", "format": "ocsf", "url": f"https://siem{number}.example.test/in"}
        for number in range(30)
    }
    settings.SILENCED_SYSTEM_CHECKS = [f"clinic.W{number:03}" for number in range(MAX_ITEMS + 1)]
    with change(settings, SIEM=sinks, SESSIONS={"idle_timeout": timedelta(hours=20)}):
        record(MINUTE)
        record(2 * MINUTE)
    first, *changes = list_details()
    options, silenced = ([name for detail in changes for name in detail[key]] for key in ("options", "silenced"))
    assert (len(changes) > 1, "SESSIONS.idle_timeout" in options, len(options)) == (True, True, len({*options}))
    assert max(len(detail["options"]) for detail in changes) == MAX_ITEMS
    # The events are of one time, so their order is random.
    assert sorted(silenced) == settings.SILENCED_SYSTEM_CHECKS
    assert {(detail["digest"], detail["previous"]) for detail in changes} == {(changes[0]["digest"], first["digest"])}
