"""`manage.py phi_oidc subject link --csv`, run as an operator does and as on the page."""

import io
import json
import os
import shlex
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.utils.translation import override

from django_phi_oidc import conf
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.contrib.notices.models import AccountNotice
from django_phi_oidc.contrib.subject_links.csv_import.rows import BATCH_SIZE, MAX_ROWS
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.linking import find_linked_subject, link_existing_user
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.manual_blocks import block
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import ISSUER, NOW, make_user, sign_in
from tests.unit.management.terminal import Terminal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
SUBS = ("sub-canary-1", "sub-canary-2", "sub-canary-3")


@pytest.fixture(autouse=True)
def _at_noon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    with clock.override_clock(lambda: NOW):
        yield


class Ran:
    """A run of the command."""

    def __init__(self, *words: object, stderr: Any = None) -> None:
        out, err = io.StringIO(), stderr or io.StringIO()
        self.error = ""
        try:
            call_command("phi_oidc", "subject", "link", "--csv", *map(str, words), stdout=out, stderr=err)
        except CommandError as error:
            self.error = str(error)
        self.out, self.err = out.getvalue(), err.getvalue()
        self.rows = [json.loads(line) for line in self.out.splitlines()] if "--json" in words else []
        shown = self.out + self.err + self.error
        assert not [sub for sub in SUBS if sub in shown], "a sub is shown"


def written(*lines: str, header: str = "user,sub", mode: int = 0o600) -> Path:
    path = Path("subs.csv")
    path.write_bytes("".join(f"{line}\r\n" for line in (header, *lines)).encode())
    path.chmod(mode)
    return path


def links() -> dict[str, str]:
    """Return the subs that are linked, and the names of their users."""
    keys = keyring.get_keys("subject")
    found = {sub: find_linked_subject(issuer=ISSUER, sub=sub, keys=keys) for sub in SUBS}
    return {sub: subject.user.get_username() for sub, subject in found.items() if subject}


def events() -> list[AuditEvent]:
    return list(AuditEvent.objects.filter(action="subject.linked").order_by("id"))


def second_provider(settings: Any) -> None:
    providers = settings.PHI_OIDC["PROVIDERS"]
    other = {**providers["default"], "issuer": "https://other.example.test"}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": {**providers, "other": other}}


def test_page_shows_a_dry_run_and_the_links() -> None:
    users = [get_user_model()._default_manager.create_user(name) for name in ("amina", "jonas")]
    pk_user = make_user()
    text = block("migrate-existing-users", "subs.csv").replace("pk:42", f"pk:{pk_user.pk}")
    Path("subs.csv").write_text(text)
    Path("subs.csv").chmod(0o600)
    for name, count in (("csv-dry-run", 0), ("csv", 3)):
        line, _, printed = block("migrate-existing-users", name).removeprefix("$ ").partition("\n")
        words = shlex.split(line)
        assert words[:6] == ["python", "manage.py", "phi_oidc", "subject", "link", "--csv"]
        ran = Ran(*words[6:])
        assert (ran.out, ran.err, ran.error) == (printed, "", "")
        assert PairwiseSubject.objects.count() == len(events()) == count
    assert {subject.user for subject in PairwiseSubject.objects.all()} == {*users, pk_user}
    page = block("migrate-existing-users", "subs.csv").splitlines()[1].partition(",")[2]
    assert sign_in(keyring.get_keys("subject"), sub=page, create_user=None).user == users[0]


def test_each_link_has_an_event_and_a_notice() -> None:
    user = make_user()
    get_user_model().objects.update(email="amina@example.org")
    assert Ran(written(f"{user},{SUBS[0]}")).out == "1 persons were linked, 0 were linked before.\n"
    (event,) = events()
    assert (event.actor, event.resource, event.provider) == (build_operator_actor(), f"user/{user.pk}", "default")
    assert json.loads(event.detail) == {"created": False}
    assert [notice.kind for notice in AccountNotice.objects.all()] == ["linked"]


def test_second_run_changes_nothing_and_is_no_error() -> None:
    users = [make_user(), make_user()]
    Ran(written(f"{users[0]},{SUBS[0]}"))
    both = written(*(f"{user},{sub}" for user, sub in zip(users, SUBS, strict=False)))
    assert Ran(both, "--dry-run").out == "Dry run: 1 persons would be linked, 1 were linked before.\n"
    assert len(links()) == 1
    assert Ran(both).out == "1 persons were linked, 1 were linked before.\n"
    assert Ran(both).out == "0 persons were linked, 2 were linked before.\n"
    assert links() == {sub: user.get_username() for sub, user in zip(SUBS, users, strict=False)}
    assert len(events()) == 2


def test_dry_run_needs_no_actor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: 54321)
    user = make_user()
    file = written(f"{user},{SUBS[0]}")
    assert Ran(file, "--dry-run").error == ""
    assert "no actor" in Ran(file).error
    assert links() == {}


# cells of the invalid row, the reason
INVALID = {
    "unknown user": ("nobody,{sub}", "There is no such user."),
    "sub in the column of the user": ("{sub},amina", "There is no such user."),
    "primary key without a prefix": ("1,{sub}", "There is no such user."),
    "empty user": (",{sub}", "There is no such user."),
    "empty sub": ("{user},", "255 ASCII characters"),
    "long sub": ("{user}," + "x" * 256, "255 ASCII characters"),
    "sub that is an address": ("{user},amina@example.org", "the same for all clients"),
    "too few columns": ("{user}", "1 cell, but 2"),
    "too many columns": ("{user},{sub},", "3 cells, but 2"),
    "user twice": ("{first},{sub}", "This user is already in line 2."),
    "sub twice": ("{user},{first_sub}", "This sub is already in line 2."),
}


@pytest.mark.parametrize(("row", "reason"), INVALID.values(), ids=INVALID)
def test_invalid_row_is_reported_by_its_line_and_nothing_is_linked(row: str, reason: str) -> None:
    first, user = make_user(), make_user()
    filled = row.format(user=user, sub=SUBS[1], first=first, first_sub=SUBS[0])
    ran = Ran(written(f"{first},{SUBS[0]}", filled))
    assert ran.error == "1 rows are invalid. Nothing was linked."
    assert ran.err.startswith("Line 3: ")
    assert reason in ran.err
    assert (links(), events()) == ({}, [])
    ran = Ran(written(f"{first},{SUBS[0]}", f"{user},{SUBS[1]}"))
    assert (ran.error, len(links())) == ("", 2)


def test_all_invalid_rows_are_reported() -> None:
    user = make_user()
    file = written("nobody,a", f"{user},{SUBS[0]}", "nobody,b", "", f"{user},{SUBS[1]}")
    ran = Ran(file)
    assert [line.partition(":")[0] for line in ran.err.splitlines()] == ["Line 2", "Line 4", "Line 6"]
    assert ran.error == "3 rows are invalid. Nothing was linked."
    ran = Ran(file, "--json")
    assert [(row["line"], row["status"]) for row in ran.rows] == [(2, "refused"), (4, "refused"), (6, "refused")]
    assert ran.err == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "The file is empty"),
        (b"user,name\r\n", "no column sub"),
        (b"amina,sub-canary-1\r\n", "no column user"),
        (b"user,sub,sub\r\n", "two columns"),
        (b"user,sub\r\n", "no row below the column names"),
        (b"user,sub\r\n\xff,x\r\n", "Line 2: not valid UTF-8"),
        (b'user,sub\r\n"amina,x\r\n', "Line 2: not a valid CSV record: unexpected end of data"),
    ],
)
def test_invalid_file_is_refused(content: bytes, reason: str) -> None:
    Path("subs.csv").write_bytes(content)
    assert reason in Ran("subs.csv").error
    assert "cannot be read: No such file" in Ran("nowhere.csv").error


def test_person_who_is_linked_to_another_user_is_a_conflict() -> None:
    user, other = make_user(), make_user()
    Ran(written(f"{other},{SUBS[0]}"))
    ran = Ran(written(f"{user},{SUBS[0]}", f"{make_user()},{SUBS[1]}"))
    assert ran.err == f"Line 2: This person is already linked to another account. The user is {other}.\n"
    assert ran.error == "1 rows are invalid. Nothing was linked."
    assert links() == {SUBS[0]: other.get_username()}


def test_second_person_for_a_user_is_a_conflict_but_not_at_another_provider(settings: Any) -> None:
    second_provider(settings)
    user = make_user()
    Ran(written(f"{user},{SUBS[0]}"), "--provider", "default")
    ran = Ran(written(f"{user},{SUBS[1]}"), "--provider", "default")
    text = "Another person of this provider is already linked to this account."
    assert ran.err == f"Line 2: {text} The user is {user}.\n"
    assert Ran(written(f"{user},{SUBS[1]}"), "--provider", "other").error == ""
    assert user.pairwise_subjects.count() == 2


def test_provider_is_that_of_the_row_or_of_the_option_or_the_only_one(settings: Any) -> None:
    second_provider(settings)
    first, second, third = make_user(), make_user(), make_user()
    header = "provider,sub,user"
    rows = [f"other,{SUBS[0]},{first}", f",{SUBS[1]},{second}", f"elsewhere,{SUBS[2]},{third}"]
    ran = Ran(written(*rows, header=header))
    assert ran.err == "Line 3: The provider is missing: add --provider.\nLine 4: There is no such provider.\n"
    assert Ran(written(*rows[:2], header=header), "--provider", "default").error == ""
    assert [subject.issuer for subject in PairwiseSubject.objects.order_by("pk")] == [
        "https://other.example.test",
        ISSUER,
    ]
    assert "no provider elsewhere" in Ran(written(*rows, header=header), "--provider", "elsewhere").error


def test_json_has_a_row_for_each_person_and_the_result() -> None:
    first, second = make_user(), make_user()
    Ran(written(f"{first},{SUBS[0]}"))
    file = written(f"{first},{SUBS[0]}", f"{second},{SUBS[1]}")
    *rows, result = Ran(file, "--json", "--dry-run").rows
    assert [(row["line"], row["status"], row["uuid"]) for row in rows] == [
        (2, "already_linked", ""),
        (3, "would_be_linked", ""),
    ]
    assert result == {"linked": 1, "already_linked": 1, "dry_run": True}
    *rows, result = Ran(file, "--json").rows
    assert rows[1] == {
        "line": 3,
        "status": "linked",
        "user": second.get_username(),
        "user_pk": str(second.pk),
        "provider": "default",
        "uuid": str(second.pairwise_subjects.get().uuid),
    }
    assert result == {"linked": 1, "already_linked": 1}


class InterruptedTerminal(Terminal):
    """Links the persons of the other rows to other users when the first one was linked."""

    def write(self, text: str) -> int:
        if " 1 of 4 persons linked" in text:
            provider, keys = conf.providers()["default"], keyring.get_keys("subject")
            link = partial(link_existing_user, provider=provider, keys=keys, origin=Origin(), now=NOW)
            link(make_user(), sub=SUBS[1])
            link(self.user, sub="another person")
        return super().write(text)

    user: Any


def test_links_in_the_meantime_refuse_their_rows_only() -> None:
    users = [make_user() for _ in range(4)]
    terminal = InterruptedTerminal()
    terminal.user = users[2]
    file = written(*(f"{user},{sub}" for user, sub in zip(users, (*SUBS, "sub of the last"), strict=True)))
    ran = Ran(file, stderr=terminal)
    assert "Line 3: This person is linked to user" in ran.err
    assert f"Line 4: Another person of this provider is linked to user {users[2]} now." in ran.err
    assert ran.error == "2 persons were linked, 0 were linked before. 2 rows were refused."
    assert [user.pairwise_subjects.count() for user in users] == [1, 0, 1, 1]


@pytest.mark.parametrize(("mode", "is_warned"), [(0o600, False), (0o640, True), (0o604, True)])
def test_file_that_others_can_open_is_warned_of(mode: int, is_warned: bool) -> None:
    ran = Ran(written(f"{make_user()},{SUBS[0]}", mode=mode))
    assert ran.error == ""
    assert ("chmod 600" in ran.err) == is_warned


def test_file_may_be_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_user()
    content = io.BytesIO(f"user,sub\n{user},{SUBS[0]}\n".encode())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(content))
    assert Ran("-").out == "1 persons were linked, 0 were linked before.\n"


def test_progress_is_shown_on_a_terminal() -> None:
    terminal = Terminal()
    Ran(written(f"{make_user()},{SUBS[0]}"), stderr=terminal)
    assert "1 lines read" in terminal.getvalue()
    assert "100% 1 of 1 persons linked" in terminal.getvalue()


def test_messages_are_in_english_in_a_german_portal() -> None:
    with override("de"):
        ran = Ran(written(f"{make_user()},{SUBS[0]}", "nobody,x"))
    assert ran.err.startswith("Line 3: There is no such user.")


def test_file_may_have_more_rows_than_an_upload_and_needs_few_statements(
    django_assert_max_num_queries: Any,
) -> None:
    rows = [f"nobody-{number},{number}" for number in range(MAX_ROWS + 1)]
    file = written(*rows)
    with django_assert_max_num_queries(5 * (len(rows) // BATCH_SIZE + 1)):
        ran = Ran(file, "--dry-run")
    assert ran.error == f"{len(rows)} rows are invalid. Nothing was linked."


def test_missing_subject_key_refuses_the_whole_file(settings: Any) -> None:
    sign_in(keyring.get_keys("subject"), sub="known")
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"subject": [keyring.generate_key()]})
    assert "subject key" in Ran(written(f"{make_user()},{SUBS[0]}")).error
    assert len(events()) == 1, "of the sign-in"


@pytest.mark.parametrize("words", [["--user", "amina", "--csv", "subs.csv"], ["--provider", "default"]])
def test_one_source_is_required(words: list[str]) -> None:
    with pytest.raises(CommandError, match="--csv"):
        call_command("phi_oidc", "subject", "link", *words)


def test_dry_run_of_one_user_is_refused() -> None:
    with pytest.raises(CommandError, match="--dry-run requires --csv"):
        call_command("phi_oidc", "subject", "link", "--user", str(make_user()), "--dry-run")
