"""Signals to host projects. They go outward only: nothing in this app listens to them."""

from django.dispatch import Signal

sign_in_refused = Signal()
"""A sign-in was refused, and its event is written, unless the trail is away. sender: the view's class.

request: HttpRequest. provider: str, the declared name, or empty where none is meant. code: str, the rule's code,
`audit_unavailable`, or `internal_error`, whose page is the project's own 500. stage: str, `request` or `callback`.
reference: str, what the person's page shows: the event's id, or the request's where there is no event.
Receivers see no token, no `sub` and no claim. One that raises is logged, and changes nothing.
"""

security_alert = Signal()
"""Somebody should look: an alert was raised, or came again after a day. sender: the model `SecurityAlert`.

alert: the row, committed. `phi_oidc.watch` sends it, at least once; not while the alert is muted.
Receivers see whom it is about (`key`): pass that on to nobody who may not read the trail. One that raises is logged.
"""
