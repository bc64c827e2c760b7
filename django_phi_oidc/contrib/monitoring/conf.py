"""The options `ANOMALY_RULES` and `METRICS`."""

from collections.abc import Callable
from functools import partial

from ...options import read_option

anomaly_rules: Callable[[], tuple[str, ...]] = partial(read_option, "ANOMALY_RULES")
"""Return the dotted paths of the project's own rules."""
metrics: Callable[[], tuple[str, ...]] = partial(read_option, "METRICS")
