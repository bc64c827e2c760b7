"""Checkpoints: published notes and keys, and one damage at a time. Spec: C2SP tlog-checkpoint, signed-note."""

import base64
from collections.abc import Callable, Sequence

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.audit.errors import CheckpointInvalid
from django_phi_oidc.audit.merkle.checkpoint import (
    MAX_NOTE_BYTES,
    Checkpoint,
    build_checkpoint_body,
    compute_key_id,
    encode_verifier_key,
    parse_checkpoint,
    parse_verifier_key,
    sign_checkpoint,
    sign_statement,
    verify_checkpoint,
    verify_statement,
)
from tests.unit.audit.merkle import published_vectors as published
from tests.unit.audit.merkle.example_trees import some_examples

Damage = Callable[[str], str]


def private_key(number: int) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(number.to_bytes(32, "big"))


ORIGIN = "log.example/audit"
KEY, OTHER_KEY = private_key(1372), private_key(7)
SAME_ID_KEY = private_key(41992)
"""Another key with the same id as KEY under ORIGIN, found by brute force over four bytes."""
CHECKPOINT = Checkpoint(origin=ORIGIN, tree_size=20852163, root_hash=bytes(range(32)))
BODY = "log.example/audit\n20852163\nAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n"
NOTE = sign_checkpoint(CHECKPOINT, KEY)
LINE = NOTE.removeprefix(f"{BODY}\n")


def signature_line(body: str, key: Ed25519PrivateKey, *, name: str = ORIGIN, id_of: Ed25519PrivateKey = KEY) -> str:
    """Return a signature line over body, optionally with another name or key id."""
    blob = compute_key_id(name, id_of.public_key()) + key.sign(body.encode())
    return f"— {name} {base64.b64encode(blob).decode()}\n"


def signed(body: str) -> str:
    """Return a note with any body and a valid signature."""
    return f"{body}\n{signature_line(body, KEY)}"


def accepts(note: str, *keys: Ed25519PrivateKey, origin: str | None = ORIGIN) -> bool:
    """Whether the note is verified as CHECKPOINT. Any other result than CheckpointInvalid is an error."""
    try:
        read = verify_checkpoint(note, [key.public_key() for key in keys or [KEY]], expected_origin=origin)
    except CheckpointInvalid:
        return False
    return read == CHECKPOINT


# Keys


@pytest.mark.parametrize("name", published.VERIFIER_KEYS)
def test_parse_verifier_key_published_key_is_written_as_published(name: str) -> None:
    vkey = published.VERIFIER_KEYS[name]
    read_name, public_key = parse_verifier_key(vkey)
    assert (read_name, encode_verifier_key(name, public_key)) == (name, vkey)
    assert compute_key_id(name, public_key).hex() == vkey.split("+")[1]


@pytest.mark.parametrize("vkey", published.FOREIGN_VERIFIER_KEYS.values(), ids=published.FOREIGN_VERIFIER_KEYS)
def test_parse_verifier_key_published_bad_key_is_refused(vkey: str) -> None:
    assert parse_verifier_key(published.VERIFIER_KEYS["PeterNeumann"])
    with pytest.raises(ValueError, match="Not a verifier key"):
        parse_verifier_key(vkey)


def test_parse_verifier_key_any_part_or_change_of_one_is_refused() -> None:
    vkey = published.VERIFIER_KEYS["PeterNeumann"]
    parts = {vkey[start:end] for start in range(len(vkey)) for end in range(start + 1, len(vkey) + 1)} - {vkey}
    changed = {vkey[:place] + chr(ord(vkey[place]) + 1) + vkey[place + 1 :] for place in range(len(vkey))}
    others = {"", f"{vkey}\n", f" {vkey}", f"{vkey}+", vkey.replace("c74f20a3", "C74F20A3"), vkey.replace("+", "++", 1)}
    for text in parts | changed | others:
        with pytest.raises(ValueError, match="Not a verifier key"):
            parse_verifier_key(text)


@pytest.mark.parametrize("name", ["", "a b", "a+b", "a\nb", "a\u00a0b", "a\u2028b", "a\0b", "\ud800", "a" * 256])
def test_invalid_key_names_are_refused(name: str) -> None:
    assert encode_verifier_key(ORIGIN, KEY.public_key()).startswith(f"{ORIGIN}+")
    with pytest.raises(ValueError, match="1 to 255 characters"):
        encode_verifier_key(name, KEY.public_key())
    with pytest.raises(ValueError, match="1 to 255 characters"):
        build_checkpoint_body(Checkpoint(origin=name, tree_size=1, root_hash=bytes(32)))


# Signing


def test_checkpoint_body_is_three_lines() -> None:
    assert build_checkpoint_body(CHECKPOINT) == BODY
    assert build_checkpoint_body(Checkpoint(origin="a", tree_size=0, root_hash=bytes(32))) == f"a\n0\n{'A' * 43}=\n"


@pytest.mark.parametrize("tree_size", [-1, 2**63])
def test_checkpoint_body_size_out_of_range_is_refused(tree_size: int) -> None:
    assert build_checkpoint_body(Checkpoint(origin="a", tree_size=2**63 - 1, root_hash=bytes(32)))
    with pytest.raises(ValueError, match="No tree has this size"):
        build_checkpoint_body(Checkpoint(origin="a", tree_size=tree_size, root_hash=bytes(32)))


@pytest.mark.parametrize("length", [0, 31, 33, 64])
def test_checkpoint_body_root_of_wrong_length_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match="or this root hash"):
        build_checkpoint_body(Checkpoint(origin="a", tree_size=1, root_hash=bytes(length)))


def test_sign_checkpoint_published_key_makes_the_published_note() -> None:
    seed = base64.b64decode(published.LOG_SIGNER)[1:]
    checkpoint = Checkpoint(
        origin="example.com/log/testdata",
        tree_size=100270,
        root_hash=base64.b64decode("GRV1O0dCqmjjPvYi7CtOT79zb/fPwLNsMFWsynwU8Ac="),
    )
    assert sign_checkpoint(checkpoint, Ed25519PrivateKey.from_private_bytes(seed)) == published.LOG_NOTE


@some_examples
@given(
    st.text(st.characters(exclude_characters="+", exclude_categories=("Z", "Cc", "Cs")), min_size=1, max_size=255),
    st.integers(min_value=0, max_value=2**63 - 1),
    st.binary(min_size=32, max_size=32),
)
def test_sign_checkpoint_of_any_tree_is_verified(origin: str, tree_size: int, root_hash: bytes) -> None:
    checkpoint = Checkpoint(origin=origin, tree_size=tree_size, root_hash=root_hash)
    note = sign_checkpoint(checkpoint, KEY)
    assert parse_checkpoint(note) == checkpoint
    assert verify_checkpoint(note, [KEY.public_key()], expected_origin=origin) == checkpoint


# Reading


def test_parse_checkpoint_example_of_the_specification_is_read() -> None:
    checkpoint = parse_checkpoint(published.SPECIFIED_NOTE)
    assert (checkpoint.origin, checkpoint.tree_size) == ("example.com/behind-the-sofa", 20852163)
    assert base64.b64encode(checkpoint.root_hash) == b"CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I="


BODIES = {
    "leading zero": (BODY, BODY.replace("20852163", "020852163")),
    "size zero twice": (BODY.replace("20852163", "0"), BODY.replace("20852163", "00")),
    "plus before the size": (BODY, BODY.replace("20852163", "+20852163")),
    "negative size": (BODY, BODY.replace("20852163", "-20852163")),
    "size with an underscore": (BODY, BODY.replace("20852163", "20_852_163")),
    "size of other digits": (BODY, BODY.replace("20852163", "2٢")),
    "hexadecimal size": (BODY, BODY.replace("20852163", "0x20")),
    "empty size": (BODY, BODY.replace("20852163", "")),
    "size of 64 bits": (BODY.replace("20852163", f"{2**63 - 1}"), BODY.replace("20852163", f"{2**63}")),
    "size of ten thousand digits": (BODY, BODY.replace("20852163", "9" * 10_000)),
    "space behind the size": (BODY, BODY.replace("20852163", "20852163 ")),
    "root without padding": (BODY, BODY.replace("Hh8=", "Hh8")),
    "root of two forms": (BODY, BODY.replace("Hh8=", "Hh9=")),
    "root in base64url": (BODY.replace("AAEC", "//EC"), BODY.replace("AAEC", "__EC")),
    "root of 31 bytes": (BODY, BODY.replace("HR4fHw", "HR4").replace("HB0eHw", "HB0e").replace("Hh8=", "Hg==")),
    "root of 33 bytes": (BODY, BODY.replace("Hh8=", "Hh8f")),
    "empty root": (BODY, BODY.replace(BODY.split("\n")[2], "")),
    "two lines": (BODY, "".join(BODY.splitlines(keepends=True)[:2])),
    "empty origin": (BODY, BODY.removeprefix(ORIGIN)),
    "line before the origin": (BODY, f"x\n{BODY}"),
    "origin with a space": (BODY, BODY.replace("audit", "au dit")),
    "origin with a plus": (BODY, BODY.replace("audit", "au+dit")),
    "carriage returns": (BODY, BODY.replace("\n", "\r\n")),
    "tab": (f"{BODY}extension line\n", f"{BODY}extension\tline\n"),
    "NUL": (f"{BODY}extension line\n", f"{BODY}extension\0line\n"),
    "lone surrogate": (BODY, BODY.replace("audit", "\ud800")),
    "empty extension line": (f"{BODY}x\ny\n", f"{BODY}x\n\ny\n"),
    "empty line at the end": (BODY, f"{BODY}\n"),
}


@pytest.mark.parametrize(("accepted", "refused"), BODIES.values(), ids=BODIES)
def test_parse_checkpoint_damaged_body_is_refused(accepted: str, refused: str) -> None:
    assert parse_checkpoint(f"{accepted}\n{LINE}").origin == ORIGIN
    with pytest.raises(CheckpointInvalid) as caught:
        parse_checkpoint(f"{refused}\n{LINE}")
    assert (caught.value.code, caught.value.__context__) == ("checkpoint_invalid", None)


NOTES: dict[str, Damage] = {
    "empty": lambda _: "",
    "only newlines": lambda _: "\n\n\n",
    "no signature": lambda note: note.removesuffix(LINE),
    "no blank line": lambda note: note.replace("\n\n", "\n"),
    "two blank lines": lambda note: note.replace("\n\n", "\n\n\n"),
    "blank line behind": lambda note: f"{note}\n",
    "truncated by its newline": lambda note: note[:-1],
    "trailing garbage": lambda note: f"{note}garbage\n",
    "garbage between signatures": lambda note: f"{note}garbage\n{LINE}",
    "byte order mark": lambda note: f"\ufeff{note}".replace("\ufefflog", "\ufeff log"),
    "carriage returns": lambda note: note.replace("\n", "\r\n"),
    "hyphen for the dash": lambda note: note.replace("—", "-"),
    "en dash": lambda note: note.replace("—", "–"),
    "no space behind the dash": lambda note: note.replace("— ", "—"),
    "no-break space behind the dash": lambda note: note.replace("— ", "—\u00a0"),
    "no name": lambda note: note.replace(f"— {ORIGIN}", "—"),
    "name with a space": lambda note: note.replace(f"— {ORIGIN}", "— log example"),
    "name with a plus": lambda note: note.replace(f"— {ORIGIN}", "— log+example"),
    "no signature behind the name": lambda note: note.replace(LINE, f"— {ORIGIN} \n"),
    "signature not base64": lambda note: note.replace(LINE, f"— {ORIGIN} AAAA!AAA\n"),
    "signature without padding": lambda note: note.replace("=\n", "\n").replace("Hh8\n", "Hh8=\n"),
    "key id alone": lambda note: note.replace(LINE, f"— {ORIGIN} AAAAAA==\n"),
    "space behind the signature": lambda note: note.replace(LINE, f"{LINE[:-1]} \n"),
}


@pytest.mark.parametrize("damage", NOTES.values(), ids=NOTES)
def test_parse_checkpoint_damaged_note_is_refused(damage: Damage) -> None:
    assert parse_checkpoint(NOTE) == CHECKPOINT
    assert damage(NOTE) != NOTE
    with pytest.raises(CheckpointInvalid):
        parse_checkpoint(damage(NOTE))
    assert not accepts(damage(NOTE))


@pytest.mark.parametrize("filling", ["x", "é"])
def test_parse_checkpoint_one_byte_over_64_kib_is_refused(filling: str) -> None:
    def note_of(size: int) -> str:
        room = size - len(f"{BODY}\n\n{LINE}".encode())
        count, rest = divmod(room, len(filling.encode()))
        return f"{BODY}{filling * count}{'x' * rest}\n\n{LINE}"

    assert len(note_of(MAX_NOTE_BYTES).encode()) == MAX_NOTE_BYTES == 65536
    assert parse_checkpoint(note_of(MAX_NOTE_BYTES)) == CHECKPOINT
    with pytest.raises(CheckpointInvalid):
        parse_checkpoint(note_of(MAX_NOTE_BYTES + 1))


def test_parse_checkpoint_extension_lines_are_accepted() -> None:
    assert accepts(signed(f"{BODY}timestamp 1\n— not a signature\n"))


def test_parse_checkpoint_does_not_verify_signatures() -> None:
    assert parse_checkpoint(signed(BODY).replace(LINE, signature_line("x", OTHER_KEY))) == CHECKPOINT


@given(st.text(st.characters(exclude_categories=())))
def test_parse_checkpoint_any_text_gives_checkpoint_invalid(text: str) -> None:
    for note in (text, f"{BODY}\n{text}", f"{text}\n{LINE}"):
        with pytest.raises(CheckpointInvalid):
            parse_checkpoint(note)


# Verifying

COSIGNATURE = signature_line(BODY, OTHER_KEY, name="witness.example", id_of=OTHER_KEY)
BROKEN = signature_line("another body", KEY)


def test_verify_checkpoint_made_in_go_is_verified() -> None:
    name, public_key = parse_verifier_key(published.VERIFIER_KEYS["example.com/log/testdata"])
    assert verify_checkpoint(published.LOG_NOTE, [public_key], expected_origin=name).tree_size == 100270
    with pytest.raises(CheckpointInvalid):
        verify_checkpoint(published.LOG_NOTE.replace("100270", "100271"), [public_key], expected_origin=name)


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        pytest.param([LINE], [BROKEN], id="a signature of another body"),
        pytest.param([LINE], [signature_line(BODY, OTHER_KEY)], id="a signature by another key under the id"),
        pytest.param([LINE], [signature_line(BODY, OTHER_KEY, id_of=OTHER_KEY)], id="a signature by an unknown key"),
        pytest.param([LINE], [signature_line(BODY, KEY, name="witness.example")], id="under another name"),
        pytest.param([LINE], [signature_line(BODY[:-1], KEY)], id="without the newline"),
        pytest.param([LINE], [signature_line(f"{BODY}\n", KEY)], id="with the blank line"),
        pytest.param([LINE, COSIGNATURE], [COSIGNATURE], id="a witness alone"),
        pytest.param([COSIGNATURE, LINE], [COSIGNATURE, BROKEN], id="a witness before"),
        pytest.param([LINE, LINE], [LINE, BROKEN], id="a broken signature behind"),
        pytest.param([LINE] * 16, [BROKEN, LINE], id="a broken signature before"),
        pytest.param(
            [LINE, signature_line("x", OTHER_KEY, id_of=OTHER_KEY)],
            [LINE, f"— {ORIGIN} {base64.b64encode(compute_key_id(ORIGIN, KEY.public_key()) + bytes(63)).decode()}\n"],
            id="a signature too short",
        ),
    ],
)
def test_verify_checkpoint_needs_every_known_signature_to_be_valid(
    accepted: Sequence[str], refused: Sequence[str]
) -> None:
    assert accepts("\n".join([BODY, "".join(accepted)]))
    assert not accepts("\n".join([BODY, "".join(refused)]))


def test_verify_checkpoint_with_two_signatures_accepts_either_key() -> None:
    rotated = f"{NOTE}{signature_line(BODY, OTHER_KEY, id_of=OTHER_KEY)}"
    assert accepts(rotated, KEY)
    assert accepts(rotated, OTHER_KEY)
    assert accepts(rotated, KEY, OTHER_KEY)
    assert accepts(NOTE, OTHER_KEY, KEY, KEY)
    assert not accepts(rotated, private_key(8))


def test_verify_checkpoint_two_keys_of_one_id_are_both_tried() -> None:
    assert compute_key_id(ORIGIN, KEY.public_key()) == compute_key_id(ORIGIN, SAME_ID_KEY.public_key())
    assert accepts(NOTE, KEY, SAME_ID_KEY)
    assert accepts(NOTE, SAME_ID_KEY, KEY)
    assert not accepts(NOTE, SAME_ID_KEY)


def test_verify_checkpoint_without_keys_is_refused() -> None:
    assert accepts(NOTE)
    with pytest.raises(CheckpointInvalid):
        verify_checkpoint(NOTE, [])


@pytest.mark.parametrize("origin", ["", "log.example", "log.example/audit/2", "LOG.example/audit"])
def test_verify_checkpoint_of_another_log_is_refused(origin: str) -> None:
    assert accepts(NOTE, origin=None)
    assert not accepts(NOTE, origin=origin)


@pytest.mark.parametrize(
    "changed",
    [
        BODY.replace("20852163", "20852162"),
        BODY.replace("AAEC", "ABEC"),
        BODY.replace("audit", "audjt"),
        f"{BODY}extension\n",
    ],
)
def test_verify_checkpoint_body_changed_after_signing_is_refused(changed: str) -> None:
    assert not accepts(NOTE.replace(BODY, changed), origin=None)


@given(st.integers(min_value=0, max_value=8 * len(NOTE.encode()) - 1))
def test_verify_checkpoint_one_flipped_bit_is_refused(bit: int) -> None:
    damaged = bytearray(NOTE.encode())
    damaged[bit // 8] ^= 1 << bit % 8
    assert not accepts(damaged.decode(errors="surrogateescape"), origin=None)


# Statements: notes of other texts

STATEMENT = "an-example/1\nsha256 0a1b\n"


def accepts_statement(note: str, *keys: Ed25519PrivateKey, name: str = ORIGIN) -> bool:
    """Whether the note is verified as STATEMENT. Any other result than CheckpointInvalid is an error."""
    try:
        return verify_statement(note, [key.public_key() for key in keys or [KEY]], name=name) == STATEMENT
    except CheckpointInvalid:
        return False


def test_sign_statement_is_verified_under_its_key_and_name() -> None:
    note = sign_statement(STATEMENT, name=ORIGIN, key=KEY)
    assert note == f"{STATEMENT}\n{signature_line(STATEMENT, KEY)}"
    assert accepts_statement(note)
    assert accepts_statement(note, OTHER_KEY, KEY)
    assert not accepts_statement(note, OTHER_KEY)
    assert not accepts_statement(note, name="other.example/audit")
    with pytest.raises(CheckpointInvalid):
        verify_statement(note, [], name=ORIGIN)


@pytest.mark.parametrize(
    "damage",
    [
        lambda note: note.replace("0a1b", "0a1c"),
        lambda note: f"{note}{COSIGNATURE}",
        lambda note: f"{note}{signature_line(STATEMENT, KEY)}",
        lambda note: note.replace(signature_line(STATEMENT, KEY), signature_line("x", KEY)),
        lambda note: note.replace(signature_line(STATEMENT, KEY), signature_line(STATEMENT, OTHER_KEY)),
        lambda note: note[:-1],
        lambda note: f"{note}\n",
    ],
    ids=["text", "a witness", "a second signature", "of another text", "by another key", "truncated", "longer"],
)
def test_verify_statement_of_a_damaged_note_is_refused(damage: Damage) -> None:
    note = sign_statement(STATEMENT, name=ORIGIN, key=KEY)
    assert accepts_statement(note)
    assert damage(note) != note
    assert not accepts_statement(damage(note))


def test_statement_may_have_blank_lines() -> None:
    body = f"{STATEMENT}\n{STATEMENT}"
    assert verify_statement(sign_statement(body, name=ORIGIN, key=KEY), [KEY.public_key()], name=ORIGIN) == body


def test_statement_is_no_checkpoint_and_a_checkpoint_is_not_signed_as_a_statement() -> None:
    with pytest.raises(CheckpointInvalid, match="Not the lines of a signed checkpoint"):
        verify_checkpoint(sign_statement(STATEMENT, name=ORIGIN, key=KEY), [KEY.public_key()])
    for body, name in ((BODY, ORIGIN), (f"{BODY}more\n", ORIGIN), (STATEMENT, "a name")):
        with pytest.raises(ValueError, match="Not a key name, or the text of a checkpoint"):
            sign_statement(body, name=name, key=KEY)
