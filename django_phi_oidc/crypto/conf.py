"""Where the keys are, from the option `KEYS`."""

from collections.abc import Callable
from functools import partial
from typing import Any

from ..options import read_option

PAIRWISE_KEY_RING = "pairwise"
"""Needed by pairwise_id only."""

get_key_source: Callable[[str], Any] = partial(read_option, "KEYS")
"""Return the source of a key ring, of the signing key, of the public keys or of the retention
keys.
"""
