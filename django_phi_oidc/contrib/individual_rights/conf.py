"""The option `PATIENT_RESOURCES`."""

from collections.abc import Callable, Iterable
from typing import Any

from ...options import cache_option, import_function, read_option


@cache_option
def patient_resources() -> Callable[[Any], Iterable[str]] | None:
    """Return the project's function from a user to the resources about the user (`Type/id`); None:
    there is none.
    """
    path = read_option("PATIENT_RESOURCES")
    if path is None:
        return None
    return import_function("PATIENT_RESOURCES", path)
