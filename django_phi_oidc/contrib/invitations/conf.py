"""The option `ACTIVATION_LIFETIME`."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

from ...options import read_option

activation_lifetime: Callable[[], timedelta] = partial(read_option, "ACTIVATION_LIFETIME")
