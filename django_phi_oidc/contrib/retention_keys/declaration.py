"""The member `retention` of the option `KEYS`. No Django."""

from dataclasses import dataclass, field
from typing import Annotated, Any

from ...config.option_grades import LATER
from ...config.option_parsers import parse_raw


@dataclass(frozen=True, kw_only=True)
class RetentionKeysOptions:
    """What the app adds to the option `KEYS`."""

    retention: Annotated[Any, parse_raw] = field(default=None, metadata=LATER)
    """[Retention keys](../how-to/retention.md#erasure-that-reaches-the-backups), whose destruction
    erases claims, in backups too: `pathlib.Path` of a folder that `phi_oidc keys generate` has
    prepared, or an object with `get`, `create`, `destroy` and `names`. Default: none: `encryption`
    encrypts claims.
    """
