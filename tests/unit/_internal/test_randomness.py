"""UUIDv7 has the layout of RFC 9562 5.7, and sorts by time."""

import uuid
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from django_phi_oidc._internal import randomness

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TIMES = st.integers(0, 8_000 * 365 * 86_400 * 10**6).map(lambda micros: EPOCH + timedelta(microseconds=micros))


def test_uuid7_matches_the_example_of_the_rfc() -> None:
    # RFC 9562 A.6: Tuesday, February 22, 2022 2:22:22.00 PM GMT-05:00; rand_b 0x18C4DC0C0C07398F. Its rand_a is random,
    # here it contains the microseconds, which are 0.
    random = 0x18C4DC0C0C07398F.to_bytes(8, "big")
    with randomness.override_randomness(lambda size: random[:size]):
        value = randomness.uuid7(datetime(2022, 2, 22, 19, 22, 22, tzinfo=UTC))
    assert value == uuid.UUID("017f22e2-79b0-7000-98c4-dc0c0c07398f")


@given(TIMES, st.binary(min_size=8, max_size=8))
def test_uuid7_of_any_time_has_version_variant_and_millisecond(now: datetime, random: bytes) -> None:
    with randomness.override_randomness(lambda size: random):
        value = randomness.uuid7(now)
    assert (value.version, value.variant) == (7, uuid.RFC_4122)
    assert value.int >> 80 == (now - EPOCH) // timedelta(milliseconds=1)


@given(TIMES)
def test_uuid7_of_a_later_microsecond_sorts_later_for_all_random_bits(now: datetime) -> None:
    with randomness.override_randomness(lambda size: b"\xff" * size):
        first = randomness.uuid7(now)
    with randomness.override_randomness(lambda size: b"\x00" * size):
        second = randomness.uuid7(now + timedelta(microseconds=1))
    assert first < second
    assert str(first) < str(second)


def test_uuid7_of_one_millisecond_differs_each_time() -> None:
    now = datetime(2026, 11, 24, tzinfo=UTC)
    assert len({randomness.uuid7(now) for _ in range(1000)}) == 1000


@pytest.mark.parametrize("size", [1, 16, 32])
def test_token_b64url_has_no_padding_and_all_the_bytes(size: int) -> None:
    token = randomness.token_b64url(size)
    assert len(token) == -(-size * 8 // 6)
    assert set(token) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_")


def test_real_source_is_restored_after_an_exception() -> None:
    with pytest.raises(RuntimeError), randomness.override_randomness(lambda size: b"0" * size):
        raise RuntimeError
    assert randomness.token_bytes(16) != randomness.token_bytes(16)
