"""`ready()` imports this; each import connects a receiver."""

from .sessions.receivers import end_on_django_logout

__all__ = ["end_on_django_logout"]
