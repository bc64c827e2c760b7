"""Signs in once in the project of DJANGO_SETTINGS_MODULE, served as in production: without system checks.

Prints JSON: the status and the heading of the last page of the portal, its reference, and what was logged.
`misconfigured_project.py events ID…` prints what the admin shows of these events.
"""

import json
import logging
import re
import sys
from io import StringIO
from typing import Any
from urllib.parse import urlsplit

import django
from django.contrib.auth import get_user_model
from django.test import Client

log = StringIO()


def visit() -> dict[str, Any]:
    """Begin a sign-in, sign in at the provider, and return to the portal."""
    from django_phi_oidc.testing.mock_provider import RedirectExpected, sign_in  # noqa: PLC0415 -- after the set-up

    client = Client(raise_request_exception=False)
    page = client.get("/oidc/authenticate/")
    if page.status_code == 302 and urlsplit(page["Location"]).netloc:
        try:
            callback = urlsplit(sign_in(page["Location"], username="amina", password="amina-demo"))
        except RedirectExpected as shown:
            return {"status": shown.status, "heading": "the provider's own", "text": "", "reference": ""}
        page = client.get(f"{callback.path}?{callback.query}")
    text = page.content.decode()
    heading, reference = (re.search(pattern, text) for pattern in ("<h1>(.*?)</h1>", "<code>(.*?)</code>"))
    return {
        "status": page.status_code,
        "heading": heading[1] if heading else "",
        "text": text,
        "reference": reference[1] if reference else "",
    }


def read_events(ids: list[str]) -> dict[str, str]:
    """Return the text of the page of each event in the admin."""
    user: Any = get_user_model()._default_manager.create_superuser("officer", "officer@example.org", None)
    client = Client()
    client.force_login(user, backend="django_phi_oidc.backends.OIDCAuthenticationBackend")
    pages = {id_: client.get(f"/admin/phi_oidc_audit/auditevent/{id_}/change/") for id_ in ids}
    return {id_: re.sub(r"<[^>]*>", "", page.content.decode()) for id_, page in pages.items()}


if __name__ == "__main__":
    django.setup()
    logging.getLogger().addHandler(logging.StreamHandler(log))
    seen = read_events(sys.argv[2:]) if "events" in sys.argv else {**visit(), "log": log.getvalue()}
    print(json.dumps(seen))
