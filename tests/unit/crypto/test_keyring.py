"""Key lists from every source, and ciphertexts that are bound to their context."""

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.fernet import Fernet
from django.views.debug import ExceptionReporter

from django_phi_oidc.crypto import keyring
from django_phi_oidc.errors import CiphertextInvalid, KeyMissing, KeyUnknown
from tests.support.phi_oidc_settings import override_phi_oidc

OLD, NEW = (base64.urlsafe_b64encode(bytes([n]) * 32).decode() for n in (251, 252))
CONTEXT = ["table", "column", "7"]


@pytest.fixture(autouse=True)
def _keys(settings: Any) -> None:
    configure(settings, [NEW, OLD])


def configure(settings: Any, source: Any) -> None:
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": source})


def found() -> list[str]:
    return [base64.urlsafe_b64encode(key.material).decode() for key in keyring.get_keys("encryption")]


@pytest.mark.parametrize(
    "source",
    [
        [NEW, OLD],
        (NEW, OLD),
        f"{NEW},{OLD}",
        f" {NEW} , {OLD} ,",
        f"{NEW}\r\n{OLD}\r\n",
        [NEW.rstrip("="), OLD],
        [NEW, OLD, NEW],
        [NEW, OLD, NEW.rstrip("=")],
        lambda: [NEW, OLD],
        lambda: f"{NEW},{OLD}",
    ],
    ids=[
        "list",
        "tuple",
        "text",
        "text with spaces",
        "lines",
        "no padding",
        "twice",
        "two spellings",
        "call",
        "call text",
    ],
)
def test_keys_of_every_source_are_returned_once_newest_first(settings: Any, source: Any) -> None:
    configure(settings, source)
    assert found() == [NEW, OLD]


def test_keys_from_a_file_are_read_live(settings: Any, tmp_path: Path) -> None:
    file = tmp_path / "keys"
    configure(settings, file)
    file.write_text(f"{OLD}\n")
    assert found() == [OLD]
    file.write_text(f"{NEW}\n{OLD}\n")
    assert found() == [NEW, OLD]


@pytest.mark.parametrize(
    "source",
    [
        None,
        [],
        "",
        " , ,",
        [NEW[:-4]],
        [NEW + "AAAA"],
        ["not base64!" * 4],
        ["é" * 44],
        [NEW, ""][1:],
        [NEW, 5],
        [NEW, None],
        [NEW, [OLD]],
        [NEW, {"a": OLD}],
        {NEW},
        lambda: {"a": NEW},
        b"bytes",
        {"a": NEW},
        42,
        lambda: None,
    ],
    ids=lambda source: "callable" if callable(source) else repr(source),
)
def test_keys_from_a_source_without_valid_keys_raise_key_missing(settings: Any, source: Any) -> None:
    configure(settings, source)
    with pytest.raises(KeyMissing, match="encryption") as refused:
        keyring.get_keys("encryption")
    assert NEW not in str(refused.value)


class VaultError(Exception):
    """Of a client that has its own hierarchy of errors."""


@pytest.mark.parametrize("fault", [VaultError, OSError, ZeroDivisionError, LookupError], ids=repr)
def test_a2_any_error_of_a_callable_is_key_missing_with_its_cause(settings: Any, fault: type[Exception]) -> None:
    def from_vault() -> list[str]:
        if is_sealed:
            raise fault("a token of the vault")
        return [NEW]

    is_sealed = False
    configure(settings, from_vault)
    assert found() == [NEW]
    is_sealed = True
    with pytest.raises(KeyMissing, match="encryption") as refused:
        keyring.get_keys("encryption")
    assert isinstance(refused.value.__cause__, fault)
    assert "vault" not in str(refused.value)


def test_a2_key_missing_of_a_callable_keeps_its_message(settings: Any) -> None:
    def from_vault() -> list[str]:
        raise KeyMissing("The vault does not answer.")

    configure(settings, from_vault)
    with pytest.raises(KeyMissing, match="The vault does not answer"):
        keyring.get_keys("encryption")


def test_a2_callable_may_end_the_process(settings: Any) -> None:
    def interrupted() -> list[str]:
        raise KeyboardInterrupt

    configure(settings, interrupted)
    with pytest.raises(KeyboardInterrupt):
        keyring.get_keys("encryption")


def test_a1_find_keys_returns_none_and_logs_the_fault_without_its_text(
    settings: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def from_vault() -> list[str]:
        raise VaultError("a token of the vault")

    configure(settings, from_vault)
    assert keyring.find_keys("encryption") == ()
    assert "VaultError" in caplog.text
    assert "a token of the vault" not in caplog.text
    configure(settings, [NEW])
    assert [key.id for key in keyring.find_keys("encryption")] == [keyring.get_keys("encryption")[0].id]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"short"], ids=repr)
def test_keys_from_a_bad_file_raise_key_missing(settings: Any, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "keys"
    if content is not None:
        file.write_bytes(content)
    configure(settings, file)
    with pytest.raises(KeyMissing, match="encryption"):
        keyring.get_keys("encryption")


def test_generated_key_is_accepted_in_a_key_list(settings: Any) -> None:
    created = keyring.generate_key()
    configure(settings, created)
    assert found() == [created]
    assert keyring.generate_key() != created


def test_repr_of_a_key_shows_only_its_id() -> None:
    (key, _) = keyring.get_keys("encryption")
    assert len(key.id) == 8
    assert key.id in repr(key)
    assert "material" not in repr(key)


@pytest.mark.parametrize(
    "value",
    ["", "secret", "ünï\x00cødé \U0001f9ec", '"],["', "a" * 100_000],
    ids=["empty", "plain", "beyond ASCII", "JSON", "long"],
)
def test_decrypt_in_the_same_context_returns_the_value(value: str) -> None:
    assert keyring.decrypt(keyring.encrypt(value, context=CONTEXT), context=CONTEXT) == value


@pytest.mark.parametrize(
    "context",
    [
        ["table", "column", "8"],
        ["table", "other", "7"],
        ["other", "column", "7"],
        ["table", "column"],
        ["table", "column", "7", "secret"],
        ["table", "column,7"],
        [],
    ],
    ids=repr,
)
def test_decrypt_in_another_context_raises_ciphertext_invalid(context: list[str]) -> None:
    sealed = keyring.encrypt("secret", context=CONTEXT)
    assert keyring.decrypt(sealed, context=CONTEXT) == "secret"
    with pytest.raises(CiphertextInvalid):
        keyring.decrypt(sealed, context=context)


def damaged(sealed: str) -> dict[str, str]:
    key_id, _, token = sealed.partition(":")
    raw = bytearray(base64.urlsafe_b64decode(token))
    raw[20] ^= 1
    return {
        "empty": "",
        "plain text": "secret",
        "plain JSON": json.dumps([*CONTEXT, "secret"]),
        "no key id": token,
        "another key's id": f"{keyring.get_keys('encryption')[1].id}:{token}",
        "an unknown key's id": f"00000000:{token}",
        "one bit": f"{key_id}:{base64.urlsafe_b64encode(raw).decode()}",
        "truncated": sealed[:-8],
        "not ASCII": f"{key_id}:é{token}",
        "only the id": f"{key_id}:",
    }


DAMAGES = (
    "empty",
    "plain text",
    "plain JSON",
    "no key id",
    "another key's id",
    "an unknown key's id",
    "one bit",
    "truncated",
    "not ASCII",
    "only the id",
)


@pytest.mark.parametrize("damage", DAMAGES)
def test_decrypt_of_damaged_text_raises(damage: str) -> None:
    sealed = keyring.encrypt("secret", context=CONTEXT)
    assert keyring.decrypt(sealed, context=CONTEXT) == "secret"
    with pytest.raises(KeyUnknown if damage == "an unknown key's id" else CiphertextInvalid):
        keyring.decrypt(damaged(sealed)[damage], context=CONTEXT)


@pytest.mark.parametrize(
    "inside",
    ["plain", "5", "null", "{}", "[]", json.dumps([*CONTEXT, 5]), json.dumps([*CONTEXT, None]), '["\\ud800"'],
    ids=repr,
)
def test_decrypt_of_other_content_under_the_same_key_raises_ciphertext_invalid(inside: str) -> None:
    key = keyring.get_keys("encryption")[0]
    token = Fernet(NEW).encrypt(inside.encode()).decode()
    with pytest.raises(CiphertextInvalid):
        keyring.decrypt(f"{key.id}:{token}", context=CONTEXT)


def test_encrypt_uses_the_newest_key_and_decrypt_uses_each(settings: Any) -> None:
    configure(settings, [OLD])
    sealed_before = keyring.encrypt("secret", context=CONTEXT)
    configure(settings, [NEW, OLD])
    sealed_after = keyring.encrypt("secret", context=CONTEXT)
    assert keyring.decrypt(sealed_before, context=CONTEXT) == "secret"
    newest, older = keyring.get_keys("encryption")
    assert (sealed_before[:8], sealed_after[:8]) == (older.id, newest.id)
    configure(settings, [NEW])
    with pytest.raises(KeyUnknown):
        keyring.decrypt(sealed_before, context=CONTEXT)


def test_ciphertexts_contain_no_time_and_never_repeat() -> None:
    first, second = (keyring.encrypt("secret", context=CONTEXT) for _ in range(2))
    assert first != second
    assert Fernet(NEW).extract_timestamp(first.partition(":")[2]) == 0


def test_error_report_of_an_invalid_key_list_shows_no_key_and_no_plaintext(
    settings: Any,
) -> None:
    good = keyring.generate_key()
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, KEYS={"encryption": [good, "no-key-at-all"]})
    with pytest.raises(KeyMissing) as raised:
        keyring.encrypt("the plain text", context=["somewhere"])
    # From keyring's own frames on: the caller's frames are the caller's responsibility.
    report = ExceptionReporter(None, raised.type, raised.value, raised.tb.tb_next).get_traceback_html()
    assert "_parse" in report
    assert [text for text in (good, "no-key-at-all", "the plain text") if text in report] == []
