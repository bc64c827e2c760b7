"""The name of a person on a page. Apart from `people.py`, which imports Django's admin."""

import logging
from typing import Any

from .. import conf

logger = logging.getLogger("django_phi_oidc.subjects")
_reported_errors: set[str] = set()
"""The exceptions of the project's function that this process has logged: the function may fail at
each row.
"""


def get_label(user: Any) -> str:
    """Return the name by PERSON_LABEL; the user name if the project's function fails or returns
    nothing.
    """
    try:
        label = str(conf.person_label()(user) or "").strip()
    except Exception as error:  # noqa: BLE001 -- the project's function must not prevent a page
        if (name := type(error).__name__) not in _reported_errors:
            _reported_errors.add(name)
            logger.error("PERSON_LABEL: the function failed: %s.", name)  # noqa: TRY400 -- the message may name a person
        label = ""
    return label or str(user.get_username())
