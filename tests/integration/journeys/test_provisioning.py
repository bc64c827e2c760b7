"""Provisioning with `existing`: only linked people can sign in."""

import io
import json
import sys
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import call_command

from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.sessions.models import OIDCSession
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from django_phi_oidc.testing.mock_provider import DemoProvider
from tests.integration.journeys.rule_codes import accepts, shows
from tests.support.http_browser import Browser
from tests.support.portal_fixtures import EVERYTHING, declaration, events

pytestmark = pytest.mark.django_db(**EVERYTHING)


@pytest.fixture(autouse=True)
def _existing(op: DemoProvider, settings: Any) -> None:
    declare(settings, op, provisioning="existing")


def declare(settings: Any, op: DemoProvider, **options: str) -> None:
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": declaration(op, **options)}}


@pytest.fixture
def link(op: DemoProvider, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that links a person of the provider to a new user by the command, and returns the user."""

    def run(username: str) -> Any:
        user = get_user_model().objects.create_user(f"record of {username}")
        monkeypatch.setattr(sys, "stdin", io.StringIO(op.get_subject(username, "portal") + "\n"))
        words = ["subject", "link", "--provider", "default", "--user", user.get_username()]
        call_command("phi_oidc", *words, stdout=io.StringIO())
        return user

    return run


def unlink(user: Any) -> None:
    subject = PairwiseSubject.objects.get(user=user)
    call_command("phi_oidc", "subject", "unlink", str(subject.uuid), stdout=io.StringIO())


def reasons() -> list[str]:
    return [event.reason for event in events(action="login.refused")]


@shows("not_provisioned")
def test_first_sign_in_is_accepted_only_with_a_link(op: DemoProvider, browser: Browser, link: Any) -> None:
    assert browser.sign_in(op).status == 403
    assert browser.user() == ""
    assert reasons() == ["not_provisioned"]
    assert op.tokens != []
    assert op.active_tokens == []
    counted = (get_user_model(), PairwiseSubject, SubjectDigest, OIDCSession, StoredClaim)
    assert [model.objects.count() for model in counted] == [0] * 5

    user = link("amina")
    assert browser.sign_in(op).status == 302
    assert browser.user() == str(user.pk)
    assert get_user_model().objects.count() == 1
    assert [json.loads(event.detail) for event in events(action="subject.linked")] == [{"created": False}]
    assert reasons() == ["not_provisioned"]


def test_link_of_one_person_does_not_admit_another(op: DemoProvider, browser: Browser, link: Any) -> None:
    link("amina")
    assert browser.sign_in(op, "jonas").status == 403
    assert reasons() == ["not_provisioned"]
    assert op.active_tokens == []


@accepts("not_provisioned")
def test_account_made_by_create_is_accepted_by_existing(op: DemoProvider, browser: Browser, settings: Any) -> None:
    declare(settings, op, provisioning="create")
    assert browser.sign_in(op).status == 302
    declare(settings, op, provisioning="existing")
    again = Browser(browser.base_url)
    assert again.sign_in(op).status == 302
    assert again.user() == browser.user() != ""


def test_unlinking_ends_all_sessions_and_refuses_the_next_sign_in(
    op: DemoProvider, browser: Browser, link: Any
) -> None:
    user = link("amina")
    other = Browser(browser.base_url)
    for signed_in in (browser, other):
        signed_in.sign_in(op)
        assert signed_in.user() == str(user.pk)
    assert len(op.active_tokens) == 4
    assert StoredClaim.objects.count() == 3

    unlink(user)
    assert [browser.user(), other.user()] == ["", ""]
    assert op.active_tokens == []
    assert not StoredClaim.objects.exists()
    assert {session.end_reason for session in OIDCSession.objects.all()} == {"subject_unlinked"}
    assert len(events(action="subject.unlinked")) == 1
    assert browser.sign_in(op).status == 403
    assert reasons() == ["not_provisioned"]
    assert get_user_model().objects.get() == user
