"""Mails about refused sign-ins that can be attributed to a person. Spec: ASVS 5.0 6.3.5.

Only after the provider has named the person: before that, anyone may have sent the request.
"""

import logging

from django.db import DatabaseError
from django.views.decorators.debug import sensitive_variables

from ... import conf
from ..._internal import clock
from ...access.policy import STEP_UP_CODES
from ...audit.request_context import Actor
from ...crypto import keyring
from ...errors import Code, SubjectAltered, SubjectKeyMissing
from ...login.code_exchange import IdentifiedSignInRefused
from ...login.failures import LoginError, SignInAttempt
from ...login.state_cookie import AuthorizationState
from ...subjects.account_changes import AccountChange
from ...subjects.linking import find_linked_subject
from .notices import warn_user

logger = logging.getLogger("django_phi_oidc.login")


@sensitive_variables()
def warn_of_refusal(
    actor: Actor, error: LoginError, attempt: SignInAttempt, pending: AuthorizationState | None
) -> None:
    """Write a notice to the person whose sign-in or step-up was refused, if the refusal is
    suspicious.
    """
    now = clock.now()
    if pending is not None and pending.session_to_renew:
        # Another person may have signed in to this browser since.
        is_same = actor.origin.session == pending.session_to_renew
        if is_same and (error.code in STEP_UP_CODES or error.code == Code.SUBJECT_CHANGED):
            warn_user(actor.user, AccountChange.STEP_UP_REFUSED, provider=attempt.provider, now=now)
    elif isinstance(error, IdentifiedSignInRefused):
        issuer = conf.providers()[attempt.provider].issuer
        keys = keyring.find_keys("subject")
        try:
            subject = find_linked_subject(issuer=issuer, sub=error.sub, keys=keys)
        except (SubjectAltered, SubjectKeyMissing):
            return
        except DatabaseError as fault:
            # The refusal has no event yet, and must get one.
            logger.error("A notice was not written: %s.", type(fault).__name__)  # noqa: TRY400 -- the message may contain the row
            return
        if subject is not None:
            warn_user(
                subject.user, AccountChange.SIGN_IN_REFUSED, provider=attempt.provider, now=now
            )
