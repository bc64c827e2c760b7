"""`PHI_OIDC` is parsed at use and after a change; its mistakes are reported together."""

from datetime import timedelta
from typing import Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext_lazy

from django_phi_oidc import conf, options
from django_phi_oidc.audit import conf as audit_conf
from django_phi_oidc.checks.core import check_declarations
from django_phi_oidc.config import sections
from django_phi_oidc.config.core_options import CoreOptions
from django_phi_oidc.contrib.emergency import conf as emergency_conf
from django_phi_oidc.contrib.monitoring import conf as monitoring_conf
from django_phi_oidc.contrib.siem import conf as siem_conf
from django_phi_oidc.crypto.conf import get_key_source
from tests.support.phi_oidc_settings import override_phi_oidc, override_provider, remove_phi_oidc

pytestmark = [pytest.mark.sqlite, pytest.mark.django_db(databases=["default", "phi_audit"])]
WRONG: dict[str, Any] = {
    "CLIAMS": {},
    "SESSIONS": {"idle_timout": 5, "recheck": -1},
    "SIEM": {"siem": {"type": "file", "path": "s3cret"}},
    "METRICS": ["s3cret"],
}
MESSAGES = {
    "PHI_OIDC: no option CLIAMS; did you mean CLAIMS?": "E001",
    "PHI_OIDC['SESSIONS']: no option idle_timout; did you mean idle_timeout?": "E002",
    "PHI_OIDC['SESSIONS']['recheck'] must be a timedelta or number of seconds.": "E002",
    "PHI_OIDC['SIEM']['siem']['path'] must be absolute.": "E002",
    "PHI_OIDC['METRICS'] must be a list of: prometheus, opentelemetry.": "E002",
}


def test_exception_lists_all_mistakes_of_the_setting(settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **WRONG)
    with pytest.raises(ImproperlyConfigured) as refused:
        monitoring_conf.metrics()
    assert set(str(refused.value).split("\n")) == set(MESSAGES)
    assert len(str(refused.value).split("\n")) == len(MESSAGES)


def test_system_check_reports_each_mistake_as_its_own_error(settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **WRONG)
    errors = {
        message.msg: f"{message.id}".rpartition(".")[2] for message in run_checks() if "phi_oidc.E" in f"{message.id}"
    }
    assert {text: number for text, number in errors.items() if number in ("E001", "E002")} == MESSAGES


def test_mistake_in_one_option_does_not_prevent_the_use_of_others(settings: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, **WRONG)
    assert conf.idle_timeout() == timedelta(minutes=15)
    assert audit_conf.resource_ids() == "plain"
    for read in (conf.session_recheck, siem_conf.sinks, monitoring_conf.metrics):
        with pytest.raises(ImproperlyConfigured):
            read()


def test_change_of_the_setting_is_read_and_an_unchanged_one_is_parsed_once(settings: Any) -> None:
    providers = conf.providers()
    assert conf.providers() is providers
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, SESSIONS={"idle_timeout": 60})
    assert conf.providers() is not providers
    assert conf.idle_timeout() == timedelta(minutes=1)
    assert conf.absolute_timeout() == timedelta(hours=8)


@pytest.mark.parametrize("declared", [[], "PROVIDERS", None], ids=repr)
def test_setting_that_is_no_dictionary_is_refused(settings: Any, declared: Any) -> None:
    settings.PHI_OIDC = declared
    with pytest.raises(ImproperlyConfigured, match="dictionary"):
        conf.providers()
    messages = [message.msg for message in run_checks() if message.id == "django_phi_oidc.E002"]
    assert messages == ["PHI_OIDC must be a dictionary."]


def test_missing_setting_has_defaults(settings: Any) -> None:
    remove_phi_oidc(settings)
    assert (conf.providers(), emergency_conf.emergency(), get_key_source("encryption")) == ({}, None, None)
    assert options.list_mistakes() == []


def test_label_may_be_a_lazy_translation(settings: Any) -> None:
    label = gettext_lazy("Sign in")
    declared = {"default": {**settings.PHI_OIDC["PROVIDERS"]["default"], "label": label}}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": declared}
    assert conf.providers()["default"].label is label


EMERGENCY = {"permissions": {"portal.view_chart": "See a chart"}}


def test_emergency_mails_go_to_the_security_contacts_unless_it_has_its_own(settings: Any) -> None:
    contacts = {"SECURITY_CONTACTS": ["security@example.org"]}
    settings.PHI_OIDC = {**settings.PHI_OIDC, **contacts, "EMERGENCY": EMERGENCY}
    emergency = emergency_conf.emergency()
    assert emergency is not None
    assert emergency.mail_to == ("security@example.org",)
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": {**EMERGENCY, "mail_to": ["privacy@example.org"]}}
    emergency = emergency_conf.emergency()
    assert emergency is not None
    assert emergency.mail_to == ("privacy@example.org",)


def test_emergency_without_any_mail_address_is_refused(settings: Any) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "EMERGENCY": EMERGENCY}
    with pytest.raises(ImproperlyConfigured, match="SECURITY_CONTACTS"):
        emergency_conf.emergency()
    (message,) = [message.msg for message in run_checks() if message.id == "django_phi_oidc.E002"]
    assert "SECURITY_CONTACTS" in message


def test_top_level_options_of_the_core_are_few() -> None:
    assert len(CoreOptions.__dataclass_fields__) == 12


def test_option_of_an_app_that_is_not_installed_is_reported_with_the_line_to_add(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = {section.app: section for section in sections.iter_sections()}
    monkeypatch.setattr(sections, "_sections", {**installed})
    sections._sections.pop("django_phi_oidc.contrib.siem")
    monkeypatch.setattr(sections, "_provider_options", {})
    monkeypatch.setattr(sections, "_group_members", {})
    declared = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": None})
    settings.PHI_OIDC = override_provider({**declared, "SIEM": {}}, scim={"subject": "extension"})
    found = {(message.id, message.msg, message.hint) for message in check_declarations(None)}
    app = "django_phi_oidc.contrib"
    assert found == {
        (
            "django_phi_oidc.E001",
            f"PHI_OIDC: SIEM is an option of {app}.siem. Add it to INSTALLED_APPS.",
            f'In your settings: INSTALLED_APPS += ["{app}.siem"]',
        ),
        (
            "django_phi_oidc.E002",
            f"PHI_OIDC['PROVIDERS']['default']: scim is an option of {app}.scim. Add it to INSTALLED_APPS.",
            f'In your settings: INSTALLED_APPS += ["{app}.scim"]',
        ),
        (
            "django_phi_oidc.E002",
            f"PHI_OIDC['KEYS']: retention is an option of {app}.retention_keys. Add it to INSTALLED_APPS.",
            f'In your settings: INSTALLED_APPS += ["{app}.retention_keys"]',
        ),
    }
