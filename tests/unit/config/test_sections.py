"""The options of the apps: who declares an option, and what is reported without the app."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from django_phi_oidc.audit.effective_options import iter_effective_options
from django_phi_oidc.config import sections
from django_phi_oidc.config.providers import parse_provider
from django_phi_oidc.contrib.retention_keys.declaration import RetentionKeysOptions
from django_phi_oidc.contrib.siem.declaration import SIEMOptions
from django_phi_oidc.errors import DeclarationInvalid

PROVIDER = {"issuer": "https://op.example", "client_id": "portal", "client_secret": "s3cret"}


@dataclass(frozen=True, kw_only=True)
class OtherOptions:
    SIEM: str = ""


@dataclass(frozen=True, kw_only=True)
class OtherKeys:
    retention: str = ""
    escrow: str = ""


@pytest.fixture
def without_apps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the core and the audit log are installed."""
    kept = {section.app: section for section in sections.iter_sections() if ".contrib." not in section.app}
    monkeypatch.setattr(sections, "_sections", kept)
    monkeypatch.setattr(sections, "_group_members", {})
    monkeypatch.setattr(sections, "_provider_options", {})


@pytest.mark.parametrize(
    ("option", "app"),
    [
        ("AUDIT", "django_phi_oidc.audit"),
        ("EMERGENCY", "django_phi_oidc.contrib.emergency"),
        ("ROLES", "django_phi_oidc.contrib.role_mapping"),
        ("SIEM", "django_phi_oidc.contrib.siem"),
        ("PROVIDERS", None),
        ("SEIM", None),
    ],
)
def test_app_of_an_option_is_found_although_it_is_not_installed(option: str, app: str | None) -> None:
    assert sections.find_app_of_option(option) == app


@pytest.mark.usefixtures("without_apps")
def test_option_of_an_app_that_is_not_installed_names_the_app() -> None:
    assert sections.list_unknown({"SIEM": {}, "SEIM": {}, "KEYS": {}}) == [
        "no option SEIM.",
        "SIEM is an option of django_phi_oidc.contrib.siem. Add it to INSTALLED_APPS.",
    ]
    assert sections.list_mistakes({"SIEM": 1}) == []


def test_option_of_an_installed_app_is_known() -> None:
    assert sections.list_unknown({"SIEM": {}}) == []
    assert sections.list_mistakes({"SIEM": 1}) == ["SIEM must be a dictionary."]


@pytest.mark.usefixtures("without_apps")
def test_member_of_a_group_of_an_app_that_is_not_installed_names_the_app() -> None:
    app = "django_phi_oidc.contrib.retention_keys"
    assert sections.list_mistakes({"KEYS": {"retention": None, "retentoin": None, "subject": ["key"]}}) == [
        f"KEYS: retention is an option of {app}. Add it to INSTALLED_APPS.",
        "KEYS: no option retentoin.",
    ]
    assert sections.find_app_of_group_member("AUDIT", "retention") is None
    assert sections.parse_one({"KEYS": {"retention": 1, "subject": ["key"]}}, "KEYS", "subject") == ["key"]
    with pytest.raises(LookupError, match="retention of KEYS"):
        sections.parse_one({"KEYS": {"retention": 1}}, "KEYS", "retention")


def test_member_of_a_group_of_an_installed_app_is_known() -> None:
    raw = {"KEYS": {"retention": "a store", "subject": ["key"]}}
    assert sections.list_mistakes(raw) == []
    assert sections.parse_one(raw, "KEYS", "retention") == "a store"
    assert sections.parse_one({}, "KEYS", "retention") is None
    assert sections.list_mistakes({"KEYS": 1}) == ["KEYS must be a dictionary."]


def test_mistakes_in_members_of_a_group_of_apps_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "_group_members", {})
    sections.register_group_members("KEYS", OtherKeys)
    assert sections.list_mistakes({"KEYS": {"escrow": 1, "retention": 2, "subjects": ["key"]}}) == [
        "KEYS: no option subjects; did you mean subject?",
        "KEYS['retention'] must be a string.",
        "KEYS['escrow'] must be a string.",
    ]
    with pytest.raises(ValueError, match="retention"):
        sections.register_group_members("KEYS", RetentionKeysOptions)


@pytest.mark.usefixtures("without_apps")
@pytest.mark.parametrize(
    ("option", "app"),
    [
        ("federation", "federation"),
        ("link_verified_email", "subject_links"),
        ("scim", "scim"),
        ("signals", "shared_signals"),
        ("third_party_login", "third_party_login"),
    ],
)
def test_provider_option_of_an_app_that_is_not_installed_names_the_app(option: str, app: str) -> None:
    with pytest.raises(DeclarationInvalid) as refused:
        parse_provider("default", {**PROVIDER, option: {}})
    message = f"PROVIDERS['default']: {option} is an option of django_phi_oidc.contrib.{app}. Add it to INSTALLED_APPS."
    assert str(refused.value) == message


def test_all_mistakes_of_a_provider_are_listed_with_those_of_the_options_of_apps() -> None:
    raw: Any = {**PROVIDER, "par": "maybe", "scmi": {}, "scim": {"subject": "none"}, "signals": {"delivery": "pull"}}
    with pytest.raises(DeclarationInvalid) as refused:
        parse_provider("default", raw)
    assert str(refused.value).split("\n") == [
        "PROVIDERS['default']: no option scmi; did you mean scim?",
        "PROVIDERS['default']['par'] must be one of auto, require, never.",
        "PROVIDERS['default']['scim']['subject'] must be one of extension, invitation.",
        "PROVIDERS['default']['signals']['delivery'] must be one of push, poll.",
    ]


def test_effective_options_contain_those_of_apps_without_secrets() -> None:
    raw = {
        "PROVIDERS": {"default": {**PROVIDER, "signals": {"delivery": "push", "push_authorization": "Bearer canary"}}},
        "SIEM": {"archive": {"type": "file", "path": "/var/log/audit"}},
    }
    found = dict(iter_effective_options(raw))
    assert found["PROVIDERS.default.signals.delivery"] == "push"
    assert found["SIEM.archive.path"] == "/var/log/audit"
    assert "canary" not in str(found)
    assert not [path for path in found if "app_options" in path]


def test_field_for_the_options_of_apps_is_no_option() -> None:
    with pytest.raises(DeclarationInvalid, match="no option app_options"):
        parse_provider("default", {**PROVIDER, "app_options": ()})


def test_option_belongs_to_one_app(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sections, "_sections", {**sections._sections})
    sections.register_section("django_phi_oidc.contrib.siem", SIEMOptions)
    with pytest.raises(ValueError, match="SIEM"):
        sections.register_section("portal", OtherOptions)


def test_option_without_an_app_cannot_be_read() -> None:
    with pytest.raises(LookupError, match="NOTHING"):
        sections.parse_one({}, "NOTHING")
    with pytest.raises(LookupError, match="no group"):
        sections.parse_one({}, "SIEM", "siem")


def test_each_folder_of_an_app_has_one_configuration() -> None:
    folders = [path.parent for path in Path(sections.__file__).parents[1].glob("contrib/*/apps.py")]
    names = [config.name for config in sections.iter_app_configs()]
    assert sorted(names) == sorted(["django_phi_oidc.audit", *(f"django_phi_oidc.contrib.{f.name}" for f in folders)])
