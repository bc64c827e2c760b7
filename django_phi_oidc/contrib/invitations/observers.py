"""What the app registers with the core: activation codes of accounts and of refused sign-ins."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.http import HttpRequest, HttpResponse

from ...audit.events import Origin
from ...extensions import AccountObserver, RefusedSignInHandler
from ...login.code_exchange import VerifiedSignIn
from ...login.failures import LoginError, SignInAttempt
from .activation import attach_unlinked_sign_in, redirect_to_activation
from .invitations import revoke_activation_codes
from .models import ActivationCode


class ActivationCodeObserver(AccountObserver):
    """Finds the codes of an account, and revokes them when it is linked or its access ends."""

    def revoke_credentials(
        self,
        user_pks: Sequence[Any],
        *,
        provider: str | None,
        reason: str,
        origin: Origin,
        now: datetime,
    ) -> None:
        codes = ActivationCode.objects.filter(user__in=user_pks)
        if provider is not None:
            codes = codes.filter(provider=provider)
        revoke_activation_codes(codes, reason=reason, origin=origin, now=now)

    def is_invited(self, user_pk: Any, *, provider: str, now: datetime) -> bool:
        codes = ActivationCode.objects.redeemable(now=now)
        return codes.filter(user=user_pk, provider=provider).exists()


class ActivationPageHandler(RefusedSignInHandler):
    """Redirects a verified person without an account to the page for activation codes."""

    def remember_unlinked_sign_in(self, request: HttpRequest, sign_in: VerifiedSignIn) -> None:
        attach_unlinked_sign_in(request, sign_in)

    def find_response(
        self, request: HttpRequest, error: LoginError, attempt: SignInAttempt, *, next_url: str
    ) -> HttpResponse | None:
        return redirect_to_activation(request, error, attempt, next_url=next_url)


activation_code_observer = ActivationCodeObserver()
activation_page_handler = ActivationPageHandler()
