"""`manage.py phi_oidc keys status` and `rotate` for encryption keys."""

import io
import json
import uuid
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from django_phi_oidc._internal import clock
from django_phi_oidc.crypto import keyring
from django_phi_oidc.sessions.models import PendingRevocation, RevocationStatus
from tests.settings import key
from tests.support.phi_oidc_settings import override_phi_oidc
from tests.unit.management.terminal import Terminal

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"])
OLDEST, OLD, NEW = (key(f"test encryption key of {day}") for day in ("Monday", "Tuesday", "Wednesday"))
TOKEN = {"database": "default", "table": "django_phi_oidc_pendingrevocation", "column": "token"}
COLUMN = "django_phi_oidc_pendingrevocation.token"


@pytest.fixture(autouse=True)
def _sealed(settings: Any) -> None:
    """Encrypt one text with the oldest key, and two with the next one."""
    for text, many in ((OLDEST, 1), (OLD, 2)):
        configure(settings, text)
        make(many)


def configure(settings: Any, *texts: str) -> list[str]:
    """Configure these keys, newest first, and return their ids."""
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": list(texts)})
    return [key.id for key in keyring.get_keys("encryption")]


def make(many: int = 1) -> PendingRevocation:
    """Create rows and return the last one."""
    now = clock.now()
    values = {"token": "secret", "status": RevocationStatus.DONE, "due_at": now, "created_at": now}
    return [PendingRevocation.objects.create(id=uuid.uuid4(), **values) for _ in range(many)][-1]


def write(row: PendingRevocation, text: str) -> None:
    with connection.cursor() as cursor:
        pk = PendingRevocation._meta.pk.get_db_prep_value(row.pk, connection)
        cursor.execute("UPDATE django_phi_oidc_pendingrevocation SET token = %s WHERE id = %s", [text, pk])


def run(*words: str) -> tuple[str, str]:
    """Run `phi_oidc keys …`; return its output and its error, if any."""
    out = io.StringIO()
    try:
        call_command("phi_oidc", "keys", *words, stdout=out, stderr=io.StringIO())
    except CommandError as error:
        return out.getvalue(), str(error)
    return out.getvalue(), ""


def of_encryption_keys(printed: str) -> list[str]:
    """Return the lines of `keys status` about encryption keys."""
    lines = printed.splitlines()
    return lines[: next(n for n, line in enumerate(lines) if line.startswith("KEYS['subject']"))]


def test_keys_status_shows_what_each_encryption_key_is_needed_for(settings: Any) -> None:
    new, old, oldest = configure(settings, NEW, OLD, OLDEST)
    printed, fault = run("status")
    assert fault == ""
    assert of_encryption_keys(printed) == [
        "KEYS['encryption']: 3 encrypted texts",
        f"1  {new}  0 texts: encrypts new texts",
        f"2  {old}  2 texts: needed until `keys rotate` has run",
        f"     {COLUMN}  2",
        f"3  {oldest}  1 texts: needed until `keys rotate` has run",
        f"     {COLUMN}  1",
    ]
    usage = json.loads(run("status", "--json")[0])["encryption_keys"]
    assert usage == {
        "keys": [
            {"id": new, "position": 1, "texts": 0, "columns": []},
            {"id": old, "position": 2, "texts": 2, "columns": [{**TOKEN, "texts": 2}]},
            {"id": oldest, "position": 3, "texts": 1, "columns": [{**TOKEN, "texts": 1}]},
        ],
        "retention": {"texts": 0, "columns": []},
        "nameless": {"texts": 0, "columns": []},
    }


def test_keys_status_fails_for_a_needed_key_that_is_not_configured(settings: Any) -> None:
    _, _, oldest = configure(settings, NEW, OLD, OLDEST)
    configure(settings, NEW, OLD)
    for words in (["status"], ["status", "--json"]):
        printed, fault = run(*words)
        assert fault == f"Texts are encrypted with keys that are not configured: {oldest}."
        assert oldest in printed
    assert f"-  {oldest}  1 texts: not configured: add it again" in of_encryption_keys(run("status")[0])


def test_keys_status_accepts_retention_keys_and_fails_for_text_without_a_key(settings: Any) -> None:
    configure(settings, NEW, OLD, OLDEST)
    write(make(), f"20261125-86400:{'gAAAAAAAAAAA' * 4}")
    printed, fault = run("status")
    assert fault == ""
    assert of_encryption_keys(printed)[-2:] == [
        "-  retention keys  1 texts: destroyed with the claims that use them",
        f"     {COLUMN}  1",
    ]
    write(make(), "flu-like: a canary in plain text")
    printed, fault = run("status")
    assert fault == "1 texts name no key."
    assert of_encryption_keys(printed)[-2:] == [
        "-  no key  1 texts: not encrypted by this package",
        f"     {COLUMN}  1",
    ]
    assert "flu" not in printed
    assert "canary" not in printed + run("status", "--json")[0]


def test_keys_rotate_encrypts_all_texts_with_the_newest_key(settings: Any) -> None:
    new, old, oldest = configure(settings, NEW, OLD, OLDEST)
    assert run("rotate") == (f"3 texts were encrypted again with key {new}.\n", "")
    assert of_encryption_keys(run("status")[0])[1:] == [
        f"1  {new}  3 texts: encrypts new texts",
        f"     {COLUMN}  3",
        f"2  {old}  0 texts: may be removed",
        f"3  {oldest}  0 texts: may be removed",
    ]
    assert run("rotate") == (f"0 texts were encrypted again with key {new}.\n", "")
    configure(settings, NEW)
    field: Any = PendingRevocation._meta.get_field("token")
    assert {field.decrypt(row) for row in PendingRevocation.objects.all()} == {"secret"}
    assert run("status")[1] == ""


def test_keys_rotate_json_is_one_object_per_line_with_the_result_last(settings: Any) -> None:
    damaged = make()
    write(damaged, "plain text, a canary")
    new, *_ = configure(settings, NEW, OLD, OLDEST)
    printed, fault = run("rotate", "--json")
    unopenable, result = map(json.loads, printed.splitlines())
    assert unopenable == {"unopenable": {**TOKEN, "pk": str(damaged.pk)}}
    assert (result["key"], result["done"]) == (new, 3)
    assert {**TOKEN, "done": 3, "unopenable": 1, "busy": 0} in result["columns"]
    assert fault == "1 texts cannot be decrypted."
    assert "canary" not in printed


def test_keys_rotate_without_an_older_key_reports_its_rows_and_fails(settings: Any) -> None:
    new, _, oldest = configure(settings, NEW, OLD, OLDEST)
    configure(settings, NEW, OLD)
    (row,) = (revocation for revocation in PendingRevocation.objects.all() if revocation.token.key_id == oldest)
    before = row.token.ciphertext
    printed, fault = run("rotate")
    assert printed.splitlines() == [
        f"{COLUMN} of {row.pk}: cannot be decrypted and was not changed",
        f"2 texts were encrypted again with key {new}.",
    ]
    assert fault == "1 texts cannot be decrypted."
    row.refresh_from_db()
    assert row.token.ciphertext == before
    configure(settings, NEW, OLD, OLDEST)
    assert run("rotate") == (f"1 texts were encrypted again with key {new}.\n", "")


def test_keys_rotate_without_a_key_is_an_error(settings: Any) -> None:
    configure(settings, NEW, OLD, OLDEST)
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": []})
    assert "'encryption'" in run("rotate")[1]
    assert "'encryption'" in run("status")[1]


@pytest.mark.parametrize("kind", [Terminal, io.StringIO])
def test_keys_rotate_shows_progress_only_on_a_terminal(settings: Any, kind: type[io.StringIO]) -> None:
    configure(settings, NEW, OLD, OLDEST)
    out, err = io.StringIO(), kind()
    call_command("phi_oidc", "keys", "rotate", stdout=out, stderr=err)
    assert ("[##############################] 100% 3 of 3 texts" in err.getvalue()) == err.isatty()
    assert bool(err.getvalue()) == err.isatty()


def test_keys_rotate_and_status_use_only_the_named_database(settings: Any) -> None:
    configure(settings, NEW, OLD, OLDEST)
    usage = json.loads(run("status", "--json", "--database", "default")[0])["encryption_keys"]
    assert [key["texts"] for key in usage["keys"]] == [0, 2, 1]
    assert "3 texts were encrypted again" in run("rotate", "--database", "default")[0]
