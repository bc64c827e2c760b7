"""What the app registers with the core: it remembers the networks of sign-ins at the provider."""

from collections.abc import Callable

from ...audit.request_context import current_origin
from ...extensions import SignIn, SignInObserver
from . import conf
from .known_senders import remember_network


class NetworkObserver(SignInObserver):
    """Stores the networks from which the listed accounts sign in at the provider, so that they are
    known when the provider is unavailable.
    """

    def record_sign_in(self, sign_in: SignIn, get_device: Callable[[], str]) -> None:
        if sign_in.user.get_username() in conf.break_glass_accounts():
            remember_network(sign_in.user, client_ip=current_origin().client_ip, now=sign_in.now)


NETWORK_OBSERVER = NetworkObserver()
