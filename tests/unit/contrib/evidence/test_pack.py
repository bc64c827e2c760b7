"""The file of an evidence pack: what was written is accepted, and each manipulation of it is refused."""

import json
from collections.abc import Callable
from typing import Any

import pytest
import rfc8785
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from django_phi_oidc.audit.errors import CheckpointInvalid, ProofInvalid
from django_phi_oidc.audit.merkle.checkpoint import Checkpoint, sign_checkpoint, verify_checkpoint
from django_phi_oidc.contrib.evidence import pack
from django_phi_oidc.contrib.evidence.pack import (
    FORMAT,
    MAX_PACK_BYTES,
    build_pack,
    hash_evidence,
    verify_pack,
)
from tests.support.audit_log import KEY, OTHER_KEY

LOG = "portal.example/audit"
EVIDENCE: dict[str, Any] = {
    "log": LOG,
    "time": "2026-11-24T16:05:09+00:00",
    "settings": [{"name": "leeway", "value": "0:00:30"}, {"name": "é\U0001f600", "value": '"\\\n'}],
    "checks": [{"id": "django_phi_oidc.W004", "silenced": False}],
    "checkpoint": sign_checkpoint(Checkpoint(origin=LOG, tree_size=3, root_hash=bytes(32)), KEY),
    "none": None,
    "count": 7,
}
TEXT = build_pack(EVIDENCE, key=KEY)


def is_accepted(text: str | bytes, *keys: Ed25519PrivateKey) -> bool:
    """Any other result than ProofInvalid and CheckpointInvalid is an error."""
    raw = text.encode() if isinstance(text, str) else text
    try:
        return verify_pack(raw, [key.public_key() for key in keys or [KEY]]) == EVIDENCE
    except (ProofInvalid, CheckpointInvalid):
        return False


def edit(change: Callable[[dict[str, Any]], object]) -> Callable[[str], str]:
    """Return a function that changes the parsed file, and writes it in the same form."""

    def damage(text: str) -> str:
        parsed = json.loads(text)
        change(parsed)
        return write(parsed)

    return damage


def write(parsed: dict[str, Any]) -> str:
    return json.dumps(parsed, sort_keys=True, ensure_ascii=False, indent=1) + "\n"


MANIPULATIONS: dict[str, Callable[[str], str | bytes]] = {
    "a changed setting": lambda text: text.replace("0:00:30", "0:00:31"),
    "a removed setting": edit(lambda parsed: parsed["evidence"]["settings"].pop()),
    "a removed warning": edit(lambda parsed: parsed["evidence"]["checks"].clear()),
    "a silenced warning": lambda text: text.replace('"silenced": false', '"silenced": true'),
    "another time": lambda text: text.replace("16:05", "16:06"),
    "another checkpoint": edit(
        lambda parsed: parsed["evidence"].update(
            checkpoint=sign_checkpoint(Checkpoint(origin=LOG, tree_size=2, root_hash=bytes(32)), KEY)
        )
    ),
    "the name of another log": edit(lambda parsed: parsed["evidence"].update(log="other.example/audit")),
    "an additional member": edit(lambda parsed: parsed["evidence"].update(more=1)),
    "an additional member outside": edit(lambda parsed: parsed.update(more=1)),
    "another format": lambda text: text.replace(FORMAT, "phi-oidc-evidence/2", 1),
    "a checkpoint for a signature": edit(lambda parsed: parsed.update(signature=parsed["evidence"]["checkpoint"])),
    "no signature": edit(lambda parsed: parsed.pop("signature")),
    "an empty signature": edit(lambda parsed: parsed.update(signature="")),
    "not a signature": edit(lambda parsed: parsed.update(signature=7)),
    "the signature of another pack": edit(
        lambda parsed: parsed.update(signature=json.loads(build_pack(EVIDENCE | {"count": 8}, key=KEY))["signature"])
    ),
    "a duplicate member": lambda text: text.replace('"count": 7', '"count": 7,\n  "count": 7'),
    "another value before": lambda text: text.replace('"count": 7', '"count": 8,\n  "count": 7'),
    "another order of the members": lambda text: text.replace(
        f'"log": "{LOG}",\n  "none": null', f'"none": null,\n  "log": "{LOG}"'
    ),
    "a number of another form": lambda text: text.replace('"count": 7', '"count": 7.0'),
    "an escaped letter": lambda text: text.replace("leeway", "\\u006ceeway"),
    "another white space": lambda text: text.replace(": ", ":  ", 1),
    "truncated by its newline": lambda text: text[:-1],
    "truncated": lambda text: text[: len(text) // 2],
    "an appended newline": lambda text: f"{text}\n",
    "an appended object": lambda text: f"{text}{{}}",
    "appended bytes": lambda text: text.encode() + b"\0",
    "a byte order mark": lambda text: b"\xef\xbb\xbf" + text.encode(),
    "carriage returns": lambda text: text.replace("\n", "\r\n"),
    "not UTF-8": lambda text: text.encode("latin-1", "replace").replace(b"leeway", b"\xffeeway"),
    "empty": lambda text: "",
    "a list": lambda text: "[]",
    "no evidence": lambda text: '{"evidence": [], "signature": ""}',
    "nested too deeply": lambda text: '{"evidence":' * 100_000,
    "a number of many digits": lambda text: text.replace('"count": 7', f'"count": {"9" * 5000}'),
}


@pytest.mark.parametrize("manipulate", MANIPULATIONS.values(), ids=MANIPULATIONS)
def test_manipulated_pack_is_refused(manipulate: Callable[[str], str | bytes]) -> None:
    assert is_accepted(TEXT)
    manipulated = manipulate(TEXT)
    assert manipulated not in (TEXT, TEXT.encode())
    assert not is_accepted(manipulated)


def test_pack_is_accepted_with_the_key_that_signed_it_only() -> None:
    assert is_accepted(TEXT, OTHER_KEY, KEY)
    assert not is_accepted(TEXT, OTHER_KEY)
    assert not is_accepted(build_pack(EVIDENCE, key=OTHER_KEY))
    with pytest.raises(CheckpointInvalid):
        verify_pack(TEXT.encode(), [])


def test_signature_is_no_checkpoint_of_any_log() -> None:
    note = json.loads(TEXT)["signature"]
    assert note.startswith(f"{FORMAT}\nsha256 ")
    for origin in (None, LOG, FORMAT):
        with pytest.raises(CheckpointInvalid):
            verify_checkpoint(note, [KEY.public_key()], expected_origin=origin)


def test_checkpoint_of_a_log_with_the_name_of_the_format_is_no_signature() -> None:
    digest = bytes.fromhex(hash_evidence(EVIDENCE | {"log": FORMAT}))
    note = sign_checkpoint(Checkpoint(origin=FORMAT, tree_size=3, root_hash=digest), KEY)
    evidence = EVIDENCE | {"log": FORMAT}
    signed = build_pack(evidence, key=KEY)
    assert verify_pack(signed.encode(), [KEY.public_key()]) == evidence
    swapped = {**json.loads(signed), "signature": note}
    with pytest.raises(ProofInvalid, match="not what was signed"):
        verify_pack(write(swapped).encode(), [KEY.public_key()])


def test_digest_is_that_of_the_text_of_rfc_8785() -> None:
    assert hash_evidence(EVIDENCE) == pack.sha256(rfc8785.dumps(EVIDENCE)).hexdigest()


def test_file_of_more_than_the_limit_is_not_parsed() -> None:
    with pytest.raises(ProofInvalid, match="too large"):
        verify_pack(b" " * (MAX_PACK_BYTES + 1), [KEY.public_key()])
