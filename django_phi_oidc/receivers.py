"""`ready()` imports this; each import connects a receiver."""

from .sessions.receivers import end_on_django_logout, end_with_the_subject

__all__ = ["end_on_django_logout", "end_with_the_subject"]
