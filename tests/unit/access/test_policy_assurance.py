"""Assurance: the rule, its declaration, and the how-to page."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.contrib.auth.models import AnonymousUser
from django.http import HttpRequest
from django.views.generic import View

from django_phi_oidc.access.mixins import AssuranceMixin, PHIAccessMixin
from django_phi_oidc.access.policy import (
    MAX_CLOCK_SKEW,
    SIGN_IN_DEMANDED,
    AccessPolicy,
    Assurance,
    find_access_refusal,
    find_assurance_refusal,
    get_step_up_assurance,
    parse_assurance,
    parse_required_assurance,
)
from django_phi_oidc.access.responses import format_step_up_challenge
from django_phi_oidc.access.step_up import MAX_RETURN_PATH_LENGTH, get_return_path
from django_phi_oidc.audit.request_context import (
    ASSURANCE_KEY,
    SESSION_KEY,
    VECTOR_OF_TRUST_KEY,
    Actor,
    build_assurance_entry,
)
from django_phi_oidc.config import sections
from django_phi_oidc.decorators import phi_access, require_assurance
from django_phi_oidc.errors import DeclarationInvalid

NOW = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
FIVE = timedelta(minutes=5)
HOW_TO = (Path(__file__).resolve().parents[3] / "docs" / "how-to" / "require-assurance.md").read_text()


@pytest.mark.parametrize(
    ("assurance", "acr", "age", "code"),
    [
        (Assurance(), "", None, None),
        (Assurance(acr=("b", "c")), "b", None, None),
        (Assurance(acr=("b", "c")), "c", None, None),
        (Assurance(acr=("b", "c")), "a", None, "acr_insufficient"),
        (Assurance(acr=("b", "c")), "", None, "acr_insufficient"),
        (Assurance(acr=("b", "c")), "b c", None, "acr_insufficient"),
        (Assurance(max_age=FIVE), "", FIVE, None),
        (Assurance(max_age=FIVE), "", FIVE + timedelta(microseconds=1), "auth_time_stale"),
        (Assurance(max_age=FIVE), "", -MAX_CLOCK_SKEW, None),
        (Assurance(max_age=FIVE), "", -MAX_CLOCK_SKEW - timedelta(microseconds=1), "auth_time_stale"),
        (Assurance(max_age=FIVE), "", None, "auth_time_missing"),
        (Assurance(acr=("b",), max_age=FIVE), "b", FIVE, None),
        (Assurance(acr=("b",), max_age=FIVE), "a", FIVE, "acr_insufficient"),
        (Assurance(acr=("b",), max_age=FIVE), "b", None, "auth_time_missing"),
        (Assurance(vot=("P9",)), "", None, "vot_insufficient"),
    ],
)
def test_assurance_rule(assurance: Assurance, acr: str, age: timedelta | None, code: str | None) -> None:
    auth_time = None if age is None else NOW - age
    assert find_assurance_refusal(assurance, acr=acr, auth_time=auth_time, now=NOW) == code


@pytest.mark.parametrize(
    ("assurance", "vot", "code"),
    [
        (Assurance(vot=("P9.Cp", "P9.Cm")), "P9.Cp.Cd", None),
        (Assurance(vot=("P9.Cp", "P9.Cm")), "P9.Cd", "vot_insufficient"),
        (Assurance(vot=("P9",)), "P5.Cp", "vot_insufficient"),
        (Assurance(vot=("P9",)), "gold", "vot_insufficient"),
        (Assurance(acr=("b",), vot=("P9",)), "P9", "acr_insufficient"),
        (Assurance(vot=("P9",), max_age=FIVE), "P9", "auth_time_missing"),
    ],
)
def test_vector_of_trust_is_a_level_as_acr_is(assurance: Assurance, vot: str, code: str | None) -> None:
    assert find_assurance_refusal(assurance, acr="a", vot=vot, auth_time=None, now=NOW) == code


def test_assurance_is_the_last_rule_and_emergency_purpose_is_accepted() -> None:
    policy = AccessPolicy(permission="portal.view", purposes=frozenset({"TREAT"}))
    arguments: dict[str, Any] = {
        "has_session": True,
        "resource": "Patient/7",
        "is_permitted": True,
        "stated_purpose": "TREAT",
        "assurance_refusal": "acr_insufficient",
    }
    assert find_access_refusal(policy, **arguments) == "acr_insufficient"
    assert find_access_refusal(policy, **{**arguments, "assurance_refusal": None}) is None
    assert find_access_refusal(policy, **{**arguments, "is_permitted": False}) == "permission_missing"
    assert find_access_refusal(policy, **{**arguments, "stated_purpose": "HMARKT"}) == "purpose_not_declared"
    emergency = {**arguments, "assurance_refusal": None, "stated_purpose": "ETREAT"}
    assert find_access_refusal(policy, **emergency) == "purpose_not_declared"
    assert find_access_refusal(policy, **emergency, emergency_purpose="ETREAT") is None


INVALID: dict[str, dict[str, Any]] = {
    "a string": {"acr": "a string"},
    "two values in one": {"acr": ["two values"]},
    "a quote": {"acr": ['a"quote']},
    "a backslash": {"acr": ["a\\backslash"]},
    "not ASCII": {"acr": ["ä"]},
    "an empty value": {"acr": [""]},
    "a number": {"acr": [3]},
    "null": {"acr": None},
    "seconds": {"max_age": 300},
    "less than a minute": {"max_age": timedelta(seconds=59)},
    "a zero max_age": {"max_age": timedelta(0)},
    "a string for max_age": {"max_age": "5m"},
    "a string of vectors": {"vot": "P9.Cp"},
    "a vector with a blank": {"vot": ["P9 Cp"]},
    "null vectors": {"vot": None},
}


@pytest.mark.parametrize("changed", INVALID.values(), ids=INVALID)
def test_invalid_declaration_is_refused_at_decoration(changed: dict[str, Any]) -> None:
    good = {"acr": ["urn:example:loa:3"], "vot": ["P9.Cp"], "max_age": timedelta(minutes=1)}
    access = {"purpose": "TREAT", "resource": lambda request: "Patient/7", "permission": "portal.view"}
    require_assurance(**good)  # type: ignore[arg-type]
    phi_access(**access, **good)  # type: ignore[arg-type]
    for make in (require_assurance, lambda **arguments: phi_access(**access, **arguments), parse_assurance):
        with pytest.raises(DeclarationInvalid):
            make(**{**good, **changed})  # type: ignore[operator]


class Strong(AssuranceMixin, View):
    acr = ("urn:example:loa:3",)


class Chart(PHIAccessMixin, View):
    permission, purpose, acr = "portal.view", "TREAT", ("urn:example:loa:3",)

    def get_resource(self) -> str:
        return "Patient/7"


def test_empty_assurance_is_refused() -> None:
    assert parse_assurance(acr=(), max_age=None) == Assurance()
    for make in (parse_required_assurance, require_assurance):
        with pytest.raises(DeclarationInvalid, match="missing"):
            make(acr=(), max_age=None)  # type: ignore[operator]
    Strong.as_view()
    with pytest.raises(DeclarationInvalid, match="missing"):
        type("Wrong", (Strong,), {"acr": ()}).as_view()  # type: ignore[attr-defined]


def test_class_with_both_mixins_is_refused() -> None:
    Chart.as_view()
    assert Chart.get_access_policy().assurance == Assurance(acr=("urn:example:loa:3",))
    with pytest.raises(DeclarationInvalid, match="of its own"):
        type("Both", (AssuranceMixin, Chart), {}).as_view()  # type: ignore[attr-defined]


def test_guard_on_a_method_raises_type_error(rf: Any) -> None:
    class Wrong(View):
        @require_assurance(max_age=FIVE)
        def get(self, request: HttpRequest) -> Any:
            raise AssertionError

    with pytest.raises(TypeError, match="AssuranceMixin"):
        Wrong.as_view()(rf.get("/"))


@pytest.mark.parametrize("session_user", ["own", "another", "anonymous"])
def test_actor_has_the_assurance_of_their_own_session(session_user: str, rf: Any, django_user_model: Any) -> None:
    user = django_user_model(pk=7)
    request = rf.get("/")
    request.user = AnonymousUser() if session_user == "anonymous" else user
    request.session = {
        SESSION_KEY: "1c9c1a0e-6b1c-4d3e-9a57-0a5f0c5d0e11",
        "_auth_user_id": "8" if session_user == "another" else "7",
        ASSURANCE_KEY: build_assurance_entry(acr="urn:example:loa:3", auth_time=NOW),
        VECTOR_OF_TRUST_KEY: "P9.Cp",
    }
    actor = Actor.from_request(request)
    known = ("", "", None) if session_user == "another" else ("urn:example:loa:3", "P9.Cp", NOW)
    assert (actor.acr, actor.vot, actor.auth_time) == known
    request.session[VECTOR_OF_TRUST_KEY] = ""
    assert Actor.from_request(request).vot == ""


def test_challenge_contains_only_the_required_parameters() -> None:
    start = 'Bearer error="insufficient_user_authentication", error_description="'
    assert format_step_up_challenge(Assurance(acr=("a", "b"))).startswith(start)
    assert format_step_up_challenge(Assurance(acr=("a", "b"))).endswith(', acr_values="a b"')
    assert format_step_up_challenge(Assurance(max_age=FIVE)).endswith(', max_age="300"')


@pytest.mark.parametrize(
    ("path", "referer", "is_shown", "page"),
    [
        ("/a/?x=1&y=%C3%A4", "", True, "/a/?x=1&y=%C3%A4"),
        ("/a/", "https://testserver/form/?x=1#part", False, "/form/?x=1"),
        ("/a/", "https://elsewhere.example/form/", False, "/a/"),
        ("/a/", "http://testserver/form/", False, "/a/"),
        ("/a/", "https://testserver//elsewhere.example/", False, "/%2Felsewhere.example/"),
        ("/a/", "https://testserver/\\elsewhere.example/", False, "/%5Celsewhere.example/"),
        ("/a/", "", False, "/a/"),
        ("/a/?x=" + "y" * MAX_RETURN_PATH_LENGTH, "", True, "/a/"),
        ("/" + "y" * MAX_RETURN_PATH_LENGTH, "", True, ""),
        ("https://testserver//elsewhere.example/?x=1", "", True, "/%2Felsewhere.example/?x=1"),
        ("https://testserver//elsewhere.example/", "", False, "/%2Felsewhere.example/"),
        (
            "https://testserver//elsewhere.example/?x=" + "y" * MAX_RETURN_PATH_LENGTH,
            "",
            True,
            "/%2Felsewhere.example/",
        ),
        ("/a%3Fb%23c/", "", False, "/a%3Fb%23c/"),
    ],
)
def test_return_path_is_always_on_this_host(path: str, referer: str, is_shown: bool, page: str, rf: Any) -> None:
    headers = {"Referer": referer} if referer else {}
    assert get_return_path(rf.get(path, headers=headers, secure=True), is_safe_navigation=is_shown) == page


def test_views_of_the_page_require_a_sign_in(rf: Any) -> None:
    portal = ModuleType("portal_with_assurance")
    client = {"issuer": "https://auth.login.nhs.uk", "client_id": "portal", "client_secret": "s3cret"}
    portal.PHI_OIDC = {"PROVIDERS": {"default": client}}
    exec("\n".join(re.findall(r"<!-- tested: \w+ -->\n```python\n(.*?)```", HOW_TO, re.DOTALL)), vars(portal))
    request = rf.get("/", headers={"Accept": "text/html"}, secure=True)
    request.user, request.session = AnonymousUser(), {}
    for view, kwargs in (
        (portal.prescribe, {}),
        (portal.record, {}),
        (portal.Settings.as_view(), {}),
        (portal.chart, {"pk": 7}),
    ):
        assert view(request, **kwargs)["Location"].startswith("/oidc/authenticate/")
    declared = sections.parse_one(portal.PHI_OIDC, "ADMIN_ASSURANCE")
    provider = sections.parse_one(portal.PHI_OIDC, "PROVIDERS")["default"]
    assert (len(provider.vtr), provider.requires_assurance, provider.provider_requires_mfa) == (6, True, True)
    assert (declared.acr, declared.privilege_max_age) == (("urn:example:loa:3",), timedelta(minutes=10))


@pytest.mark.parametrize(
    ("max_age", "expected"), [(None, timedelta(minutes=1)), (FIVE, timedelta(minutes=1)), (timedelta(0), timedelta(0))]
)
def test_demanded_sign_in_is_a_new_one_and_other_refusals_change_nothing(
    max_age: timedelta | None, expected: timedelta
) -> None:
    assurance = Assurance(acr=("b",), max_age=max_age)
    assert get_step_up_assurance(assurance, SIGN_IN_DEMANDED) == Assurance(acr=("b",), max_age=expected)
    assert get_step_up_assurance(assurance, "acr_insufficient") == assurance
