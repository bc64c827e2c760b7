"""A separate server process: `logout_token_process.py ENGINE CACHE_FOLDER ISSUER SUB` processes a logout token."""

import sys

import django
from django.conf import settings

engine, folder, issuer, sub = sys.argv[1:]
settings.SESSION_ENGINE = engine
settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache", "LOCATION": folder}}
django.setup()

from datetime import timedelta  # noqa: E402

from django_phi_oidc._internal import clock  # noqa: E402
from django_phi_oidc.audit.events import Origin  # noqa: E402
from django_phi_oidc.crypto import keyring  # noqa: E402
from django_phi_oidc.oidc.logout_token import LogoutToken  # noqa: E402
from django_phi_oidc.sessions.backchannel_logout import process_logout_token  # noqa: E402

now = clock.now()
token = LogoutToken(iss=issuer, sub=sub, sid="", jti="elsewhere", valid_until=now + timedelta(minutes=2))
fields = {"provider": "default", "get_subject_keys": lambda: keyring.get_keys("subject"), "origin": Origin()}
ended = process_logout_token(token, **fields, now=now)
sys.stdout.write(f"{len(ended)}\n")
