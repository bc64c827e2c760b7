"""Limits of the passwords that the break-glass page checks in a minute, over all processes.

Guesses are counted before the check, so that concurrent requests cannot exceed a limit. Each known
browser, and each known network of an account, has a limit of its own, which a stranger cannot use
up. All strangers share the other limits.
"""

from collections.abc import Sequence
from datetime import datetime

from ...audit.throttling import add_attempt, get_attempts, list_sender_networks, remove_attempt

MAX_GUESSES_PER_ADDRESS = 5
"""Of an IPv4 address or IPv6 /64, of a known browser, and of a known network of an account. Further
ones are not checked, and do not count into the limits of all strangers.
"""
MAX_GUESSES_PER_HOME_LINE = 10
"""Of an IPv6 /56."""
MAX_GUESSES_PER_COMPANY_LINE = 20
"""Of an IPv6 /48."""
MAX_FIRST_GUESSES = 25
"""First guesses of an IPv4 address or IPv6 /48, of all strangers together. They have a share of
their own, so that addresses that keep guessing do not shut the page for the others.
"""
MAX_REPEATED_GUESSES = 25
MAX_RUNNING_CHECKS = 2
"""Passwords of strangers that are checked at the same time. A check takes as long as its hash, so
further ones would delay the known senders.
"""
_THROTTLE_KIND = "break_glass"
_RUNNING = "running"


def start_guess(known_sender: str, *, client_ip: str, now: datetime) -> Sequence[str]:
    """Count a guess, and return the counters that it increased, for `end_guess`; none if its
    password must not be checked.

    known_sender: the counter key of `find_known_sender`; empty for a stranger.
    """
    if not known_sender:
        return _start_guess_of_stranger(list_sender_networks(client_ip), now=now)
    if add_attempt(_THROTTLE_KIND, known_sender, now=now) > MAX_GUESSES_PER_ADDRESS:
        return ()
    return (known_sender,)


def end_guess(counter_keys: Sequence[str], *, is_correct: bool, now: datetime) -> None:
    """End the check of the password. A correct one does not count. now: as in `start_guess`."""
    for counter_key in counter_keys:
        if is_correct or counter_key == _RUNNING:
            remove_attempt(_THROTTLE_KIND, counter_key, now=now)


def _start_guess_of_stranger(networks: Sequence[str], *, now: datetime) -> Sequence[str]:
    largest = networks[-1]
    counts = get_attempts(_THROTTLE_KIND, (largest, "first", "repeated", _RUNNING), now=now)
    share = _get_share(counts[largest] + 1)
    # First, so that a flood from ever new addresses adds no rows.
    if counts[share] >= _get_share_limit(share) or counts[_RUNNING] >= MAX_RUNNING_CHECKS:
        return ()

    limits = (MAX_GUESSES_PER_ADDRESS, MAX_GUESSES_PER_HOME_LINE, MAX_GUESSES_PER_COMPANY_LINE)
    guesses_of_largest = 0
    for network, limit in zip(networks, limits, strict=False):
        guesses_of_largest = add_attempt(_THROTTLE_KIND, network, now=now)
        if guesses_of_largest > limit:
            return ()

    if add_attempt(_THROTTLE_KIND, _RUNNING, now=now) > MAX_RUNNING_CHECKS:
        remove_attempt(_THROTTLE_KIND, _RUNNING, now=now)
        return ()
    share = _get_share(guesses_of_largest)
    if add_attempt(_THROTTLE_KIND, share, now=now) > _get_share_limit(share):
        remove_attempt(_THROTTLE_KIND, _RUNNING, now=now)
        return ()
    return (*networks, share, _RUNNING)


def _get_share(guess_number: int) -> str:
    # A network is an address, a prefix or "unknown", so these keys are no network.
    if guess_number == 1:
        return "first"
    return "repeated"


def _get_share_limit(share: str) -> int:
    if share == "first":
        return MAX_FIRST_GUESSES
    return MAX_REPEATED_GUESSES
