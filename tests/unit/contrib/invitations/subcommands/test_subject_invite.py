"""`manage.py phi_oidc subject invite`, run as an operator does and as on the page."""

import csv
import io
import json
import os
import re
import shlex
import stat
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core.management import CommandError, call_command
from django.db import connections

from django_phi_oidc import conf
from django_phi_oidc._internal import clock, randomness
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.audit.models import AuditEvent
from django_phi_oidc.audit.operators import build_operator_actor
from django_phi_oidc.contrib.invitations.activation_codes import CODE_ALPHABET, parse_code
from django_phi_oidc.contrib.invitations.activation_redemption import redeem_code
from django_phi_oidc.contrib.invitations.models import ActivationCode
from django_phi_oidc.contrib.invitations.subcommands import subject_invite
from django_phi_oidc.crypto import keyring
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.support.subject_linking import NOW, make_user
from tests.unit.management.terminal import Terminal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
ROOT = Path(__file__).resolve().parents[5]
PAGE = (ROOT / "docs" / "how-to" / "activation-codes.md").read_text()
SHOWN = ("K7XM-4QHD-9VTZ-0B31", "5J2R-8WNC-3YPT-6FGA")


@pytest.fixture(autouse=True)
def _at_noon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    declare(settings, default="invitation")
    with clock.override_clock(lambda: NOW):
        yield


def declare(settings: Any, **provisioning: str) -> None:
    """Declare providers of these names, with this provisioning."""
    default = settings.PHI_OIDC["PROVIDERS"]["default"]
    providers = {name: {**default, "provisioning": how} for name, how in provisioning.items()}
    settings.PHI_OIDC = {**settings.PHI_OIDC, "PROVIDERS": providers}


def run(*words: object, stdout: Any = None) -> str:
    out = stdout or io.StringIO()
    named = [f"pk:{word}" if isinstance(word, int) else str(word) for word in words]
    call_command("phi_oidc", "subject", "invite", *named, stdout=out, stderr=io.StringIO())
    return "" if stdout else out.getvalue()


def refused(*words: object) -> str:
    with pytest.raises(CommandError) as refusal:
        run(*words)
    return str(refusal.value)


def written(*lines: str, name: str = "users.csv") -> Path:
    path = Path(name)
    path.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return path


def rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text, newline="")))


def waiting() -> list[Any]:
    return list(
        ActivationCode.objects.filter(redeemed_at=None, revoked_at=None).order_by("pk").values_list("user", flat=True)
    )


def redeem(code: str, sub: str = "a-person") -> bool:
    """Return whether the code can be redeemed, and redeem it."""
    provider, keys = conf.providers()["default"], keyring.get_keys("subject")
    return bool(redeem_code(code, sub=sub, provider=provider, keys=keys, origin=Origin(), now=NOW))


def block(name: str) -> str:
    match = re.search(rf"<!-- tested: {re.escape(name)} -->\n```\w+\n(.*?)```", PAGE, re.DOTALL)
    assert match, name
    return match[1]


@pytest.fixture
def codes_of_the_page() -> Iterator[None]:
    """Generate the codes on the page."""
    numbers = iter(
        [sum(CODE_ALPHABET.index(sign) << 5 * n for n, sign in enumerate(parse_code(c)[::-1])) for c in SHOWN]
    )
    with randomness.override_randomness(
        lambda size: next(numbers).to_bytes(10, "big") if size == 10 else os.urandom(size)
    ):
        yield


@pytest.mark.usefixtures("codes_of_the_page")
def test_page_shows_invitation_and_revocation_of_one_user() -> None:
    user = make_user()

    def adapt(text: str) -> str:
        return text.replace("amina", user.get_username())

    for name, left in (("one", [user.pk]), ("revoke", [])):
        line, _, printed = block(name).removeprefix("$ ").partition("\n")
        words = shlex.split(adapt(line))
        assert words[:5] == ["python", "manage.py", "phi_oidc", "subject", "invite"]
        assert run(*words[5:]) == adapt(printed)
        assert waiting() == left


@pytest.mark.usefixtures("codes_of_the_page")
def test_page_shows_invitation_of_many_users() -> None:
    make_user(), get_user_model().objects.create_user("amina"), get_user_model().objects.create_user("jonas", pk=43)
    Path("users.csv").write_text(block("users.csv"))
    line, _, printed = block("many").removeprefix("$ ").partition("\n")
    assert run(*shlex.split(line)[5:]) == printed
    assert Path("letters.csv").read_text() == block("letters.csv")
    assert all(redeem(code, sub=f"person {code}") for code in SHOWN)


def test_user_is_invited_and_the_code_is_valid() -> None:
    user = make_user()
    invitation = json.loads(run(user.get_username(), "--json"))
    expected = {"user": user.get_username(), "user_pk": str(user.pk), "expires_at": "2026-12-08T12:00:00+00:00"}
    assert invitation == {**expected, "code": invitation["code"]}
    assert redeem(invitation["code"])
    (event,) = AuditEvent.objects.filter(action="activation.issued")
    assert (event.actor, event.resource) == (build_operator_actor(), f"user/{user.pk}")


@pytest.mark.parametrize("name", ["pk:0", "unknown", ""])
def test_unknown_user_is_not_invited(name: str) -> None:
    assert f"There is no user {name}." in refused(name)
    assert not ActivationCode.objects.exists()


def test_deactivated_user_is_not_invited() -> None:
    user = make_user()
    get_user_model().objects.filter(pk=user.pk).update(is_active=False)
    assert refused(user.pk) == f"User {user.pk} is deactivated."
    get_user_model().objects.filter(pk=user.pk).update(is_active=True)
    assert run(user.pk)


PROVIDERS = {
    "the only one with codes": ({"a": "create", "b": "invitation"}, [], "b", ""),
    "one of two, named": ({"a": "invitation", "b": "invitation"}, ["--provider", "b"], "b", ""),
    "one of two, not named": ({"a": "invitation", "b": "invitation"}, [], "", "Add --provider: a, b."),
    "none": ({"a": "create", "b": "existing"}, [], "", "No provider accepts activation codes"),
    "one without codes": ({"a": "create", "b": "invitation"}, ["--provider", "a"], "", "its provisioning is create"),
    "unknown": ({"a": "invitation"}, ["--provider", "c"], "", "There is no provider c."),
}


@pytest.mark.parametrize(("declared", "words", "provider", "fault"), PROVIDERS.values(), ids=PROVIDERS)
def test_provider_is_the_only_one_with_codes_or_the_named_one(
    declared: dict[str, str], words: list[str], provider: str, fault: str, settings: Any
) -> None:
    declare(settings, **declared)
    user = make_user()
    path = written("user", user.get_username())
    for arguments in ([user.pk], ["--csv", path]):
        if fault:
            assert fault in refused(*arguments, *words)
        else:
            run(*arguments, *words)
    assert set(ActivationCode.objects.values_list("provider", flat=True)) == ({provider} if provider else set())


def test_revoke_is_limited_to_the_user_and_the_named_provider(settings: Any) -> None:
    declare(settings, a="invitation", b="invitation")
    user, other = make_user(), make_user()
    for provider in "ab":
        for invited in (user, other):
            run(invited.pk, "--provider", provider)
    assert run("--revoke", user.pk, "--provider", "a") == f"User {user.get_username()}: 1 codes were revoked.\n"
    assert waiting() == [other.pk, user.pk, other.pk]
    assert run("--revoke", user.pk) == f"User {user.get_username()}: 1 codes were revoked.\n"
    assert run("--revoke", user.pk) == f"User {user.get_username()}: 0 codes were revoked.\n"
    assert waiting() == [other.pk, other.pk]
    assert {event.reason for event in AuditEvent.objects.filter(action="activation.revoked")} == {"withdrawn"}


WORDS = {
    "no user": ([], "one of the arguments"),
    "one user and a file": (["1", "--csv", "users.csv"], "not allowed with"),
    "one user and one to revoke": (["1", "--revoke", "2"], "not allowed with"),
    "an output file for one user": (["1", "--output", "codes.csv"], "--output requires --csv"),
    "a dry run that invites": (["1", "--dry-run"], "--dry-run requires --revoke"),
}


@pytest.mark.parametrize(("words", "fault"), WORDS.values(), ids=WORDS)
def test_conflicting_arguments_are_refused(words: list[str], fault: str) -> None:
    written("user", make_user().get_username())
    assert fault in refused(*words)
    assert not ActivationCode.objects.exists()


# CSV


def test_csv_keeps_its_columns_and_adds_code_and_expiry() -> None:
    users = [make_user() for _ in range(3)]
    lines = [f'"Å, {n}",pk:{user.pk},"two\nlines"' for n, user in enumerate(users)]
    output = rows(run("--csv", written("\ufeffname,user,note", lines[0], "", lines[1], lines[2])))
    assert [list(row) for row in output] == [["name", "user", "note", "code", "expires_at"]] * 3
    assert [(row["name"], row["user"], row["note"]) for row in output] == [
        (f"Å, {n}", f"pk:{user.pk}", "two\nlines") for n, user in enumerate(users)
    ]
    assert {row["expires_at"] for row in output} == {"2026-12-08T12:00:00+00:00"}
    assert waiting() == [user.pk for user in users]
    assert all(redeem(row["code"], sub=row["user"]) for row in output)


FORMULAS = {
    "=1+1": "'=1+1",
    "+1": "'+1",
    "-1": "'-1",
    "@SUM(A1)": "'@SUM(A1)",
    "\t=1": "'\t'=1",
    "\r=1": "'\r'=1",
    '=HYPERLINK("https://evil.example";"x")': '\'=HYPERLINK("https://evil.example";"x")',
    "=cmd|' /C calc'!A0": "'=cmd|' /C calc'!A0",
    "Berg;=1+1": "Berg;'=1+1",
}


def test_formulas_in_cells_are_escaped() -> None:
    users = [make_user() for _ in FORMULAS]
    cells = ['"{}"'.format(formula.replace('"', '""')) for formula in FORMULAS]
    path = written('user,"=name"', *(f"{user.get_username()},{cell}" for user, cell in zip(users, cells, strict=True)))
    output = list(csv.reader(io.StringIO(run("--csv", path), newline="")))
    assert output[0] == ["user", "'=name", "code", "expires_at"]
    assert [row[1] for row in output[1:]] == list(FORMULAS.values())
    for separator in ",;\t":
        # A quotation mark is only special after the separator that the reader uses.
        cells = [cell for line in run("--csv", path).splitlines() for cell in line.split(separator)]
        assert not [cell for cell in cells if cell.strip(' "').startswith(("=", "+", "-", "@"))]


def test_csv_is_read_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    user = make_user()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"user\npk:{user.pk}\n".encode())))
    (row,) = rows(run("--csv", "-"))
    assert redeem(row["code"])


def test_output_is_a_new_file_only_its_owner_can_read() -> None:
    path = written("user", make_user().get_username())
    assert run("--csv", path, "--output", "codes.csv") == "1 users were invited; their codes are in codes.csv.\n"
    assert stat.S_IMODE(Path("codes.csv").stat().st_mode) == 0o600
    before = Path("codes.csv").read_bytes()
    elsewhere = Path("elsewhere.csv")
    Path("link.csv").symlink_to(elsewhere)
    for taken in ("codes.csv", "link.csv", "no/such/folder.csv"):
        assert f"{taken} cannot be created" in refused("--csv", path, "--output", taken)
    assert (Path("codes.csv").read_bytes(), elsewhere.exists()) == (before, False)
    assert ActivationCode.objects.count() == 1


def test_file_with_semicolons_is_accepted() -> None:
    user = make_user()
    path = written("user;name", f'{user.get_username()};"Svensson, Jonas"')
    header, row = csv.reader(io.StringIO(run("--csv", path)))
    assert (header, row[:2]) == (["user", "name", "code", "expires_at"], [user.get_username(), "Svensson, Jonas"])


FAULTS: dict[str, tuple[Callable[[Any, Any], list[str]], str]] = {
    "nothing": (lambda a, b: [], "Line 1: there is no column user"),
    "no such column": (lambda a, b: ["name", "x"], "Line 1: there is no column user"),
    "separated by spaces": (lambda a, b: ["user name", f"{a} x"], "columns are separated by commas or semicolons"),
    "two columns with one name": (lambda a, b: ["user,x,x", f"{a},1,2"], "Line 1: two columns have the same name"),
    "a reserved column": (lambda a, b: ["user,code", f"{a},1"], "Line 1: the column code is reserved for the output"),
    "no users": (lambda a, b: ["user,x", ""], "The file contains no users"),
    "too few columns": (lambda a, b: ["user,x", f"{a},1", f"{b}"], "Line 3: 1 columns, but 2 in the first line"),
    "too many columns": (lambda a, b: ["user", f"{a},1"], "Line 2: 2 columns, but 1 in the first line"),
    "an empty cell": (lambda a, b: ["user,x", f"{a},1", " ,2"], "Line 3: There is no user ."),
    "unknown user": (lambda a, b: ["user", f"{a}", "amina"], "Line 3: There is no user amina."),
    "a primary key out of range": (lambda a, b: ["user", f"{a}", f"pk:{'9' * 30}"], "Line 3: There is no user pk:9999"),
    "control characters": (lambda a, b: ["user", "\x1b[2J"], r"Line 2: There is no user '\x1b[2J'."),
    "a long text": (lambda a, b: ["user", "x" * 9999], f"Line 2: There is no user {'x' * 64}."),
    "a primary key": (lambda a, b: ["user", f"{a}", "42"], "Line 3: There is no user 42. If this is a primary key, wr"),
    "repeated user": (lambda a, b: ["user", f"{a}", f"{b}", f" {a}"], "is already in line 2"),
    "an unterminated quotation": (lambda a, b: ["user,x", f'{a},"x'], "Line 2: not a valid CSV record: unexpected end"),
    "after a cell of two lines": (lambda a, b: ["user,x", f'{a},"x\r\ny"', "pk:0,z"], "Line 4: There is no user pk:0."),
}


@pytest.mark.parametrize(("lines", "fault"), FAULTS.values(), ids=FAULTS)
def test_csv_with_a_fault_is_refused_with_its_line_and_no_invitation(
    lines: Callable[[Any, Any], list[str]], fault: str
) -> None:
    users = [make_user(), make_user()]
    path = written(*lines(*(user.get_username() for user in users)))
    assert fault in refused("--csv", path, "--output", "codes.csv")
    assert (ActivationCode.objects.count(), Path("codes.csv").exists()) == (0, False)
    assert AuditEvent.objects.count() == 0
    path = written("user", *(user.get_username() for user in users))
    run("--csv", path, "--output", "codes.csv")
    assert ActivationCode.objects.count() == 2


def test_csv_with_a_deactivated_user_in_its_last_line_is_refused() -> None:
    users = [make_user() for _ in range(4)]
    get_user_model().objects.filter(pk=users[-1].pk).update(is_active=False)
    path = written("user", *(user.get_username() for user in users))
    assert refused("--csv", path) == f"Line 5: User {users[-1].pk} is deactivated."
    assert not ActivationCode.objects.exists()


def test_csv_that_is_not_utf_8_is_refused_with_its_line() -> None:
    user = make_user()
    Path("users.csv").write_bytes(f"user,name\n{user.get_username()},".encode() + "Åke\n".encode("latin-1"))
    assert refused("--csv", "users.csv") == "Line 2: not valid UTF-8."
    assert "cannot be read" in refused("--csv", "nowhere.csv")
    assert not ActivationCode.objects.exists()


def test_users_are_invited_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_invite, "BATCH_SIZE", 4)
    users = [make_user() for _ in range(10)]
    path = written("user", *(user.get_username() for user in users))
    output = rows(run("--csv", path))
    assert [row["user"] for row in output] == [user.get_username() for user in users]
    assert len({row["code"] for row in output}) == 10
    assert waiting() == [user.pk for user in users]
    assert AuditEvent.objects.filter(action="activation.issued").count() == 10


def test_user_deactivated_meanwhile_stops_the_run_and_written_codes_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject_invite, "BATCH_SIZE", 2)
    users = [make_user() for _ in range(5)]
    path = written("user", *(user.get_username() for user in users))
    done: list[int] = []

    def deactivate_user(progress: Any, count: int, total: int = 0) -> None:
        if progress._label != "users invited":
            return
        done.append(count)
        if count == 2:
            get_user_model().objects.filter(pk=users[3].pk).update(is_active=False)

    monkeypatch.setattr(subject_invite.ProgressLine, "__call__", deactivate_user)
    output = refused("--csv", path, "--output", "codes.csv")
    assert output == f"User {users[3].pk} is deactivated. The users before line 4 were invited."
    left = rows(Path("codes.csv").read_text())
    assert [row["user"] for row in left] == [user.get_username() for user in users[:2]]
    assert all(redeem(row["code"], sub=row["user"]) for row in left)
    assert ActivationCode.objects.count() == 2
    assert done == [2]


def test_empty_output_file_is_deleted_after_a_failure(monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    user = make_user()
    path = written("user", user.get_username())
    before = settings.PHI_OIDC
    settings.PHI_OIDC = override_phi_oidc(before, KEYS={"subject": []})
    assert "has no key" in refused("--csv", path, "--output", "codes.csv")
    assert not Path("codes.csv").exists()
    settings.PHI_OIDC = before
    run("--csv", path, "--output", "codes.csv")
    assert Path("codes.csv").exists()


@pytest.mark.parametrize(("output", "is_seen"), [(["--output", "codes.csv"], True), ([], False)])
def test_progress_is_shown_on_a_terminal_but_not_among_the_codes(output: list[str], is_seen: bool) -> None:
    users, out, err = [make_user() for _ in range(3)], Terminal(), Terminal()
    path = written("user", *(user.get_username() for user in users))
    words = ["subject", "invite", "--csv", str(path), *output]
    call_command("phi_oidc", *words, stdout=out, stderr=err)
    assert ("100% 3 of 3 users invited" in err.getvalue()) == is_seen
    assert not re.search(r"[0-9A-Z]{4}-[0-9A-Z]{4}", err.getvalue())


def test_codes_are_not_stored_in_plain_text() -> None:
    user = make_user()
    (row,) = rows(run("--csv", written("user,name", f"{user.get_username()},{'=x'}")))
    with connections["default"].cursor() as cursor:
        cursor.execute(f"SELECT * FROM {ActivationCode._meta.db_table}")
        stored = repr(cursor.fetchall())
    assert str(user.pk) in stored
    assert not {row["code"], parse_code(row["code"])}.intersection(re.findall(r"[\w-]+", stored))
