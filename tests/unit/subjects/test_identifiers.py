"""Keyed digests and pairwise identifiers, compared with independent computations."""

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc.subjects.identifiers import compute_pairwise_value, compute_subject_digest

KEY = bytes(range(32))
ISSUER = "https://op.example.test"


def test_subject_digest_is_hmac_sha256_over_length_prefixed_issuer_and_sub() -> None:
    message = b"\x00\x00\x00\x17" + b"https://op.example.test" + b"\x00\x00\x00\x05" + b"248\xc3\xa9"
    expected = hmac.new(KEY, message, hashlib.sha256).hexdigest()
    assert compute_subject_digest(KEY, issuer=ISSUER, sub="248é") == expected


@pytest.mark.parametrize(
    ("issuer", "sub"),
    [(ISSUER, "249"), (ISSUER + "/", "248"), (ISSUER + "2", "48"), (ISSUER[:-1], "t248"), ("", ISSUER + "248")],
)
def test_subject_digest_of_another_pair_differs(issuer: str, sub: str) -> None:
    assert compute_subject_digest(KEY, issuer=issuer, sub=sub) != compute_subject_digest(KEY, issuer=ISSUER, sub="248")


def test_subject_digest_under_another_key_differs() -> None:
    digests = {compute_subject_digest(key, issuer=ISSUER, sub="248") for key in (KEY, bytes(32))}
    assert len(digests) == 2


@given(st.text(max_size=20), st.text(max_size=20), st.text(max_size=20), st.text(max_size=20))
def test_subject_digests_are_equal_only_for_equal_pairs(issuer: str, sub: str, other: str, other_sub: str) -> None:
    pairs = ((issuer, sub), (other, other_sub))
    digests = [compute_subject_digest(KEY, issuer=pair[0], sub=pair[1]) for pair in pairs]
    assert (digests[0] == digests[1]) == (pairs[0] == pairs[1])


PARTS = st.tuples(*[st.text(max_size=12)] * 3)


def test_pairwise_value_is_hmac_sha256_over_length_prefixed_sector_model_and_pk() -> None:
    message = b"\x00\x00\x00\x03lab" + b"\x00\x00\x00\x09auth.user" + b"\x00\x00\x00\x0242"
    expected = hmac.new(KEY, message, hashlib.sha256).hexdigest()
    assert compute_pairwise_value(KEY, sector="lab", user_model_label="auth.user", pk="42") == expected


def test_pairwise_value_under_another_key_differs() -> None:
    values = {compute_pairwise_value(key, sector="lab", user_model_label="m", pk="1") for key in (KEY, bytes(32))}
    assert len(values) == 2


@given(PARTS, PARTS)
def test_pairwise_values_are_equal_only_for_equal_parts(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    values = [
        compute_pairwise_value(KEY, sector=parts[0], user_model_label=parts[1], pk=parts[2]) for parts in (one, other)
    ]
    assert (values[0] == values[1]) == (one == other)


@given(st.text(max_size=20), st.text(max_size=20), PARTS)
def test_pairwise_value_is_never_a_subject_digest(issuer: str, sub: str, parts: tuple[str, str, str]) -> None:
    value = compute_pairwise_value(KEY, sector=parts[0], user_model_label=parts[1], pk=parts[2])
    assert value != compute_subject_digest(KEY, issuer=issuer, sub=sub)
