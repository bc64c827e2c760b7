"""The blocks of docs/how-to/joiners-movers-leavers.md."""

import io
import json
from copy import deepcopy
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Group
from django.core.management import call_command
from django.test import Client

from django_phi_oidc.contrib.scim import conf as scim_conf
from django_phi_oidc.subjects.models import PairwiseSubject
from tests.support.manual_blocks import block, commands
from tests.support.scim_fixtures import SCIM

PAGE = "joiners-movers-leavers"
pytestmark = [
    pytest.mark.django_db(transaction=True, databases=["default", "phi_audit"]),
    pytest.mark.urls("tests.unit.sessions.urls"),
]


def test_access_tokens_are_declared(settings: Any) -> None:
    names: dict[str, Any] = {"PHI_OIDC": deepcopy(settings.PHI_OIDC)}
    exec(block(PAGE, "scim-settings") + block(PAGE, "scim-access-tokens"), names)
    settings.PHI_OIDC = names["PHI_OIDC"]
    tokens = scim_conf.scim()["default"].access_tokens
    assert tokens is not None
    assert (tokens.clients, tokens.scope, tokens.get_sub("hr-sync")) == ({"hr-sync"}, "scim", "hr-sync")


def test_settings_the_command_and_the_extension_give_a_linked_account_its_role(settings: Any) -> None:
    names: dict[str, Any] = {"PHI_OIDC": deepcopy(settings.PHI_OIDC)}
    exec(block(PAGE, "scim-settings") + block(PAGE, "scim-roles"), names)
    settings.PHI_OIDC = names["PHI_OIDC"]
    ((_, _, *words),) = commands(PAGE, "scim-create")
    out = io.StringIO()
    call_command(*words, "--json", stdout=out)
    scim = SCIM(token=json.loads(out.getvalue())["token"], row=None, http=Client())  # type: ignore[arg-type]  # unused
    Group.objects.create(name="clinicians")
    user = scim.send("POST", "Users", json.loads(block(PAGE, "scim-extension"))).json()
    account: Any = get_user_model().objects.get()
    assert PairwiseSubject.objects.get().user_id == account.pk
    scim.create_group("Ward 3 nurses", user["id"])
    assert list(account.groups.values_list("name", flat=True)) == ["clinicians"]
