"""A SCIM client of the provider `default`, with requests by Django's test client."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client

import django_phi_oidc.urls  # noqa: F401 -- now, while SCIM is not declared: other tests see it without
from django_phi_oidc._internal import clock
from django_phi_oidc.audit.events import Origin
from django_phi_oidc.contrib.scim.clients import create_client
from django_phi_oidc.contrib.scim.declaration import SUBJECT_SCHEMA
from django_phi_oidc.contrib.scim.models import SCIMClient
from tests.support.phi_oidc_settings import override_phi_oidc

BASE = "/oidc/scim/v2"
USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
OTHER_PROVIDER = {"issuer": "https://other.example.test", "client_id": "portal", "client_secret": "for tests only"}


@dataclass
class SCIM:
    """A client with its token."""

    token: str = field(repr=False)
    row: SCIMClient
    http: Client = field(default_factory=Client, repr=False)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Any:
        """Send a request, over https. headers: with underscores, such as If_Match."""
        all_headers = {"Authorization": f"Bearer {self.token}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        options: Any = {"content_type": "application/scim+json", "secure": True, "headers": all_headers}
        return self.http.generic(method, f"{BASE}/{path}", data, **options)

    def create(self, user_name: str, *, sub: str = "", **attributes: Any) -> Any:
        """Create a user and return the resource."""
        body = {"schemas": [USER_SCHEMA], "userName": user_name, **attributes}
        if sub:
            body[SUBJECT_SCHEMA] = {"sub": sub}
        response = self.send("POST", "Users", body)
        assert response.status_code == 201, response.content
        return response.json()

    def create_group(self, name: str, *members: str) -> Any:
        """Create a group and return the resource."""
        body = {"schemas": [GROUP_SCHEMA], "displayName": name, "members": [{"value": pk} for pk in members]}
        response = self.send("POST", "Groups", body)
        assert response.status_code == 201, response.content
        return response.json()

    def patch(self, path: str, *operations: Any, **headers: str) -> Any:
        return self.send("PATCH", path, {"schemas": [PATCH_SCHEMA], "Operations": operations}, **headers)

    def set_active(self, user_id: str, *, active: bool) -> Any:
        return self.patch(f"Users/{user_id}", {"op": "replace", "path": "active", "value": active})


def declare_scim(settings: Any, *, subject: str = "extension", **options: Any) -> None:
    """Turn SCIM on for `default` and for another provider, `other`. subject "invitation": also its provisioning."""
    default = {**settings.PHI_OIDC["PROVIDERS"]["default"], "scim": {"subject": subject}}
    if subject == "invitation":
        default["provisioning"] = "invitation"
    providers = {"default": default, "other": {**OTHER_PROVIDER, "scim": {"subject": "extension"}}}
    settings.PHI_OIDC = override_phi_oidc(settings.PHI_OIDC, PROVIDERS=providers, **options)


def connect_client(name: str = "hr", provider: str = "default", lifetime: timedelta = timedelta(days=1)) -> SCIM:
    """Create a client of the provider."""
    issued = create_client(name, provider=provider, lifetime=lifetime, origin=Origin(actor="1"), now=clock.now())
    return SCIM(token=issued.token, row=issued.client)


@pytest.fixture
def connect(settings: Any) -> Callable[..., SCIM]:
    """Return a function that creates a client; SCIM is declared for the providers `default` and `other`."""
    declare_scim(settings)
    return connect_client


@pytest.fixture
def scim(connect: Callable[..., SCIM]) -> SCIM:
    """Return a client of the provider `default`."""
    return connect()
