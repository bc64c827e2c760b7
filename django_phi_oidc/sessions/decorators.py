"""View decorators for host projects."""

from collections.abc import Callable
from typing import Any, TypeVar

ViewCallable = TypeVar("ViewCallable", bound=Callable[..., Any])


def passive(view: ViewCallable) -> ViewCallable:
    """Declare that requests to this view are no user activity: they do not extend the idle timeout.

    For requests that a page sends on its own, such as polling. The header `X-Phi-Passive: 1` has
    the same effect.
    """
    view.phi_oidc_passive = True  # type: ignore[attr-defined]
    return view
