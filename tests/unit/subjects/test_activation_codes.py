"""Activation codes as people write them: 80 bits, and no sign that is taken for another."""

import pytest

from django_phi_oidc._internal import randomness
from django_phi_oidc.subjects.activation_codes import CODE_ALPHABET, CODE_LENGTH, create_code, format_code, parse_code
from django_phi_oidc.subjects.identifiers import (
    compute_activation_digest,
    compute_pairwise_value,
    compute_subject_digest,
)

CODE, SHOWN = "K7XM4QHD9VTZ0B31", "K7XM-4QHD-9VTZ-0B31"
SPELLINGS = {
    "as it is shown": SHOWN,
    "without hyphens": CODE,
    "small letters": SHOWN.lower(),
    "spaces": " K7XM 4QHD\t9VTZ 0B31\n",
    "one by one": "-".join(CODE),
    "letters for digits": "K7XM-4QHD-9VTZ-OB3l",
    "more letters for digits": "k7xm-4qhd-9vtz-ob3I",
    "typographic hyphens": "K7XM‐4QHD–9VTZ—0B31",
    "no-break spaces and a soft hyphen": "K7XM\u00a04QHD\u202f9VTZ\u00ad0B31",
}
NO_CODES = {
    "nothing": "",
    "one sign too few": CODE[:-1],
    "one sign too many": f"{CODE}0",
    "a U, which is no sign": f"{CODE[:-1]}U",
    "a sign of another script": f"{CODE[:-1]}\u0417",
    "a digit of another script": f"{CODE[:-1]}\u0661",
    "half a character": f"{CODE[:-1]}\ud800",
    "NUL": f"{CODE}\0",
}


def test_code_is_eighty_bits_of_entropy_and_no_other() -> None:
    asked: list[int] = []

    def counting(size: int) -> bytes:
        asked.append(size)
        return bytes(range(size))

    with randomness.override_randomness(counting):
        assert create_code() == create_code() == "000G40R40M30E209"
    assert asked == [10, 10]
    for drawn, code in ((b"\0" * 10, "0" * 16), (b"\xff" * 10, "Z" * 16)):
        with randomness.override_randomness(lambda size, drawn=drawn: drawn):  # type: ignore[misc]
            assert create_code() == code


def test_codes_are_of_32_signs_that_nobody_confuses() -> None:
    codes = {create_code() for _ in range(500)}
    assert len(codes) == 500
    assert set("".join(codes)) == set(CODE_ALPHABET) == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert {len(code) for code in codes} == {CODE_LENGTH}
    assert all(parse_code(format_code(code)) == code for code in codes)
    assert len(format_code(CODE).split("-")) == 4


@pytest.mark.parametrize("typed", SPELLINGS.values(), ids=SPELLINGS)
def test_code_is_read_however_it_is_written(typed: str) -> None:
    assert parse_code(typed) == CODE
    assert format_code(parse_code(typed)) == SHOWN


@pytest.mark.parametrize("typed", NO_CODES.values(), ids=NO_CODES)
def test_what_is_no_code_is_read_as_none(typed: str) -> None:
    assert parse_code(typed) == ""


def test_digest_is_of_key_issuer_and_code_and_is_no_other_digest() -> None:
    key, issuer = b"k" * 32, "https://op.example.test"
    digests = {
        compute_activation_digest(key, issuer=issuer, code=CODE),
        compute_activation_digest(b"l" * 32, issuer=issuer, code=CODE),
        compute_activation_digest(key, issuer=f"{issuer}/", code=CODE),
        compute_activation_digest(key, issuer=issuer, code=CODE[::-1]),
        compute_activation_digest(key, issuer=issuer[:-1], code=issuer[-1] + CODE),
        compute_subject_digest(key, issuer=issuer, sub=CODE),
        compute_pairwise_value(key, sector="activationcode", user_model_label=issuer, pk=CODE),
    }
    assert len(digests) == 7
    assert {len(digest) for digest in digests} == {64}
