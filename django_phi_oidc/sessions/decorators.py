"""What a view says of itself."""

from collections.abc import Callable
from typing import Any, TypeVar

ViewCallable = TypeVar("ViewCallable", bound=Callable[..., Any])


def passive(view: ViewCallable) -> ViewCallable:
    """Declare that a request to this view is no activity of a person: it does not put the idle timeout off.

    For what a page asks by itself, such as polling; the header `X-Phi-Passive: 1` says the same of one request.
    """
    view.phi_oidc_passive = True  # type: ignore[attr-defined]
    return view
