"""`manage.py phi_oidc subject`, as an operator types it, and as the page shows it."""

import io
import json
import os
import pty
import select
import subprocess
import sys
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support import databases
from tests.support.manual_blocks import block, commands
from tests.support.subject_linking import ISSUER, SUB, make_user, sign_in

ROOT = Path(__file__).resolve().parents[4]
pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what puts text on standard input."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def run(*words: object) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "subject", *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def link(user: object, provider: str = "default") -> str:
    return run("link", "--provider", provider, "--user", user)


def test_page_shows_link_list_and_unlink(type_in: Any) -> None:
    user = make_user()
    shown = [words[4:] for words in commands("link-subjects", "link")]
    linking, listing, unlinking = ([word.replace("42", str(user.pk)) for word in words] for words in shown)
    type_in(SUB + "\n")
    told = run(*linking)
    (subject,) = PairwiseSubject.objects.all()
    assert told == f"User {user.pk} was linked: subject {subject.uuid}.\n"
    expected = block("link-subjects", "link").splitlines()[2]
    assert told.strip() == expected.replace("42", str(user.pk)).replace(unlinking[-1], str(subject.uuid))
    assert run(*listing).startswith(f"{subject.uuid}  {user.pk}  {ISSUER}  20")
    assert len(run(*listing).splitlines()) == 1
    assert run(*unlinking[:-1], subject.uuid) == f"User {user.pk} was unlinked: subject {subject.uuid} was deleted.\n"
    assert run(*listing) == "There are no linked persons.\n"
    actions = list(AuditEvent.objects.order_by("id").values_list("action", "actor", "subject"))
    assert actions == [("subject.linked", "", str(subject.uuid)), ("subject.unlinked", "", str(subject.uuid))]


@pytest.mark.parametrize("typed", ["{}\n", "{}", "  {}  \r\n"], ids=repr)
def test_link_reads_the_sub_from_standard_input_and_sign_in_finds_it(type_in: Any, typed: str) -> None:
    user = make_user()
    type_in(typed.format(SUB))
    assert SUB not in link(user.pk)
    assert sign_in(keyring.get_keys("SUBJECT_KEYS"), create_user=None).user == user


@pytest.mark.parametrize(
    ("typed", "user", "provider", "fault"),
    [
        ("", None, "default", "255 ASCII"),
        ("one\nanother\n", None, "default", "255 ASCII"),
        ("amina@example.org", None, "default", "other clients"),
        (SUB, 0, "default", "There is no user 0"),
        (SUB, "nobody", "default", "There is no user nobody"),
        (SUB, None, "elsewhere", "There is no provider elsewhere"),
    ],
)
def test_invalid_link_is_refused(typed: str, user: Any, provider: str, fault: str, type_in: Any) -> None:
    someone = make_user()
    type_in(typed)
    with pytest.raises(CommandError, match=fault) as refused:
        link(someone.pk if user is None else user, provider)
    assert not PairwiseSubject.objects.exists()
    assert not typed or typed.strip() not in str(refused.value)


def test_link_of_a_linked_person_is_an_error_with_the_user(type_in: Any) -> None:
    first = sign_in(keyring.get_keys("SUBJECT_KEYS")).user
    type_in(SUB)
    with pytest.raises(CommandError, match=f"linked to user {first.pk} already"):
        link(make_user().pk)


def test_unlink_of_an_unknown_subject_is_an_error() -> None:
    sign_in()
    with pytest.raises(CommandError, match="no subject"):
        run("unlink", uuid.uuid4())
    with pytest.raises(CommandError, match="invalid UUID"):
        run("unlink", "amina")
    assert PairwiseSubject.objects.count() == 1


def test_list_shows_links_without_digests() -> None:
    people = [sign_in(sub=sub) for sub in "abc"]
    listed = [json.loads(line) for line in run("list", "--json").splitlines()]
    assert [(each["uuid"], each["user"]) for each in listed] == [
        (str(person.subject.uuid), str(person.user.pk)) for person in people
    ]
    assert listed[0] == {
        "uuid": str(people[0].subject.uuid),
        "user": str(people[0].user.pk),
        "issuer": ISSUER,
        "first_seen_at": "2026-11-24T12:00:00+00:00",
        "last_seen_at": "2026-11-24T12:00:00+00:00",
    }
    shown = run("list")
    assert len(shown.splitlines()) == 3
    assert not any(digest in shown for digest in SubjectDigest.objects.values_list("digest", flat=True))
    (only,) = run("list", "--user", people[1].user.pk, "--json").splitlines()
    assert json.loads(only) == listed[1]
    with pytest.raises(CommandError, match="no user"):
        run("list", "--user", "0")
    assert run("list", "--user", make_user().pk, "--json") == ""


@pytest.mark.sqlite
def test_link_on_a_terminal_prompts_without_echo() -> None:
    user = make_user()
    environment = databases.child_environment(
        os.environ, {alias: connections[alias].settings_dict for alias in databases.ALIASES}
    )
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "django", "phi_oidc", "subject", "link", "--provider", "default"]
    process = subprocess.Popen(
        [*command, "--user", str(user.pk)],
        env={**environment, "PYTHONPATH": str(ROOT)},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    shown = b""
    with process, suppress(OSError):
        while select.select([ours], [], [], 30)[0] and (read := os.read(ours, 1024)):
            shown += read
            if shown.endswith(b"not shown: "):
                os.write(ours, SUB.encode() + b"\n")
    os.close(ours)
    assert (process.returncode, SUB.encode() in shown) == (0, False), shown
    assert f"User {user.pk} was linked".encode() in shown
    assert sign_in(keyring.get_keys("SUBJECT_KEYS"), create_user=None).user == user
