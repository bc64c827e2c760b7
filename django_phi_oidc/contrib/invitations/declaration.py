"""The option `ACTIVATION_LIFETIME`. No Django."""

from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Annotated

from ...config.option_grades import LATER
from ...config.option_parsers import parse_duration

MAX_ACTIVATION_LIFETIME = timedelta(days=366)
_parse_activation_lifetime = partial(parse_duration, maximum=MAX_ACTIVATION_LIFETIME)


@dataclass(frozen=True, kw_only=True)
class InvitationsOptions:
    """The options of activation codes."""

    ACTIVATION_LIFETIME: Annotated[timedelta, _parse_activation_lifetime] = field(
        default=timedelta(days=14), metadata=LATER
    )
    """How long, at most 366 days, an [activation code](../how-to/activation-codes.md) is valid."""
