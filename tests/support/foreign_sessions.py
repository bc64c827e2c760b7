"""Django sessions as other authentication backends begin them."""

import base64
import json
from datetime import datetime, timedelta
from importlib import import_module
from typing import Any

from django.conf import settings
from django.contrib.auth import BACKEND_SESSION_KEY, HASH_SESSION_KEY, get_user_model
from django.contrib.auth import SESSION_KEY as USER_KEY

MODEL_BACKEND = "django.contrib.auth.backends.ModelBackend"
FORMER_BACKEND = "former_portal.auth.OIDCBackend"
"""A subclass of mozilla-django-oidc's backend that does not exist any more."""
MOZILLA_TOKENS = {"oidc_access_token": "foreign-access-canary", "oidc_refresh_token": "foreign-refresh-canary"}


def begin_foreign_session(user: Any = None, *, backend: str = FORMER_BACKEND, **entries: Any) -> str:
    """Create a session of the user with these further entries, and return its key."""
    user = user or get_user_model()._default_manager.create_user(f"user {get_user_model().objects.count()}")
    store = import_module(settings.SESSION_ENGINE).SessionStore()
    store[USER_KEY], store[BACKEND_SESSION_KEY] = str(user.pk), backend
    store[HASH_SESSION_KEY] = user.get_session_auth_hash()
    store.update(entries)
    store.create()
    store.save()
    return str(store.session_key)


def create_id_token(issuer: str, **claims: Any) -> str:
    """Return an ID Token as mozilla-django-oidc stores it; its signature was verified at the sign-in."""
    parts = ({"alg": "RS256"}, {"iss": issuer, "sub": "s", "aud": "portal", **claims}, {})
    return ".".join(base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in parts)


def expire_session(session_key: str, *, now: datetime) -> None:
    model = import_module(settings.SESSION_ENGINE).SessionStore.get_model_class()
    model.objects.filter(pk=session_key).update(expire_date=now - timedelta(days=30))
