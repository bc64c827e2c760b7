"""Visit the portal as the JSON list on standard input says, and print a result for each visit."""

import json
import sys

import django

django.setup()

from django.conf import settings  # noqa: E402 -- models need Django to be set up
from django.test import Client  # noqa: E402

from django_phi_oidc.testing.mock_provider import sign_in  # noqa: E402

BASE = "http://testserver"

for visit in json.loads(sys.stdin.read()):
    browser = Client(raise_request_exception=False)
    status = 0
    if "sign_in" in visit:
        user = visit["sign_in"]
        # The page of allauth redirects at a POST.
        begun = browser.post(visit["path"]) if visit["path"].startswith("/accounts/") else browser.get(visit["path"])
        assert begun.status_code == 302, begun.content
        back = sign_in(begun["Location"], username=user, password=f"password of {user}")
        status = browser.get(back.removeprefix(BASE)).status_code
    else:
        browser.cookies[settings.SESSION_COOKIE_NAME] = visit["cookie"]
    home = browser.get("/")
    signed_in = home.content.decode().removeprefix("user=") if home.status_code == 200 else ""
    cookie = browser.cookies.get(settings.SESSION_COOKIE_NAME)
    result = {"status": status, "user": signed_in, "location": home.get("Location", "")}
    print(json.dumps({**result, "cookie": cookie.value if cookie else ""}), flush=True)
