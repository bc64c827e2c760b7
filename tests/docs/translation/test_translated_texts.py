"""Every text that people read is in a translation catalogue: with a pseudo-translation, the others stand out."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth import get_user_model
from django.core import mail
from django.db import transaction
from django.template import engines
from django.urls import include, path, reverse
from django.utils.translation import gettext_lazy
from django.views.generic import TemplateView

from django_phi_oidc._internal import clock
from django_phi_oidc.access.emergency.models import EmergencyAccess
from django_phi_oidc.access.emergency.notifications import send_due_alerts
from django_phi_oidc.access.policy import PURPOSES
from django_phi_oidc.anomalies import alerts
from django_phi_oidc.anomalies.models import SecurityAlert
from django_phi_oidc.audit.admin_base import get_error_message
from django_phi_oidc.audit_exports.models import TrailJob
from django_phi_oidc.claims.models import StoredClaim
from django_phi_oidc.claims.views import RevealMixin
from django_phi_oidc.errors import HeldForLegalReasons, InvitationRefused
from django_phi_oidc.individual_rights.views import AccountingMixin
from django_phi_oidc.subjects.models import NoticeKind, PairwiseSubject
from django_phi_oidc.subjects.notices import send_due_notices, write_notice
from tests.docs.translation import admin_pages as walking
from tests.docs.translation import portal_pages as portal
from tests.docs.translation.admin_pages import DATA, Found, look, of_model
from tests.docs.translation.portal_rows import declare, fill
from tests.docs.translation.pseudo_translation import (
    PAGES,
    extracted,
    of_django,
    of_its_own,
    put_in,
    untranslated,
    wide,
)
from tests.support.claims_fixtures import NOW
from tests.support.disclosure_events import look as looked_at
from tests.support.emergency_access import OFFICER
from tests.support.mail_settings import mail_by
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SignedIn, op, sign_in  # noqa: F401 -- fixtures

OF_MODELS = [*apps.get_app_config("django_phi_oidc").get_models()]
RARE = {
    "You may not open it, or not for that purpose, or its consent is missing.",
    "It cannot be decrypted.",
    "Its time is over.",
    "No key opens it.",
    "Newer",
    "Older",
    "Nothing was exported: download your other exports first, or wait for a day.",
    "Another person has already acknowledged it.",
    "There is no user %(user)s.",
    "You selected more than %(most)d codes. None was revoked. Select fewer.",
    "Nothing was erased, because more than %(most)d persons were selected. Select fewer.",
    "The object does not exist any more.",
    "Identity and access",
    "Too many of your emergency accesses were not reviewed yet. Call the privacy officer.",
    "in %(sector)s",
    "Consent",
    "For substance use disorder records (42 CFR Part 2): the reference of the patient’s consent or of the court order, "
    "without names. It is recorded in the audit log.",
}
"""What the walk does not come by: for two at once, for thousands of rows, for lost keys, for labels."""


class Record(AccountingMixin, TemplateView):
    template_name = "record.html"


class Details(RevealMixin, TemplateView):
    template_name = "details.html"


HOST = {
    "record.html": "{% for each in disclosures %}<p>{{ each.actor_name }}: {{ each.purpose }}</p>{% endfor %}",
    "details.html": "{% for claim in claims %}<p>{{ claim.masked }}</p>{% endfor %}<form>{{ form }}</form>",
}
pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.docs.translation.test_translated_texts"),
]
urlpatterns = [
    path("record/", Record.as_view()),
    path("details/", Details.as_view()),
    path("", include("tests.urls")),
]


@pytest.fixture(autouse=True)
def _portal(settings: Any, op: Any, tmp_path: Path) -> Iterator[None]:
    declare(settings, tmp_path)
    mail_by(settings, "locmem")
    loaders = ["django.template.loaders.app_directories.Loader", ("django.template.loaders.locmem.Loader", HOST)]
    options = {**settings.TEMPLATES[0]["OPTIONS"], "loaders": loaders}
    settings.TEMPLATES = [{**settings.TEMPLATES[0], "APP_DIRS": False, "OPTIONS": options}]
    with clock.override_clock(lambda: NOW):
        yield


@pytest.fixture
def boss(sign_in: Callable[[], SignedIn]) -> Any:
    """Return the browser of a superuser with an OIDC session."""
    signed_in = sign_in()
    user: Any = signed_in.user
    # Without an event: the first pages that the walk looks at are empty.
    type(user).objects.filter(pk=user.pk).update(is_staff=True, is_superuser=True, username="Начальник")
    user.refresh_from_db()
    StoredClaim.objects.all().delete()
    client: Any = signed_in.client()
    client.user = user
    return client


def mails() -> list[str]:
    """Send one of each kind, and return their subjects and bodies."""
    mail.outbox.clear()
    user: Any = get_user_model()._default_manager.first()
    user.email = OFFICER
    with transaction.atomic():
        for kind in NoticeKind:
            write_notice(user, kind, provider="1", now=NOW)
    assert send_due_notices(now=NOW) == len(NoticeKind)
    EmergencyAccess.objects.update(alert_due_at=NOW)
    SecurityAlert.objects.update(due_at=NOW)
    assert send_due_alerts(mail_to=[OFFICER], now=NOW) == EmergencyAccess.objects.count()
    assert alerts.send_due_alerts(recipients=[OFFICER], now=NOW) == SecurityAlert.objects.count()
    return [text for each in mail.outbox for text in (each.subject, each.body)]


def test_every_text_is_translated(
    boss: Any,
    sign_in: Callable[[], SignedIn],
    settings: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One walk, for each page, and all that is said on it, shows texts of others."""
    found: Found = {}
    asked = put_in(monkeypatch)
    monkeypatch.setattr("django_phi_oidc.audit_exports.admin.MAX_STREAMED_EVENTS", 1)
    walking.look_at_nothing(found, boss)
    patient, other = sign_in(), sign_in()
    fill(patient)
    TrailJob.objects.update(asked_by=str(boss.user.pk))
    walking.look_at_rows(found, boss)
    walking.look_at_the_trail(found, boss)
    walking.look_at_the_person(found, boss, patient)
    walking.fill_in_forms(found, boss, patient, settings)
    for by in (7, other.user.pk):
        looked_at(resource=f"Patient/{other.user.pk}", by=by)
    portal.look_at_templates(found)
    portal.sign_in_pages(found)
    portal.own_pages(found, other)
    portal.emergency_pages(found, other)
    assert [text for text in mails() if untranslated(f"<p>{text}</p>", data=DATA)] == []
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": Path("/nowhere")})
    look(found, boss, of_model(StoredClaim, "report"))
    walking.look_at_what_is_away(found, boss, patient)
    walking.look_at_what_is_altered(found, boss, patient)
    assert not found, "\n".join(f"{url}: {texts}" for url, texts in found.items())
    monkeypatch.undo()
    ours = extracted()
    assert asked - ours - of_django() == set(), "makemessages would not find it"
    named = {str(name) for model in OF_MODELS for name in (model._meta.verbose_name, model._meta.verbose_name_plural)}
    assert ours - asked - named - set(PURPOSES.values()) == RARE, "the walk goes past it, or does not any more"


def test_page_of_a_user_has_its_link_translated(boss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest of it is Django's, with the names of permissions, which the database has."""
    url = reverse("admin:auth_user_change", args=[boss.user.pk])
    assert "Identity and access" in boss.get(url).content.decode()
    put_in(monkeypatch)
    page = boss.get(url).content.decode()
    assert wide("Identity and access") in page
    assert "Identity and access" not in page


@pytest.mark.parametrize(
    ("refusal", "words"),
    [
        (PairwiseSubject.DoesNotExist("no row"), "The object does not exist any more."),
        (InvitationRefused("There is no user %(user)s.", user="7"), "There is no user 7."),
        (HeldForLegalReasons(), "A legal hold keeps what is stored about this person: release it first."),
    ],
)
def test_refusal_message_is_translated(refusal: Any, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert get_error_message(refusal) == words
    put_in(monkeypatch)
    assert get_error_message(refusal) == wide(words)


PLANTED = """<h1>{{ _("Events") }}</h1>{% load i18n %}<p title="a tip">{% translate "Select %s to change" %}</p>
<p>{% blocktranslate with what=name %}Select {{ what }} to change{% endblocktranslate %} {{ lazy }}</p><b>7 bar</b>
<input type="submit" value="Go"><input value="data"><img alt="bar"><code>code</code><p>{{ id }} {{ record }}</p>"""


def test_text_that_is_in_no_catalogue_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control: planted in a template, in what is put into a sentence, in an attribute, or not at all."""
    put_in(monkeypatch)
    context = {
        "name": "oidc session",
        "lazy": gettext_lazy("no"),
        "id": "01a20d6d-5a00-7000-9d18-c090edc2bf01",
        "record": "Patient/7",
    }
    page = engines["django"].from_string(PLANTED).render(context)
    found = untranslated(page, data=DATA)
    assert [where for where, _ in found] == ["@title", "p", "b", "@value", "@alt"]
    assert found[1][1].startswith(f"{wide('Select')} oidc session {wide('to change')}")
    assert of_its_own(PLANTED) == [("@title", "a tip"), ("b", "7 bar"), ("@value", "Go"), ("@alt", "bar")]


@pytest.mark.parametrize("name", ["oidcsession", "legalhold"])
def test_name_of_a_model_in_plain_english_is_found(name: str, boss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options, found = apps.get_model("django_phi_oidc", name)._meta, Found()
    put_in(monkeypatch)
    look(found, boss, reverse("admin:index"))
    assert found == {}
    monkeypatch.setattr(options, "verbose_name_plural", "plain words")
    look(found, boss, reverse("admin:index"))
    assert ("a", "Plain words") in found["/admin/ "]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_template_has_a_text_of_its_own(page: Path) -> None:
    assert of_its_own(page.read_text()) == []
