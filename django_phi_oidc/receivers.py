"""`ready()` imports this; each import connects a receiver."""

from .sessions.receivers import end_on_django_logout, end_with_the_subject
from .watch.receivers import attach_declared_sinks

__all__ = ["attach_declared_sinks", "end_on_django_logout", "end_with_the_subject"]
