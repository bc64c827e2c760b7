"""System checks of `AUDIT["witnesses"]`."""

from collections.abc import Sequence
from typing import Any

from django.core.checks import Tags
from django.db import DatabaseError, connections

from ..._internal.check_messages import Messages, error, in_settings, register_check
from ...errors import KeyMissing
from .. import conf
from ..log.cosigned_checkpoints import get_witness_keys
from ..log.models import LogWitness
from ..merkle.witness_protocol import REFUSALS


@register_check(Tags.security)
def check_witnesses(**kwargs: Any) -> Messages:
    """E140: the key of a witness is no verifier key, two have the same key, or the quorum cannot be
    reached.
    """
    try:
        keys = get_witness_keys()
    except KeyMissing as fault:
        yield error(140, str(fault), "The operator of the witness publishes it: name+id+key.")
        return
    count = len({key.public_key.public_bytes_raw() for key in keys.values()})
    if count < len(keys):
        hint = "Remove one of them: a witness counts once, under any name."
        yield error(140, "Two witnesses of the audit log have the same key.", hint)
    if conf.witness_quorum() > count:
        text = (
            "PHI_OIDC['AUDIT']['quorum'] is "
            f"{conf.witness_quorum()}, and there are {count} witnesses."
        )
        yield error(140, text, in_settings(f'PHI_OIDC["AUDIT"]["quorum"] = {count}'))


@register_check(Tags.database, deploy=True)
def check_witness_refusals(databases: Sequence[str] | None = None, **kwargs: Any) -> Messages:
    """E141: a witness states that the audit log was rewritten or rolled back."""
    if "default" not in (databases or ()) or not conf.witnesses():
        return
    hint = (
        "Find out what happened to the database before anything "
        "else: manage.py phi_oidc audit verify"
    )
    try:
        if LogWitness._meta.db_table not in connections["default"].introspection.table_names():
            return
        for row in LogWitness.objects.filter(
            name__in=conf.witnesses(), last_fault__in=REFUSALS
        ).order_by("name"):
            yield error(
                141, f"The witness {row.name!r} refuses the audit log: {row.last_fault}.", hint
            )
    except DatabaseError as fault:
        yield error(141, f"The witnesses can't be checked: {type(fault).__name__}.", hint)
