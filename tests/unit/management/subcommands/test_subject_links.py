"""`manage.py phi_oidc subject`, run as an operator does and as on the page."""

import io
import json
import sys
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.crypto import keyring
from django_phi_oidc.subjects.models import PairwiseSubject, SubjectDigest
from tests.support.manual_blocks import block, commands
from tests.support.subject_linking import ISSUER, SUB, make_user, sign_in
from tests.unit.management.terminal import run_on_terminal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])


@pytest.fixture
def type_in(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a function that sets standard input."""
    return lambda text: monkeypatch.setattr(sys, "stdin", io.StringIO(text))


def run(*words: object) -> str:
    out = io.StringIO()
    call_command("phi_oidc", "subject", *map(str, words), stdout=out, stderr=io.StringIO())
    return out.getvalue()


def link(user: object, provider: str = "default") -> str:
    return run("link", "--provider", provider, "--user", user)


def test_page_shows_link_list_and_unlink(type_in: Any) -> None:
    user = make_user()
    lines = [words[4:] for words in commands("link-subjects", "link")]
    linking, listing, unlinking = ([word.replace("amina", user.get_username()) for word in words] for words in lines)
    type_in(SUB + "\n")
    output = run(*linking)
    (subject,) = PairwiseSubject.objects.all()
    assert output == f"User {user.get_username()} was linked: subject {subject.uuid}.\n"
    expected = block("link-subjects", "link").splitlines()[2]
    assert output.strip() == expected.replace("amina", user.get_username()).replace(unlinking[-1], str(subject.uuid))
    assert run(*listing).startswith(f"{subject.uuid}  {user.get_username()}  {ISSUER}  20")
    assert len(run(*listing).splitlines()) == 1
    assert (
        run(*unlinking[:-1], subject.uuid)
        == f"User {user.get_username()} was unlinked: subject {subject.uuid} was deleted.\n"
    )
    assert run(*listing) == "There are no linked persons.\n"
    actions = list(AuditEvent.objects.order_by("id").values_list("action", "actor", "subject"))
    operator, uuid = build_operator_actor(), str(subject.uuid)
    assert actions == [("subject.linked", operator, uuid), ("subject.unlinked", operator, uuid)]


@pytest.mark.parametrize("text", ["{}\n", "{}", "  {}  \r\n"], ids=repr)
def test_link_reads_the_sub_from_standard_input_and_sign_in_finds_it(type_in: Any, text: str) -> None:
    user = make_user()
    type_in(text.format(SUB))
    assert SUB not in link(user.get_username())
    assert sign_in(keyring.get_keys("subject"), create_user=None).user == user


@pytest.mark.parametrize(
    ("text", "user", "provider", "fault"),
    [
        ("", None, "default", "255 ASCII"),
        ("one\nanother\n", None, "default", "255 ASCII"),
        ("amina@example.org", None, "default", "other clients"),
        (SUB, 0, "default", "There is no user 0"),
        (SUB, "unknown", "default", "There is no user unknown"),
        (SUB, None, "elsewhere", "There is no provider elsewhere"),
    ],
)
def test_invalid_link_is_refused(text: str, user: Any, provider: str, fault: str, type_in: Any) -> None:
    someone = make_user()
    type_in(text)
    with pytest.raises(CommandError, match=fault) as refused:
        link(someone.get_username() if user is None else user, provider)
    assert not PairwiseSubject.objects.exists()
    assert not text or text.strip() not in str(refused.value)


def test_link_of_a_linked_person_is_an_error_with_the_user(type_in: Any) -> None:
    first = sign_in(keyring.get_keys("subject")).user
    type_in(SUB)
    with pytest.raises(CommandError, match=f"linked to user {first.pk} already"):
        link(make_user().get_username())


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
    assert [(row["uuid"], row["user"]) for row in listed] == [
        (str(person.subject.uuid), person.user.get_username()) for person in people
    ]
    assert listed[0] == {
        "uuid": str(people[0].subject.uuid),
        "user": people[0].user.get_username(),
        "user_pk": str(people[0].user.pk),
        "issuer": ISSUER,
        "first_seen_at": "2026-11-24T12:00:00+00:00",
        "last_seen_at": "2026-11-24T12:00:00+00:00",
    }
    output = run("list")
    assert len(output.splitlines()) == 3
    assert not any(digest in output for digest in SubjectDigest.objects.values_list("digest", flat=True))
    (only,) = run("list", "--user", f"pk:{people[1].user.pk}", "--json").splitlines()
    assert json.loads(only) == listed[1]
    with pytest.raises(CommandError, match="no user"):
        run("list", "--user", "0")
    assert run("list", "--user", make_user().get_username(), "--json") == ""


@pytest.mark.sqlite
def test_link_on_a_terminal_prompts_without_echo() -> None:
    user = make_user()
    arguments = ("subject", "link", "--provider", "default", "--user", f"pk:{user.pk}")
    status, output = run_on_terminal(*arguments, prompt=b"not shown: ", answer=SUB)
    assert (status, SUB.encode() in output) == (0, False), output
    assert f"User {user.get_username()} was linked".encode() in output
    assert sign_in(keyring.get_keys("subject"), create_user=None).user == user
