"""The option `EMERGENCY`."""

from dataclasses import replace

from ...conf import security_contacts
from ...options import SettingInvalid, cache_option, read_option
from .declaration import EmergencyDeclaration


@cache_option
def emergency() -> EmergencyDeclaration | None:
    """Return the rules of emergency access, with the addresses for its mails; None: it is
    disabled.
    """
    declared: EmergencyDeclaration | None = read_option("EMERGENCY")
    if declared is None or declared.mail_to:
        return declared
    if not security_contacts():
        raise SettingInvalid("PHI_OIDC['EMERGENCY'] needs SECURITY_CONTACTS, or its own mail_to.")
    return replace(declared, mail_to=security_contacts())
