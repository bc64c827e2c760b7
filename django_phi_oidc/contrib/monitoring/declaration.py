"""The options `ANOMALY_RULES` and `METRICS`. No Django."""

from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from ...config.option_grades import LATER
from ...config.option_parsers import checked, parse_choices, parse_strings

METRIC_EXPORTERS = ("prometheus", "opentelemetry")
_parse_dotted_paths = checked(
    parse_strings,
    lambda paths: all("." in path for path in paths),
    "must be a list of dotted paths",
)


@dataclass(frozen=True, kw_only=True)
class MonitoringOptions:
    """The options of anomaly rules and metrics."""

    ANOMALY_RULES: Annotated[tuple[str, ...], _parse_dotted_paths] = field(
        default=(), metadata=LATER
    )
    """Dotted paths of [your own rules](../how-to/detect-anomalies.md#custom-rules); a rule replaces
    the built-in rule of the same kind.
    """
    METRICS: Annotated[tuple[str, ...], partial(parse_choices, choices=METRIC_EXPORTERS)] = field(
        default=(), metadata=LATER
    )
    """Where [metrics](../how-to/metrics-and-health.md) are sent: list of `prometheus`,
    `opentelemetry`.
    """
