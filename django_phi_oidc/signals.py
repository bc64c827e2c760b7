"""Signals for host projects. Nothing in this app receives them."""

from django.dispatch import Signal

sign_in_refused = Signal()
"""A sign-in was refused, and its event is written unless the audit database is unavailable. sender:
the view's class.

request: HttpRequest. provider: str, the declared name, or empty if none was selected. code: str,
the rule's code, `audit_unavailable`, `key_missing`, or `internal_error`, whose page is the
project's own 500. stage: str, `request` or `callback`. reference: str, as shown on the page: the
event's id, or the request's if there is no event.
Receivers get no token, no `sub` and no claim. The exception of a receiver is logged and has no
effect.
"""

security_alert = Signal()
"""An alert was raised, or repeated after a day. sender: the model `SecurityAlert`.

alert: the row, committed. `phi_oidc.watch` sends the signal at least once, unless the alert is
muted.
`key` of the alert may identify a person: give it only to people who may read the audit log. The
exception of a receiver is logged.
"""
