"""Invite and link people from a CSV file in the admin: preview, confirmation, refusals, and files that are refused."""

import csv
import html
import io
import json
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.contrib.invitations.activation_redemption import redeem_code
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.contrib.subject_links.csv_import import admin, rows
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.linking import find_linked_subject, link_existing_user
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support.audit_fixtures import audit_database_away  # noqa: F401 -- a fixture
from tests.support.officers import create_account, sign_in_officer
from tests.support.subject_linking import NOW

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
CODES, SUBJECTS = "/admin/phi_oidc_invitations/activationcode/", "/admin/django_phi_oidc/pairwisesubject/"
INVITE, LINK = f"{CODES}import/", f"{SUBJECTS}import/"
CANARY = "sub-canary-Bern"
INVITER, LINKER = "issue_activationcode", "add_pairwisesubject"
time = [NOW]


@pytest.fixture(autouse=True)
def _at_noon(settings: Any) -> Iterator[None]:
    settings.SESSION_COOKIE_SECURE = settings.CSRF_COOKIE_SECURE = False
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "invitation"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": default}}
    time[0] = NOW
    with clock.override_clock(lambda: time[0]):
        yield


def people(*names: str) -> list[Any]:
    return [create_account(name) for name in names]


def upload(client: Client, url: str, content: str | bytes, **fields: str) -> Any:
    data = content.encode() if isinstance(content, str) else content
    file = SimpleUploadedFile("people.csv", data, content_type="text/csv")
    return client.post(url, {"provider": "default", "file": file, **fields})


def text_of(page: Any) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page.content.decode())).split())


def hidden(page: Any, name: str) -> str:
    found = re.search(rf'name="{name}" value="([^"]+)"', page.content.decode())
    assert found, text_of(page)
    return html.unescape(found[1])


def confirm(client: Client, url: str, preview: Any) -> Any:
    return client.post(url, {"pending": hidden(preview, "pending")}, follow=True)


def recorded(action: str) -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action=action).order_by("id"))


def problems(page: Any) -> dict[int, str]:
    """Return the problems of a preview by line."""
    section = page.content.decode().partition('id="phi-problems"')[2].partition("</table>")[0]
    rows = re.findall(r'<th scope="row">(\d+)</th><td>.*?</td><td>.*?</td><td>(.*?)</td>', section)
    return {int(line): html.unescape(problem) for line, problem in rows}


def invited() -> set[str]:
    return set(ActivationCode.objects.unused().values_list(f"user__{get_user_model().USERNAME_FIELD}", flat=True))


def link(user: Any, sub: str = "another-person") -> PairwiseSubject:
    fields: dict[str, Any] = {"provider": conf.providers()["default"], "keys": keyring.get_keys("subject")}
    return link_existing_user(user, sub=sub, **fields, origin=Origin(), now=NOW)


def test_people_are_invited_after_the_preview_and_the_codes_are_downloaded() -> None:
    client = sign_in_officer(INVITER)
    people("amina", "jonas")
    content = '\ufeffuser;name\r\namina;"=HYPERLINK(""https://evil.example"")"\r\njonas;Jonas Müller\r\nnobody;x\r\n'
    preview = upload(client, INVITE, content)
    assert (preview.status_code, ActivationCode.objects.count(), recorded("activation.issued")) == (200, 0, [])
    assert "2 people will be invited" in text_of(preview)
    assert "no-store" in preview["Cache-Control"]
    assert problems(preview) == {4: "There is no such user. Write the user name, or “pk:” and the primary key."}
    assert "Jonas Müller" not in text_of(preview)

    result = confirm(client, INVITE, preview)
    assert (result.status_code, invited()) == (200, {"amina", "jonas"})
    assert "2 people were invited" in text_of(result)
    assert "no-store" in result["Cache-Control"]
    events = recorded("activation.issued")
    assert [event.actor for event in events] == [str(client.user.pk)] * 2  # type: ignore[attr-defined]

    response = client.post(f"{INVITE}codes/", {"codes": hidden(result, "codes")})
    assert response["Content-Disposition"].startswith("attachment")
    assert "no-store" in response["Cache-Control"]
    # The format of the file that was uploaded.
    assert response.content.startswith(b"\xef\xbb\xbfuser;name;code;expires_at")
    amina, jonas = csv.DictReader(io.StringIO(response.content.decode("utf-8-sig")), delimiter=";")
    assert (amina["user"], amina["name"]) == ("amina", '\'=HYPERLINK("https://evil.example")')
    assert jonas["name"] == "Jonas Müller"
    keys = keyring.get_keys("subject")
    fields: dict[str, Any] = {"provider": conf.providers()["default"], "keys": keys, "origin": Origin(), "now": NOW}
    subject = redeem_code(jonas["code"], sub="sub-of-jonas", **fields)
    assert subject.user.get_username() == "jonas"
    assert jonas["code"] not in json.dumps([event.detail for event in AuditEvent.objects.all()])


def test_people_are_linked_after_the_preview_and_no_page_shows_a_sub() -> None:
    client = sign_in_officer(LINKER, "view_pairwisesubject")
    amina, jonas, lena = people("amina", "jonas", "lena")
    link(lena, "sub-of-lena")
    preview = upload(client, LINK, f"user,sub\namina,{CANARY}\npk:{jonas.pk},sub-of-jonas\nlena,sub-of-lena\n")
    assert (preview.status_code, PairwiseSubject.objects.count()) == (200, 1)
    assert "2 people will be linked" in text_of(preview)
    assert "1 person is already linked." in text_of(preview)
    result = confirm(client, LINK, preview)
    assert result.redirect_chain == [(SUBJECTS, 302)]
    assert "2 people were linked." in text_of(result)
    for page in (preview, result):
        assert CANARY not in page.content.decode()
    found = find_linked_subject(issuer=conf.providers()["default"].issuer, sub=CANARY, keys=keyring.get_keys("subject"))
    assert found is not None
    assert found.user == amina
    events = [event for event in recorded("subject.linked") if event.actor]
    assert {event.resource for event in events} == {f"user/{amina.pk}", f"user/{jonas.pk}"}
    assert {event.actor for event in events} == {str(client.user.pk)}  # type: ignore[attr-defined]
    assert {event.detail for event in events} == {'{"created":false}'}


def test_link_from_a_file_revokes_codes_and_writes_notices_as_a_single_link() -> None:
    client = sign_in_officer(INVITER, LINKER, "view_pairwisesubject")
    people("amina", "jonas")
    get_user_model()._default_manager.filter(username="amina").update(email="amina@clinic.example")
    confirm(client, INVITE, upload(client, INVITE, "user\namina\n"))
    assert invited() == {"amina"}
    confirm(client, LINK, upload(client, LINK, "user,sub\namina,sub-1\njonas,sub-2\n"))
    assert (invited(), AccountNotice.objects.count()) == (set(), 1)
    assert [event.reason for event in recorded("activation.revoked")] == ["linked"]
    assert SubjectDigest.objects.count() == 2 * len(keyring.get_keys("subject"))


@pytest.mark.parametrize("url", [INVITE, LINK])
@pytest.mark.parametrize("permissions", [(), ("view_activationcode", "view_pairwisesubject")])
def test_import_needs_the_permission_of_a_single_one(url: str, permissions: tuple[str, ...]) -> None:
    client = sign_in_officer(*permissions)
    people("amina")
    requests = [
        lambda: client.get(url),
        lambda: client.get(f"{url}template/"),
        lambda: upload(client, url, "user\namina"),
    ]
    for number, request in enumerate(requests, start=1):
        assert request().status_code == 403
        refused = recorded("access.denied")
        assert (len(refused), refused[-1].reason) == (number, "permission_missing")
    permitted = sign_in_officer({INVITE: INVITER, LINK: LINKER}[url])
    assert permitted.get(url).status_code == 200
    assert permitted.get(f"{url}template/").content.startswith(b"\xef\xbb\xbfuser")


def test_accounts_with_more_permissions_are_refused_and_recorded_and_the_others_are_invited() -> None:
    client = sign_in_officer(INVITER)
    superuser = create_account("root", is_superuser=True)
    clinician, linked, _patient = people("clinician", "linked", "patient")
    clinician.user_permissions.add(Permission.objects.get(codename="reveal_storedclaim"))
    link(linked)
    PairwiseSubject.objects.update(issuer="https://another.example")
    preview = upload(client, INVITE, "user\nroot\nclinician\nlinked\npatient\n")
    more = "This account has permissions that you do not have."
    second = "A person is already linked to this account, and you may not link a second one."
    assert problems(preview) == {2: more, 3: more, 4: second}
    refused = recorded("access.denied")
    assert {event.resource for event in refused} == {f"user/{user.pk}" for user in (superuser, clinician, linked)}
    assert {(event.outcome, event.detail) for event in refused} == {("failure", '{"page":"activationcode/import"}')}
    confirm(client, INVITE, preview)
    assert (invited(), len(recorded("access.denied"))) == ({"patient"}, 3)

    root = sign_in_officer(user=superuser)
    superuser.is_staff = True
    superuser.save()
    assert problems(upload(root, INVITE, "user\nclinician\nlinked\npatient\n")) == {}


def test_more_privileged_accounts_are_not_linked() -> None:
    client = sign_in_officer(LINKER)
    superuser = create_account("root", is_superuser=True)
    preview = upload(client, LINK, "user,sub\nroot,sub-1\n")
    assert list(problems(preview)) == [2]
    assert [event.resource for event in recorded("access.denied")] == [f"user/{superuser.pk}"]
    assert 'name="pending"' not in preview.content.decode()


def test_refusal_that_cannot_be_recorded_shows_no_preview(audit_database_away: Callable[[], Any]) -> None:
    client = sign_in_officer(INVITER)
    create_account("root", is_superuser=True)
    people("amina")
    with audit_database_away():
        assert upload(client, INVITE, "user\nroot\namina\n").status_code == 503
    assert upload(client, INVITE, "user\nroot\namina\n").status_code == 200


def test_each_row_with_a_problem_is_explained_without_its_cells() -> None:
    client = sign_in_officer(INVITER)
    amina, away, linked = people("amina", "away", "linked")
    get_user_model()._default_manager.filter(pk=away.pk).update(is_active=False)
    link(linked)
    content = (
        f"user,name\namina,A\n{CANARY},B\npk:{amina.pk},C\naway,D\nlinked,E\namina\npk:{CANARY},F\nuuid:{CANARY},G\n"
    )
    preview = upload(client, INVITE, content)
    unknown = "There is no such user. Write the user name, or “pk:” and the primary key."
    assert problems(preview) == {
        3: unknown,
        4: "This user is already in line 2.",
        5: "The account is deactivated.",
        6: "A person is already linked to this account at this provider.",
        7: "1 cell, but 2 columns in the first line.",
        8: unknown,
        9: unknown,
    }
    assert CANARY not in preview.content.decode()


def test_each_link_with_a_problem_is_explained_without_its_cells() -> None:
    client = sign_in_officer(LINKER)
    _amina, linked, jonas, _lena = people("amina", "linked", "jonas", "lena")
    link(linked, "sub-of-linked")
    long = CANARY * 30
    content = (
        f"user,sub,provider\namina,{CANARY},\njonas,{CANARY},default\nlinked,sub-2,\namina,sub-3,\nlena,{long},\n"
        f"jonas,sub-of-linked,\nlena,sub-4,{CANARY}\n"
    )
    preview = upload(client, LINK, content)
    assert problems(preview) == {
        3: "This sub is already in line 2.",
        4: "Another person of this provider is already linked to this account.",
        5: "This user is already in line 2.",
        6: "The subject (sub) must have 1 to 255 ASCII characters.",
        7: "This user is already in line 3.",
        8: "There is no such provider.",
    }
    assert CANARY not in preview.content.decode()
    preview = upload(client, LINK, f"user,sub\npk:{jonas.pk},sub-of-linked\n")
    assert problems(preview) == {2: "This person is already linked to another account."}


REFUSED_FILES = {
    "empty": (b"", "The submitted file is empty."),
    "blank": (b"\n \n", "The file is empty."),
    "only a header": (b"user\n", "The file has no row below the column names."),
    "wrong columns": (b"name;mail\na;b\n", "Line 1: there is no column user; columns are separated by"),
    "no header": (b"amina\njonas\n", "Line 1: there is no column user"),
    "two columns of a name": (b"user,user\na,b\n", "Line 1: two columns have the same name."),
    "reserved column": (b"user,code\na,b\n", "Line 1: the column code is reserved"),
    "Latin-1": ("user,name\namina,Müller\n".encode("latin-1"), "Line 2: not valid UTF-8."),
    "UTF-16": ("user\namina\n".encode("utf-16"), "Line 1: not valid UTF-8."),
    "a spreadsheet": (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\xff", "Line 1: not valid UTF-8."),
    "an open quote": (b'user\n"amina\n', "Line 2: not a valid CSV record"),
    "too many rows": (b"user\n" + b"amina\n" * 5_001, "The file has more than 5000 rows. Split it"),
    "too large": (b"user\n" + b"a" * 1_000_000, "The file is larger than 1 MB. Split it"),
}


@pytest.mark.parametrize("name", REFUSED_FILES)
def test_file_that_is_no_list_of_people_is_refused_with_the_reason(name: str) -> None:
    client = sign_in_officer(INVITER)
    content, message = REFUSED_FILES[name]
    page = upload(client, INVITE, content)
    assert page.status_code == 400
    assert message in text_of(page)
    assert ActivationCode.objects.count() == 0
    people("amina")
    assert upload(client, INVITE, "user\namina\n").status_code == 200


@pytest.mark.parametrize(
    "content", ["\ufeffuser\r\namina\r\n", "name;user\nA;amina\n", " user \tname\namina\tA\n", "user\n\n,\namina"]
)
def test_files_of_spreadsheets_are_accepted(content: str) -> None:
    client = sign_in_officer(INVITER)
    people("amina")
    page = upload(client, INVITE, content)
    assert "1 person will be invited" in text_of(page)


def test_changes_since_the_preview_are_shown_before_anything_is_written() -> None:
    client = sign_in_officer(INVITER)
    _amina, jonas = people("amina", "jonas")
    preview = upload(client, INVITE, "user\namina\njonas\n")
    get_user_model()._default_manager.filter(pk=jonas.pk).update(is_active=False)
    second = confirm(client, INVITE, preview)
    assert "Accounts have changed since the preview. Nothing was written." in text_of(second)
    assert (invited(), list(problems(second))) == (set(), [3])
    confirm(client, INVITE, second)
    assert invited() == {"amina"}


def test_preview_is_confirmed_once() -> None:
    client = sign_in_officer(INVITER)
    people("amina")
    preview = upload(client, INVITE, "user\namina\n")
    confirm(client, INVITE, preview)
    codes = list(ActivationCode.objects.values_list("digest"))
    again = confirm(client, INVITE, preview)
    assert "This preview was already confirmed." in text_of(again)
    assert list(ActivationCode.objects.values_list("digest")) == codes


def test_preview_is_bound_to_its_administrator_its_page_and_an_hour() -> None:
    client, other = sign_in_officer(INVITER), sign_in_officer(INVITER, LINKER)
    people("amina")
    preview = upload(client, INVITE, "user\namina\n")
    pending = {"pending": hidden(preview, "pending")}
    refused = [
        other.post(INVITE, pending, follow=True),
        client.post(INVITE, {"pending": pending["pending"][:-4] + "AAAA"}, follow=True),
        client.post(INVITE, {"pending": ""}, follow=True),
        other.post(LINK, pending, follow=True),
    ]
    time[0] += admin.LIFETIME
    client = sign_in_officer(INVITER, user=client.user)  # type: ignore[attr-defined]
    refused.append(client.post(INVITE, pending, follow=True))
    for page in refused:
        assert "Nothing was written. Select the file again." in text_of(page)
    assert invited() == set()
    time[0] -= timedelta(seconds=1)
    client.post(INVITE, pending)
    assert invited() == {"amina"}


def test_codes_are_returned_to_their_administrator_only() -> None:
    client, other = sign_in_officer(INVITER), sign_in_officer(INVITER)
    people("amina")
    result = confirm(client, INVITE, upload(client, INVITE, "user\namina\n"))
    codes = {"codes": hidden(result, "codes")}
    assert "no longer available" in text_of(other.post(f"{INVITE}codes/", codes, follow=True))
    assert client.get(f"{INVITE}codes/").status_code == 405
    assert sign_in_officer().post(f"{INVITE}codes/", codes).status_code == 403
    assert b"amina" in client.post(f"{INVITE}codes/", codes).content
    time[0] += admin.LIFETIME
    client = sign_in_officer(INVITER, user=client.user)  # type: ignore[attr-defined]
    assert "no longer available" in text_of(client.post(f"{INVITE}codes/", codes, follow=True))


def test_failure_in_the_middle_writes_nothing_and_the_preview_can_be_confirmed_again(
    settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "BATCH_SIZE", 1)
    client = sign_in_officer(LINKER, "view_pairwisesubject")
    people("amina", "jonas")
    preview = upload(client, LINK, "user,sub\namina,sub-1\njonas,sub-2\n")
    trigger = "CREATE TRIGGER refuse BEFORE INSERT ON django_phi_oidc_subjectdigest "
    with connection.cursor() as cursor:
        if connection.vendor == "sqlite":
            condition = "(SELECT count(*) FROM django_phi_oidc_subjectdigest) >= 2"
            cursor.execute(f"{trigger} WHEN {condition} BEGIN SELECT RAISE(ABORT, 'UNIQUE'); END")
        else:
            cursor.execute(
                "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
                "IF (SELECT count(*) FROM django_phi_oidc_subjectdigest) >= 2 THEN "
                "RAISE unique_violation; END IF; RETURN NEW; END $$"
            )
            cursor.execute(f"{trigger} FOR EACH ROW EXECUTE FUNCTION refuse()")
    try:
        page = confirm(client, LINK, preview)
        assert "at the same time. Nothing was written." in text_of(page)
        assert (PairwiseSubject.objects.count(), recorded("subject.linked")) == (0, [])
    finally:
        with connection.cursor() as cursor:
            on = "" if connection.vendor == "sqlite" else " ON django_phi_oidc_subjectdigest"
            cursor.execute(f"DROP TRIGGER refuse{on}")
            if connection.vendor != "sqlite":
                cursor.execute("DROP FUNCTION refuse()")
    confirm(client, LINK, preview)
    assert PairwiseSubject.objects.count() == 2


@pytest.mark.postgresql
@pytest.mark.parametrize("url", [INVITE, LINK])
def test_of_two_imports_of_the_same_people_each_is_complete_or_empty(url: str) -> None:
    clients = [sign_in_officer(INVITER, LINKER, "view_pairwisesubject") for _ in range(2)]
    names = [f"person-{number}" for number in range(40)]
    people(*names)
    lines = [name if url == INVITE else f"{name},sub-of-{name}" for name in names]
    header = "user\n" if url == INVITE else "user,sub\n"
    contents = [header + "\n".join(order) for order in (lines, reversed(lines))]
    previews = [upload(client, url, content) for client, content in zip(clients, contents, strict=True)]

    def run(client: Client, preview: Any) -> str:
        with clock.override_clock(lambda: NOW):
            try:
                return text_of(confirm(client, url, preview))
            finally:
                connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        texts = list(pool.map(run, clients, previews))
    counts = ActivationCode.objects.unused().count(), PairwiseSubject.objects.count()
    assert counts == ((40, 0) if url == INVITE else (0, 40))
    done = sum("40 people were" in text for text in texts)
    assert done >= 1
    assert all("40 people were" in text or "Nothing was written" in text for text in texts)
    assert len(recorded("subject.linked")) + len(recorded("activation.issued")) == 40 * done


def test_import_takes_the_same_number_of_queries_for_any_number_of_people() -> None:
    client = sign_in_officer(INVITER, LINKER, "view_pairwisesubject")
    counts: dict[str, list[int]] = {INVITE: [], LINK: []}
    for number in (2, 20):
        names = [f"person-{number}-{index}" for index in range(number)]
        people(*names)
        contents = {
            INVITE: "user\n" + "\n".join(names),
            LINK: "user,sub\n" + "\n".join(f"{name},sub-{name}" for name in names),
        }
        for url, content in contents.items():
            with CaptureQueriesContext(connection) as captured:
                confirm(client, url, upload(client, url, content))
            counts[url].append(len(captured))
        assert PairwiseSubject.objects.filter(user__username__in=names).count() == number
    for taken in counts.values():
        assert taken[0] == taken[1]
        assert taken[0] <= 80


def test_provider_without_invitations_is_not_offered(settings: Any) -> None:
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "provisioning": "existing"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {"default": default}}
    client = sign_in_officer(INVITER, LINKER)
    people("amina")
    assert "No provider accepts activation codes." in text_of(client.get(INVITE))
    assert upload(client, INVITE, "user\namina\n").status_code == 400
    assert upload(client, LINK, "user,sub\namina,sub-1\n").status_code == 200


def test_template_has_the_delimiter_of_the_language() -> None:
    client = sign_in_officer(LINKER)
    assert client.get(f"{LINK}template/").content.decode("utf-8-sig") == "user,sub,provider\r\n"
    german = client.get(f"{LINK}template/", headers={"accept-language": "de"})
    assert german.content.decode("utf-8-sig") in {"user;sub;provider\r\n", "user,sub,provider\r\n"}
