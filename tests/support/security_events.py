"""Security events that the mock provider signs and pushes to a portal, for tests and benchmarks."""

import json
from typing import Any

from django_phi_oidc.testing.mock_provider import DemoProvider
from django_phi_oidc.testing.mock_provider.backchannel import BackchannelLogoutResponse

PUSH_PATH = "/oidc/ssf/events/"
AUTHORIZATION = "Bearer declared-for-the-stream"
CAEP = "https://schemas.openid.net/secevent/caep/event-type/"
RISC = "https://schemas.openid.net/secevent/risc/event-type/"
SSF = "https://schemas.openid.net/secevent/ssf/event-type/"
SESSION_REVOKED = f"{CAEP}session-revoked"


def person(op: DemoProvider, sub: str) -> dict[str, str]:
    """Return the subject identifier of a person."""
    return {"format": "iss_sub", "iss": op.issuer, "sub": sub}


def create_event(op: DemoProvider, event_type: str, sub: str = "", **members: Any) -> str:
    """Return a signed event about the person with that sub, or about `sub_id`. members: `event`, `sub_id`, `jti`…"""
    members.setdefault("sub_id", person(op, sub))
    return op.create_security_event("portal", event_type, **members)


def push(op: DemoProvider, base: str, token: str, *, authorization: str = AUTHORIZATION) -> BackchannelLogoutResponse:
    """Push a token to the portal at base, and return the response when the portal has finished the request."""
    return op.push_security_event(token, url=f"{base}{PUSH_PATH}", authorization=authorization)


def push_event(
    op: DemoProvider, base: str, event_type: str = SESSION_REVOKED, sub: str = "", **members: Any
) -> BackchannelLogoutResponse:
    """Sign an event as `create_event` does, and push it to the portal."""
    return push(op, base, create_event(op, event_type, sub, **members))


def read_error(response: BackchannelLogoutResponse) -> str:
    """Return `err` of a refusal, which has a description, too. Spec: RFC 8935 2.3."""
    assert (response.status, response.headers["content-type"]) == (400, "application/json")
    body = json.loads(response.body)
    assert set(body) == {"err", "description"}
    assert body["description"]
    return str(body["err"])
