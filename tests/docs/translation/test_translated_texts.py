"""Every text that people read is in a translation catalogue: with a pseudo-translation, the others stand out."""

from collections.abc import Callable, Iterator, Mapping
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
from django_phi_oidc._internal.admin_theme import DJANGO_TEXTS
from django_phi_oidc.audit.admin_base import get_error_message
from django_phi_oidc.audit.descriptions.action_labels import ACTION_EXPLANATIONS, ACTION_LABELS
from django_phi_oidc.audit.descriptions.alert_labels import ALERT_EXPLANATIONS, ALERT_LABELS
from django_phi_oidc.audit.descriptions.detail_labels import DETAIL_LABELS, DETAIL_VALUE_LABELS, OUTCOME_LABELS
from django_phi_oidc.audit.descriptions.reason_labels import REASON_LABELS
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.purposes import PURPOSES
from django_phi_oidc.claims.models import STANDARD_LABELS, StoredClaim
from django_phi_oidc.claims.views import RevealMixin
from django_phi_oidc.contrib.audit_exports.models import TrailJob
from django_phi_oidc.contrib.emergency.models import EmergencyAccess
from django_phi_oidc.contrib.emergency.notifications import send_due_alerts
from django_phi_oidc.contrib.individual_rights.views import AccountingMixin
from django_phi_oidc.contrib.invitations.errors import InvitationRefused
from django_phi_oidc.contrib.monitoring import alerts
from django_phi_oidc.contrib.monitoring.models import SecurityAlert
from django_phi_oidc.contrib.notices.notices import send_due_notices, write_notices
from django_phi_oidc.contrib.officer_admin import help_desk_advice
from django_phi_oidc.contrib.officer_admin.revocation_descriptions import describe_revocation
from django_phi_oidc.errors import HeldForLegalReasons
from django_phi_oidc.oidc.remedies import REMEDIES, SEE_MANUAL
from django_phi_oidc.sessions.models import PendingRevocation
from django_phi_oidc.subjects.account_changes import AccountChange
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.docs.translation import admin_pages as walking
from tests.docs.translation import portal_pages as portal
from tests.docs.translation.admin_pages import DATA, Found, look, of_model
from tests.docs.translation.portal_rows import NAME, OF_SESSION, declare, fill
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
from tests.support.guarded_views import chart
from tests.support.mail_settings import mail_by
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.session_fixtures import SignedIn, op, sign_in  # noqa: F401 -- fixtures

OF_MODELS = [model for model in apps.get_models() if model.__module__.startswith("django_phi_oidc.")]
"""Models of the core and of all apps."""
RARE = {
    "Not shown: you do not have the permission for this purpose, or the consent is missing.",
    "It cannot be decrypted.",
    "Its retention period has ended.",
    "It cannot be decrypted with the present keys.",
    "Export as JSON lines",
    "Export as FHIR AuditEvent",
    "All events about %(subject)s",
    "The list ends after the first %(most)s rows. Filter it, or search for a person, to find the others.",
    "Checked back to %(at)s UTC. Older events may match: continue with “Older”.",
    "None of the %(scan_limit)s newest events matches these filters. Checked back to %(at)s UTC.",
    "More than one person matches “%(searched)s”. Select a person:",
    "This event is no longer in the database. It was read from this archive, and verified against the signed "
    "checkpoint of the archive.",
    "There are more. Enter more of the name.",
    "Last sign-in (UTC)",
    "Nothing was exported: download your other exports first, or wait for a day.",
    "Another person has already acknowledged it.",
    "There is no user %(user)s.",
    "This record does not exist any more.",
    "%(held)d person is on legal hold, so none of their claims were erased.",
    "%(held)d persons are on legal hold, so none of their claims were erased.",
    *("%(duration)s left", "Until the end of the session", "Overdue: its session has ended", "Erased"),
    *("On legal hold until %(time)s UTC", "Until %(time)s UTC: the person cannot be unlinked.", "Active for a time"),
    *("Accounting suspended until (UTC)", "Oral statement of (UTC)", "Deleted account", "Refresh token"),
    *("End %(count)d session now?", "End %(count)d sessions now?"),
    "Replace this code by a new one?",
    "More than %(most)d people match. Enter more of the name.",
    "Only the first %(most)s rows were searched. Search for a person to find the others.",
    "and %(unnamed)s more",
    "The new code is shown once. An earlier code for the same provider becomes invalid.",
    *("There is no provider %(provider)s.", "User %(user)s is deactivated."),
    "Provider %(provider)s accepts no activation codes: its provisioning is %(provisioning)s.",
    *("pending", "abandoned", "not supported by the provider", "refused by the provider"),
    "Identity and access",
    "Too many of your emergency accesses still wait for a review. Call the privacy officer.",
    "in %(sector)s",
    "The page requires this permission: %(permission)s.",
    "This action needs a sign-in at the identity provider. You signed in another way.",
    "You are signed in as <strong>%(label)s</strong> (%(username)s).",
    "%(count)s more access is not listed here.",
    "%(count)s more accesses are not listed here.",
    "deleted account %(key)s",
    "overdue since %(time)s, waiting for %(age)s",
    "waiting for %(age)s",
    "For substance use disorder records (42 CFR Part 2): the reference of the patient’s consent or of the court order, "
    "without names. It is recorded in the audit log.",
    # The log of the walk has no such event or revocation.
    *("%(action)s: %(what)s (%(count)d time)", "%(action)s: %(what)s (%(count)d times)"),
    *("%(action)s: %(what)s (attempt %(number)d)", "%(reason)s (%(provider_reason)s)"),
    *("%(count)d session ended", "%(count)d sessions ended", "the server answered %(status)s", "yes", "no"),
    "Waits for the end of the session",
    "If the caller should be permitted to do this, ask an administrator of the portal for the permission.",
    "Several refusals begin with these characters. Ask the caller for the whole reference.",
    "The entry of this reference was altered. Pass the reference on to the security officer.",
    *(
        f"Please try again in %(minutes)s {unit}. If the problem persists, contact our help desk with the reference"
        " below."
        for unit in ("minute", "minutes")
    ),
    # Of jobs and files that the walk does not have.
    "%(count)s token was not revoked:",
    "%(count)s tokens were not revoked:",
    "A person is already linked to this account at this provider.",
    "A person is already linked to this account, and you may not link a second one.",
    "Another person of this provider is already linked to this account.",
    "Another request invited or linked one of these people at the same time. Nothing was written.",
    "No provider accepts activation codes.",
    "Not verified yet.",
    "Nothing was written.",
    "Only the first %(limit)s rows are shown.",
    "The file has more than %(count)d rows. Split it into several files.",
    "The file is empty.",
    "The file is larger than 1 MB. Split it into several files.",
    "The workers revoke the waiting tokens, and try again if the provider does not answer.",
    "There are only routine events.",
    "This account has permissions that you do not have.",
    "This person is already linked to another account.",
    "This sub is already in line %(line)d.",
    "Waiting for a worker",
    "not a valid CSV record: %(error)s.",
    "not valid UTF-8.",
    "two columns have the same name.",
    "%(count)s event has left the log with its month, and is only in an archive: verify the archive instead.",
    "%(count)s event of the file does not match the filters below, or is only in an archive.",
    "%(count)s event waits to be sealed. Verify the file again in a minute.",
    "%(count)s events have left the log with their months, and are only in archives: verify the archives instead.",
    "%(count)s events of the file do not match the filters below, or are only in an archive.",
    "%(count)s events wait to be sealed. Verify the file again in a minute.",
    "All %(count)s events are what was sealed, under the signed checkpoint at %(size)s events.",
    "First event (UTC)",
    "Its %(count)s event is what was sealed, under the signed checkpoint at %(size)s events.",
    "Last event (UTC)",
    "No event that matches the filters is missing.",
    "Nothing was verified. Please correct the error below.",
    "Nothing was verified: the filters are invalid.",
    "The file cannot be verified, because the log itself is damaged. Select “Verify now” in the audit log.",
    "The file cannot be verified, because this server has no keys of the log. Ask the operators of this site.",
    "The file is not verified yet",
    "The file is too large for this page. Verify it with “phi_oidc audit check-export”.",
    "The file is verified",
    "There are more.",
}
"""What the walk does not come by: for two at once, for thousands of rows, for lost keys, for labels, for an outage."""


TABLES: tuple[Mapping[Any, str], ...] = (
    *(ACTION_LABELS, ACTION_EXPLANATIONS, ALERT_LABELS, ALERT_EXPLANATIONS),
    *(DETAIL_LABELS, OUTCOME_LABELS, REASON_LABELS, *DETAIL_VALUE_LABELS.values()),
    *(help_desk_advice.ADVICE_BY_PAGE, help_desk_advice.ADVICE_BY_CODE, help_desk_advice.ACTIVATION_ADVICE),
)
"""Tables of texts, of which the pages show those of the rows that the walk has."""


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
    path("chart/<int:pk>/", chart),
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
        for kind in AccountChange:
            write_notices([user], kind, provider="1", now=NOW)
    assert send_due_notices(now=NOW) == len(AccountChange)
    EmergencyAccess.objects.update(alert_due_at=NOW)
    SecurityAlert.objects.update(due_at=NOW)
    assert send_due_alerts(mail_to=[OFFICER], now=NOW) == EmergencyAccess.objects.count()
    # Those that were mailed before get a reminder.
    EmergencyAccess.objects.update(alert_due_at=NOW)
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
    # Other tests have registered actions of projects, whose labels are of no catalogue.
    monkeypatch.setattr("django_phi_oidc.audit.events._registered_actions", {})
    asked = put_in(monkeypatch)
    monkeypatch.setattr("django_phi_oidc.contrib.audit_exports.trail_jobs.MAX_STREAMED_EVENTS", 1)
    walking.look_at_nothing(found, boss)
    patient, other = sign_in(), sign_in()
    fill(patient)
    TrailJob.objects.update(asked_by=str(boss.user.pk))
    walking.look_at_rows(found, boss)
    walking.look_at_deliveries(found, boss, settings)
    walking.look_at_overviews(found, boss)
    walking.look_at_the_trail(found, boss)
    walking.look_at_the_witnesses(found, boss, settings)
    walking.look_at_the_archives(found, boss)
    walking.look_at_the_person(found, boss, patient)
    walking.fill_in_forms(found, boss, patient, settings)
    walking.import_files(found, boss, patient)
    walking.end_in_bulk(found, boss, patient)
    walking.verify_files(found, boss)
    for by in (7, other.user.pk):
        looked_at(resource=f"Patient/{other.user.pk}", by=by)
    # On behalf of an account that does not exist, and has no name.
    looked_at(resource=f"Patient/{other.user.pk}", origin=Origin(actor="7", on_behalf_of="0"))
    portal.look_at_templates(found)
    portal.sign_in_pages(found)
    portal.own_pages(found, other)
    portal.account_pages(found, other)
    portal.emergency_pages(found, other)
    portal.refusal_pages(found, other)
    assert [text for text in mails() if untranslated(f"<p>{text}</p>", data=DATA)] == []
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"retention": Path("/nowhere")})
    look(found, boss, of_model(StoredClaim, "report"))
    walking.look_at_what_is_away(found, boss, patient)
    walking.look_at_what_is_altered(found, boss, patient)
    for row in PendingRevocation.objects.all():
        describe_revocation(row)
    assert not found, "\n".join(f"{url}: {texts}" for url, texts in found.items())
    monkeypatch.undo()
    ours = extracted()
    # The labels of the claims of a project, which its own catalogues can have.
    of_project = {NAME.capitalize(), OF_SESSION.capitalize()}
    assert asked - ours - of_django() == of_project, "makemessages would not find it"
    named = {str(name) for model in OF_MODELS for name in (model._meta.verbose_name, model._meta.verbose_name_plural)}
    named |= {str(name) for model in OF_MODELS for _codename, name in model._meta.permissions}
    # The pages have labels of their own for most fields.
    named |= {str(field.verbose_name) for model in OF_MODELS for field in model._meta.fields}
    # The index of the admin lists only apps with models. The last two apps are not installed here.
    named |= {str(config.verbose_name) for config in apps.get_app_configs()}
    named |= {"Django REST framework", "Your access as JSON"}
    listed = {*PURPOSES.values(), *REMEDIES.values(), *STANDARD_LABELS, *DJANGO_TEXTS, SEE_MANUAL}
    listed |= {text for table in TABLES for text in table.values()}
    # The result of a verification, and who has a name, depend on the rows that other tests have left.
    listed |= {"The verification at %(at)s UTC did not finish.", "a member of staff"}
    listed |= {f"Verified at %(at)s UTC: %(findings)s {noun} (%(kinds)s)." for noun in ("finding", "findings")}
    assert listed & asked
    assert ours - asked - named - listed == RARE, "the walk goes past it, or does not any more"


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
        (PairwiseSubject.DoesNotExist("no row"), "This record does not exist any more."),
        (InvitationRefused("There is no user %(user)s.", user="7"), "There is no user 7."),
        (HeldForLegalReasons(), "A legal hold protects the data of this person. Release it first."),
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


@pytest.mark.parametrize("name", ["django_phi_oidc.oidcsession", "phi_oidc_legal_holds.legalhold"])
def test_name_of_a_model_in_plain_english_is_found(name: str, boss: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    options, found = apps.get_model(name)._meta, Found()
    put_in(monkeypatch)
    look(found, boss, reverse("admin:index"))
    assert found == {}
    monkeypatch.setattr(options, "verbose_name_plural", "plain words")
    look(found, boss, reverse("admin:index"))
    assert ("a", "Plain words") in found["/admin/ "]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_no_template_has_a_text_of_its_own(page: Path) -> None:
    assert of_its_own(page.read_text()) == []
