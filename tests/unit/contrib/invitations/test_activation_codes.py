"""The format of activation codes: 80 random bits, in symbols that are not confused with each other."""

import pytest

from django_phi_oidc._internal import randomness
from django_phi_oidc.contrib.invitations.activation_codes import (
    CODE_ALPHABET,
    CODE_LENGTH,
    create_code,
    format_code,
    parse_code,
)
from django_phi_oidc.subjects.identifiers import (
    compute_activation_digest,
    compute_pairwise_value,
    compute_subject_digest,
)

CODE, SHOWN = "K7XM4QHD9VTZ0B31", "K7XM-4QHD-9VTZ-0B31"
SPELLINGS = {
    "with hyphens": SHOWN,
    "without hyphens": CODE,
    "small letters": SHOWN.lower(),
    "spaces": " K7XM 4QHD\t9VTZ 0B31\n",
    "a hyphen after each symbol": "-".join(CODE),
    "letters for digits": "K7XM-4QHD-9VTZ-OB3l",
    "more letters for digits": "k7xm-4qhd-9vtz-ob3I",
    "typographic hyphens": "K7XM‐4QHD–9VTZ—0B31",
    "no-break spaces and a soft hyphen": "K7XM\u00a04QHD\u202f9VTZ\u00ad0B31",
}
INVALID = {
    "empty": "",
    "a symbol too few": CODE[:-1],
    "a symbol too many": f"{CODE}0",
    "a U, which is no symbol": f"{CODE[:-1]}U",
    "a letter of another script": f"{CODE[:-1]}\u0417",
    "a digit of another script": f"{CODE[:-1]}\u0661",
    "half a character": f"{CODE[:-1]}\ud800",
    "NUL": f"{CODE}\0",
}


def test_code_has_eighty_random_bits() -> None:
    sizes: list[int] = []

    def counting(size: int) -> bytes:
        sizes.append(size)
        return bytes(range(size))

    with randomness.override_randomness(counting):
        assert create_code() == create_code() == "000G40R40M30E209"
    assert sizes == [10, 10]
    for random, code in ((b"\0" * 10, "0" * 16), (b"\xff" * 10, "Z" * 16)):
        with randomness.override_randomness(lambda size, random=random: random):  # type: ignore[misc]
            assert create_code() == code


def test_codes_use_32_unambiguous_symbols() -> None:
    codes = {create_code() for _ in range(500)}
    assert len(codes) == 500
    assert set("".join(codes)) == set(CODE_ALPHABET) == set("0123456789ABCDEFGHJKMNPQRSTVWXYZ")
    assert {len(code) for code in codes} == {CODE_LENGTH}
    assert all(parse_code(format_code(code)) == code for code in codes)
    assert len(format_code(CODE).split("-")) == 4


@pytest.mark.parametrize("typed", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_a_code_are_accepted(typed: str) -> None:
    assert parse_code(typed) == CODE
    assert format_code(parse_code(typed)) == SHOWN


@pytest.mark.parametrize("typed", INVALID.values(), ids=INVALID)
def test_invalid_text_gives_no_code(typed: str) -> None:
    assert parse_code(typed) == ""


def test_activation_digest_depends_on_key_issuer_and_code() -> None:
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
