"""Attack cases for SCIM: requests without a valid token, of another provider's client, and with
forged content.
"""

import base64
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.test import override_settings

from ... import conf
from ..._internal import randomness
from .browser import Browser
from .environment import AttackEnvironment, advance_clock, get_phi_oidc_setting
from .logout_attacks import create_signed_in_browser
from .provider_attacks import AttackFunction
from .scim_client import (
    BULK_SCHEMA,
    OTHER_PROVIDER,
    PATCH_SCHEMA,
    USER_SCHEMA,
    AttackSCIMClient,
    SCIMAnswer,
    create_scim_client,
    override_scim_declaration,
    provision_person,
    revoke_scim_client,
    rotate_scim_token,
)

MAX_BODY_BYTES = 1024 * 1024
UNKNOWN_ID = "00000000-0000-4000-8000-000000000000"
DISABLE = {"op": "replace", "path": "active", "value": False}
INJECTED_FILTERS = (
    "userName eq \"' OR '1'='1\"",
    'userName eq "x\') OR (1=1) --"',
    'userName co "%"',
    'userName sw "_"',
    'userName eq "\\u0000"',
    'user__password sw "p"',
    "password pr",
    "user.password pr",
    f'provider ne "{OTHER_PROVIDER}"',
)
"""Each would match the person if it reached the SQL or the ORM."""
PRIVILEGES: Mapping[str, Any] = {
    "is_staff": True,
    "is_superuser": True,
    "isStaff": True,
    "user.is_staff": True,
    "user__is_superuser": True,
    "password": "of the attack kit",
    "user_permissions": [{"value": "1"}],
    "roles": [{"value": "admin"}],
    "entitlements": [{"value": "admin"}],
    f"{USER_SCHEMA}:is_superuser": True,
    "urn:example:attack:2.0:User": {"is_superuser": True},
}
"""Attributes that no client may set."""


@contextmanager
def _provisioned(
    environment: AttackEnvironment,
) -> Iterator[tuple[AttackSCIMClient, AttackSCIMClient, str, Browser]]:
    """Yield a client of the provider, one of another, the id of a SCIM user, and the browser of
    that person.
    """
    with environment.override_declaration():
        browser = create_signed_in_browser(environment)
        with override_scim_declaration(environment):
            own, other = map(create_scim_client, (environment.portal.name, OTHER_PROVIDER))
            with provision_person(environment, own) as user_id:
                yield own, other, user_id, browser


def send_forged_token(environment: AttackEnvironment) -> None:
    """A request has no token, an unknown one, a part of a valid one, or the digest that the
    database stores.
    """
    with environment.override_declaration(), override_scim_declaration(environment):
        client = create_scim_client(environment.portal.name)
        token = client.token
        basic = base64.b64encode(f"{client.name}:{token}".encode()).decode()
        forged = {
            "no token": "",
            "an empty token": "Bearer ",
            "another scheme": f"Basic {basic}",
            "an unknown token": f"Bearer {token[:-8]}{randomness.token_b64url(6)}",
            "a shortened token": f"Bearer {token[:-1]}",
            "a digest": f"Bearer {hashlib.sha256(token.encode()).hexdigest()}",
            "two tokens": f"Bearer {token}, Bearer {token}",
        }
        for name, authorization in forged.items():
            answer = client.send("GET", "Users", authorization=authorization)
            _assert_refused(environment, answer, f"with {name}", expected_status=401)
        answer = client.send("GET", "Users", authorization="", access_token=token)
        _assert_refused(environment, answer, "with a token in the URL", expected_status=401)
        _assert_accepted(environment, client.send("GET", "Users"))


def use_withdrawn_token(
    withdraw: Callable[[AttackSCIMClient], Any], environment: AttackEnvironment
) -> None:
    """A token is used after it was rotated out, or its client was revoked."""
    with environment.override_declaration(), override_scim_declaration(environment):
        client = create_scim_client(environment.portal.name)
        unaffected = create_scim_client(environment.portal.name)
        _assert_accepted(environment, client.send("GET", "Users"))
        successor = withdraw(client) or unaffected
        answer = client.send("GET", "Users")
        _assert_refused(environment, answer, "with the withdrawn token", expected_status=401)
        _assert_accepted(environment, successor.send("GET", "Users"))


def use_expired_token(environment: AttackEnvironment) -> None:
    """A token is used after its lifetime, which is at most two years."""
    with environment.override_declaration(), override_scim_declaration(environment):
        client = create_scim_client(environment.portal.name)
        _assert_accepted(environment, client.send("GET", "Users"))
        with advance_clock(timedelta(days=366)):
            answer = client.send("GET", "Users")
            _assert_refused(environment, answer, "with the expired token", expected_status=401)


def send_foreign_access_token(environment: AttackEnvironment) -> None:
    """An access token has no scope, another audience or issuer, or is that of a person or of
    another client.
    """
    own = "attack-client"
    audience = "https://portal.example/scim"
    issuer = environment.op.issuer
    declared = {"audience": audience, "method": "jwt", "subs": {own: own}}
    with (
        environment.override_declaration(),
        override_scim_declaration(environment, access_tokens=declared),
    ):
        client = create_scim_client(environment.portal.name)
        other_client = "another-client"
        create_token = environment.op.create_client_token
        forged = {
            "without a scope": create_token(own, audience=audience),
            "with another scope": create_token(own, audience=audience, scope="scimx"),
            "for another API": create_token(own, audience=f"{audience}/other", scope="scim"),
            "of a person": create_token(own, audience=audience, scope="scim", sub="a-person"),
            "of another client": create_token(other_client, audience=audience, scope="scim"),
            "of another client for this one": create_token(
                other_client, audience=audience, scope="scim", sub=own
            ),
            "of another provider": create_token(
                own, audience=audience, scope="scim", iss=f"{issuer}/other"
            ),
            "that has expired": create_token(own, audience=audience, scope="scim", exp=1),
            "that is bound to a key": create_token(
                own, audience=audience, scope="scim", cnf={"jkt": "A" * 43}
            ),
        }
        for name, token in forged.items():
            answer = client.send("GET", "Users", authorization=f"Bearer {token}")
            _assert_refused(environment, answer, f"with a token {name}", expected_status=401)
        token = create_token(own, audience=audience, scope="scim")
        answer = client.send("GET", "Users", authorization=f"Bearer {token}")
        _assert_accepted(environment, answer)


def read_foreign_person(environment: AttackEnvironment) -> None:
    """A client of another provider reads a person by the id, and searches for the person."""
    with _provisioned(environment) as (own, other, user_id, _):
        _assert_hidden(
            environment, other.send("GET", f"Users/{user_id}"), "the person is read", user_id
        )
        unknown = other.send("GET", f"Users/{UNKNOWN_ID}")
        is_same = (
            unknown.text.replace(UNKNOWN_ID, user_id) == other.send("GET", f"Users/{user_id}").text
        )
        if not is_same:
            environment.report_fault("a foreign id is answered otherwise than an unknown one")
        for scim_filter in (
            "userName pr",
            f'id eq "{user_id}"',
            'userName sw "attack"',
            'not (userName eq "x")',
        ):
            environment.report_fault(_find_matches(other.search("Users", scim_filter), scim_filter))
            body = {"filter": scim_filter}
            for path in ("Users/.search", ".search"):
                environment.report_fault(
                    _find_matches(other.send("POST", path, body), f"{path}: {scim_filter}")
                )
        environment.assert_control(
            own.search("Users", f'id eq "{user_id}"').body.get("totalResults") == 1, "no match"
        )
        _assert_accepted(environment, own.send("GET", f"Users/{user_id}"))


def change_foreign_person(environment: AttackEnvironment) -> None:
    """A client of another provider disables a person by PATCH, PUT, DELETE and a bulk request."""
    with _provisioned(environment) as (own, other, user_id, browser):
        path = f"Users/{user_id}"
        body = {"schemas": [USER_SCHEMA], "userName": "taken over", "active": False}
        _assert_hidden(
            environment, other.set_active(user_id, active=False), "the person is changed", user_id
        )
        _assert_hidden(
            environment, other.send("PUT", path, body), "the person is replaced", user_id
        )
        _assert_hidden(environment, other.send("DELETE", path), "the person is deleted", user_id)
        data = {"schemas": [PATCH_SCHEMA], "Operations": [DISABLE]}
        operation = {"method": "PATCH", "path": f"/{path}", "data": data}
        bulk = other.send("POST", "Bulk", {"schemas": [BULK_SCHEMA], "Operations": [operation]})
        statuses = []
        for part in bulk.body.get("Operations", ()):
            statuses.append(str(part.get("status")))
        if statuses != ["404"]:
            environment.report_fault(f"a bulk request is answered by {statuses}")
        if not _is_signed_in(environment, browser):
            environment.report_fault("the session was ended")
        _assert_accepted(environment, own.set_active(user_id, active=False))
        environment.assert_control(
            not _is_signed_in(environment, browser), "the session was not ended"
        )


def add_foreign_member(environment: AttackEnvironment) -> None:
    """A client of another provider puts a person into its group, and changes a group of this
    provider.
    """
    with _provisioned(environment) as (own, other, user_id, _):
        name = f"attack {randomness.uuid4()}"
        answer = other.create_group(name, user_id)
        _assert_refused(
            environment, answer, "a foreign member is accepted", expected_status=400, code=""
        )
        group = own.create_group(name, user_id)
        _assert_accepted(environment, group)
        path = f"Groups/{group.body['id']}"
        for method in ("GET", "DELETE"):
            _assert_hidden(
                environment, other.send(method, path), f"{method} of a foreign group", name
            )
        answer = other.patch(path, {"op": "remove", "path": "members"})
        _assert_hidden(environment, answer, "a foreign group is changed", name)
        environment.report_fault(
            _find_matches(other.search("Groups", f'members.value eq "{user_id}"'), "Groups")
        )
        environment.assert_control(
            own.send("GET", path).body.get("members"), "the group has no member"
        )
        _assert_accepted(environment, own.send("DELETE", path))


def inject_into_filter(environment: AttackEnvironment) -> None:
    """A filter or an order contains SQL, wildcards of LIKE, lookups of the ORM, or columns that are
    not attributes.
    """
    with _provisioned(environment) as (own, _, user_id, _):
        for scim_filter in INJECTED_FILTERS:
            answer = own.search("Users", scim_filter)
            environment.report_fault(_find_matches(answer, scim_filter, allows_refusal=True))
        for name in ("user__password", "user.password", "password"):
            answer = own.search("Users", f'id eq "{user_id}"', sortBy=name)
            if answer.status != 400:
                environment.report_fault(f"sortBy={name} is answered by {answer.status}")
        environment.assert_control(
            own.search("Users", f'id eq "{user_id}"').body.get("totalResults") == 1, "no match"
        )


def set_privileges(environment: AttackEnvironment) -> None:
    """A client sets privileges, the password or the groups of an account by PATCH, PUT and POST."""
    with _provisioned(environment) as (own, _, user_id, browser):
        account = environment.find_signed_in_user(browser)
        path = f"Users/{user_id}"
        before = _read_privileges(account)
        group = own.create_group(f"attack {randomness.uuid4()}")
        _assert_accepted(environment, group)
        attributes = {**PRIVILEGES, "groups": [{"value": group.body["id"]}]}
        for name, value in attributes.items():
            for operation in (
                {"op": "add", "path": name, "value": value},
                {"op": "replace", "value": {name: value}},
            ):
                answer = own.patch(path, operation)
                if answer.status >= 500:
                    environment.report_fault(f"PATCH of {name}: status {answer.status}")
        user_name = own.send("GET", path).body["userName"]
        for method, target, name in (
            ("PUT", path, user_name),
            ("POST", "Users", f"attack-{randomness.uuid4()}"),
        ):
            answer = own.send(
                method, target, {"schemas": [USER_SCHEMA], "userName": name, **attributes}
            )
            if answer.status >= 500:
                environment.report_fault(f"{method}: status {answer.status}")
        if _read_privileges(account) != before:
            environment.report_fault("the account has other privileges")
        created = get_user_model()._default_manager.order_by("-pk").values_list("pk", flat=True)[0]
        privileges = _read_privileges(created)
        if privileges["is_staff"] or privileges["is_superuser"] or privileges["groups"]:
            environment.report_fault("a new account has privileges")
        members = own.send("GET", f"Groups/{group.body['id']}").body.get("members")
        if members:
            environment.report_fault("a user adds itself to a group")
        _assert_accepted(
            environment, own.patch(path, {"op": "add", "path": "externalId", "value": "7"})
        )
        _assert_accepted(environment, own.send("DELETE", f"Groups/{group.body['id']}"))


def name_group_like_privileged_one(environment: AttackEnvironment) -> None:
    """A client creates a group with the name of a Django group that no rule of ROLES grants."""
    if not hasattr(get_user_model(), "groups"):
        environment.skip_attack("accounts have no groups")
    with _provisioned(environment) as (own, _, user_id, browser):
        account = environment.find_signed_in_user(browser)
        name = f"attack {randomness.uuid4()}"
        privileged = Group.objects.create(name=name)
        try:
            group = own.create_group(name, user_id)
            _assert_accepted(environment, group)
            has_group = privileged.pk in _read_privileges(account)["groups"]
            if has_group:
                environment.report_fault("the group grants the Django group of its name")
            rule = {"claim": "scim_groups", "values": [name], "groups": [name]}
            roles = {environment.portal.name: [rule]}
            with override_settings(PHI_OIDC={**get_phi_oidc_setting(), "ROLES": roles}):
                path = f"Groups/{group.body['id']}"
                own.patch(path, {"op": "remove", "path": "members"})
                own.patch(path, {"op": "add", "path": "members", "value": [{"value": user_id}]})
                is_granted = privileged.pk in _read_privileges(account)["groups"]
                environment.assert_control(is_granted, "a rule does not grant the group")
                _assert_accepted(environment, own.send("DELETE", path))
        finally:
            privileged.delete()


def send_oversized_requests(environment: AttackEnvironment) -> None:
    """A client sends too large or deeply nested bodies, long filters, and too many operations of a
    bulk request.
    """
    with _provisioned(environment) as (own, _, user_id, browser):
        path = f"Users/{user_id}"
        user_name = own.send("GET", path).body["userName"]
        body = {"schemas": [USER_SCHEMA], "userName": user_name, "active": False}
        answer = own.send("PUT", path, {**body, "title": "x" * MAX_BODY_BYTES})
        _assert_refused(environment, answer, "more than 1 MiB", expected_status=413)
        answer = own.send("PUT", path, b'{"a":' * 50_000 + b"1" + b"}" * 50_000)
        _assert_refused(environment, answer, "50,000 levels", expected_status=400)
        operation = {"method": "DELETE", "path": f"/{path}"}
        answer = own.send(
            "POST", "Bulk", {"schemas": [BULK_SCHEMA], "Operations": [operation] * 101}
        )
        _assert_refused(environment, answer, "101 operations", expected_status=413, code="")
        for scim_filter in (
            "(" * 1000 + "userName pr" + ")" * 1000,
            " or ".join(["userName pr"] * 1000),
        ):
            answer = own.send("POST", "Users/.search", {"filter": scim_filter})
            _assert_refused(environment, answer, "a long filter", expected_status=400, code="")
        if not _is_signed_in(environment, browser):
            environment.report_fault("the session was ended")
        _assert_accepted(
            environment, own.send("PUT", path, {**body, "title": "x" * (MAX_BODY_BYTES // 2)})
        )
        environment.assert_control(
            not _is_signed_in(environment, browser), "the session was not ended"
        )


def _read_privileges(account: Any) -> dict[str, Any]:
    user = get_user_model()._base_manager.get(pk=account)
    names = ("is_staff", "is_superuser", "password", user.USERNAME_FIELD)
    values: dict[str, Any] = {}
    for name in names:
        values[name] = getattr(user, name, None)
    for name in ("groups", "user_permissions"):
        values[name] = set()
        if hasattr(user, name):
            values[name].update(getattr(user, name).values_list("pk", flat=True))
    return values


def _is_signed_in(environment: AttackEnvironment, browser: Browser) -> bool:
    with advance_clock(2 * conf.session_recheck()):
        return bool(environment.find_signed_in_user(browser))


def _find_matches(answer: SCIMAnswer, request: str, *, allows_refusal: bool = False) -> str:
    """Return a fault if the search finds something."""
    if answer.status == 400 and allows_refusal:
        return ""
    is_empty = (
        answer.status == 200
        and answer.body.get("totalResults") == 0
        and not answer.body.get("Resources")
    )
    if is_empty:
        return ""
    return f"{request}: status {answer.status}, {answer.body.get('totalResults')} results"


def _assert_accepted(environment: AttackEnvironment, answer: SCIMAnswer) -> None:
    is_success = 200 <= answer.status < 300
    environment.assert_control(is_success, f"the status is {answer.status}")
    environment.portal.mark_refusals_seen()


def _assert_hidden(
    environment: AttackEnvironment, answer: SCIMAnswer, fault: str, secret: str
) -> None:
    """Check that the response is that to an unknown id, has no secret, and that the refusal is
    recorded.
    """
    _assert_refused(environment, answer, fault, expected_status=404)
    resource = {}
    for name, value in answer.body.items():
        if name != "detail":
            resource[name] = value
    if secret in str(resource):
        environment.report_fault(f"{fault}: the response has data")


def _assert_refused(
    environment: AttackEnvironment,
    answer: SCIMAnswer,
    case: str,
    *,
    expected_status: int,
    code: str = "scim_",
) -> None:
    """Check the status, and that the audit log has a refusal whose code begins so. code: empty: it
    need not.
    """
    if answer.status != expected_status:
        faults = [f"{case}: the status is {answer.status}"]
    else:
        faults = []

    recorded = environment.portal.find_refusal_code()
    if recorded is not None and not recorded.startswith(code):
        faults.append(f"{case}: the audit log contains {recorded or 'no refusal'}")
    environment.portal.mark_refusals_seen()
    environment.report_fault("; ".join(faults))


SCIM_ATTACKS: Mapping[tuple[str, str], AttackFunction] = {
    ("forged_scim_token", ""): send_forged_token,
    ("forged_scim_token", "access token"): send_foreign_access_token,
    ("stolen_scim_token", "rotated"): partial(use_withdrawn_token, rotate_scim_token),
    ("stolen_scim_token", "revoked"): partial(use_withdrawn_token, revoke_scim_client),
    ("stolen_scim_token", "expired"): use_expired_token,
    ("foreign_scim_client", "read"): read_foreign_person,
    ("foreign_scim_client", "change"): change_foreign_person,
    ("foreign_scim_client", "groups"): add_foreign_member,
    ("scim_filter_injection", ""): inject_into_filter,
    ("scim_privileges", ""): set_privileges,
    ("scim_privileges", "name of a group"): name_group_like_privileged_one,
    ("oversized_scim_request", ""): send_oversized_requests,
}
