"""Clients of the portal's SCIM endpoint, which send requests as an identity system does."""

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from django.core.management import call_command
from django.test import Client, override_settings
from django.urls import NoReverseMatch, reverse

from ..._internal import randomness
from ...contrib.scim.declaration import SUBJECT_SCHEMA
from .environment import PORTAL_URL, AttackEnvironment, get_phi_oidc_setting

USER_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP_SCHEMA = "urn:ietf:params:scim:schemas:core:2.0:Group"
PATCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
BULK_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:BulkRequest"
OTHER_PROVIDER = "attack_other"
_OTHER_DECLARATION = {
    "issuer": "https://other.example",
    "client_id": "portal",
    "client_secret": "of the attack kit",
}
_USER_NAME = "attack-kit-amina"


@dataclass(frozen=True)
class SCIMAnswer:
    """The response to a SCIM request. body: the JSON object; empty if there is none."""

    status: int
    body: Mapping[str, Any] = field(repr=False)
    text: str = field(repr=False)


@dataclass(frozen=True)
class AttackSCIMClient:
    """A client of one provider, with its token."""

    name: str
    provider: str
    token: str = field(repr=False)

    def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        authorization: str | None = None,
        **query: str,
    ) -> SCIMAnswer:
        """Send a request. body: to be sent as JSON, or bytes. authorization: instead of the header
        with the token.
        """
        http = Client(enforce_csrf_checks=True, raise_request_exception=False)

        if authorization is None:
            header = f"Bearer {self.token}"
        else:
            header = authorization

        headers = {
            "host": urlsplit(PORTAL_URL).netloc,
            **({"authorization": header} if header else {}),
        }

        if isinstance(body, bytes):
            data = body
        elif body is None:
            data = b""
        else:
            data = json.dumps(body).encode()

        response = http.generic(
            method,
            f"{reverse('oidc_scim')}{path}",
            data,
            query_params=query,
            content_type="application/scim+json",
            secure=True,
            headers=headers,
        )
        text = response.content.decode("utf-8", "replace")
        return SCIMAnswer(response.status_code, _parse_object(text), text)

    def patch(self, path: str, *operations: Mapping[str, Any]) -> SCIMAnswer:
        """Send a PATCH with these operations."""
        return self.send("PATCH", path, {"schemas": [PATCH_SCHEMA], "Operations": operations})

    def set_active(self, user_id: str, *, active: bool) -> SCIMAnswer:
        """Disable or enable the user."""
        return self.patch(f"Users/{user_id}", {"op": "replace", "path": "active", "value": active})

    def search(self, path: str, scim_filter: str, **query: str) -> SCIMAnswer:
        """Send a search."""
        return self.send("GET", path, **{"filter": scim_filter, **query})

    def create_group(self, name: str, *member_ids: str) -> SCIMAnswer:
        """Create a group with these members."""
        members = []
        for member_id in member_ids:
            members.append({"value": member_id})
        return self.send(
            "POST", "Groups", {"schemas": [GROUP_SCHEMA], "displayName": name, "members": members}
        )


def _parse_object(text: str) -> Mapping[str, Any]:
    try:
        parsed = json.loads(text)
    except ValueError:
        return {}
    if isinstance(parsed, dict):
        return parsed
    return {}


@contextmanager
def override_scim_declaration(environment: AttackEnvironment, **options: Any) -> Iterator[None]:
    """Declare scim of the provider and of another one, `OTHER_PROVIDER`. options: others of scim.

    Raises: AttackEnded if there is no SCIM.

    With two providers, a sign-in begins with a choice: sign in before, if the attack needs a
    session.
    """
    try:
        reverse("oidc_scim")
    except NoReverseMatch:
        environment.skip_attack("no provider of the project has the option scim")
    declared = get_phi_oidc_setting()
    declarations = {**declared["PROVIDERS"], OTHER_PROVIDER: _OTHER_DECLARATION}
    scim = {"subject": "extension", **options}
    providers = {}
    for name, declaration in declarations.items():
        providers[name] = {**declaration, "scim": scim}
    with override_settings(PHI_OIDC={**declared, "PROVIDERS": providers}):
        environment.portal.mark_refusals_seen()
        yield


def create_scim_client(provider: str) -> AttackSCIMClient:
    """Create a client of the provider, by the command."""
    return AttackSCIMClient(
        name := f"attack-{randomness.uuid4()}", provider, _run("create", name, provider=provider)
    )


def rotate_scim_token(client: AttackSCIMClient) -> AttackSCIMClient:
    """Return the client with a new token; the last one ends now."""
    return AttackSCIMClient(
        client.name, client.provider, _run("rotate", client.name, overlap_hours=0)
    )


def revoke_scim_client(client: AttackSCIMClient) -> None:
    """Revoke the client and its tokens."""
    _run("revoke", client.name)


def _run(command: str, name: str, **options: Any) -> str:
    """Run the subcommand and return the token that it shows, if it shows one."""
    output = io.StringIO()
    arguments = []
    for option, value in options.items():
        arguments.append(f"--{option.replace('_', '-')}={value}")
    call_command("phi_oidc", "scim", command, name, *arguments, "--json", stdout=output)
    return str(json.loads(output.getvalue()).get("token", ""))


@contextmanager
def provision_person(environment: AttackEnvironment, client: AttackSCIMClient) -> Iterator[str]:
    """Yield the id of the SCIM user of the person of the last sign-in; enable the account before
    and after the block.

    All attacks share this user, because an account has at most one. Raises: AttackEnded if there is
    no user.
    """
    subject = {"sub": environment.op.last_grant.sub}
    body = {
        "schemas": [USER_SCHEMA, SUBJECT_SCHEMA],
        "userName": _USER_NAME,
        SUBJECT_SCHEMA: subject,
    }
    found = client.search("Users", f'userName eq "{_USER_NAME}"').body.get("Resources") or ()
    if found:
        user_id = str(found[0]["id"])
    else:
        user_id = str(client.send("POST", "Users", body).body.get("id", ""))

    environment.assert_control(user_id, "the client can't create a user")
    try:
        client.set_active(user_id, active=True)
        environment.portal.mark_refusals_seen()
        yield user_id
    finally:
        client.set_active(user_id, active=True)
