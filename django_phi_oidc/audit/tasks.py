"""The trail's Celery tasks."""

from collections import deque

from celery import shared_task

from .. import conf
from .._internal import clock
from ..errors import SealingRefused
from . import outbox, spool, throttling
from .log import keys, sequencer
from .recorder import raise_audit_alert


@shared_task(name="phi_oidc.drain_outbox", ignore_result=True, acks_late=True)
def drain_outbox() -> None:
    """Write what was counted of refusals, and move to the trail what waits in the outbox and in our spool."""
    try:
        throttling.flush_refusal_counts(now=clock.now())
    finally:
        outbox.flush()
    if (declared := conf.emergency()) and declared.spool:
        spool.flush_spool(declared.spool, now=clock.now())


@shared_task(name="phi_oidc.seal", ignore_result=True, acks_late=True)
def seal() -> None:
    """Seal what is new, where this worker has the key; and say so where nobody has sealed for too long."""
    key = keys.find_signing_key()
    try:
        if key is not None:
            deque(sequencer.append_all_to_log(key=key, clock=clock.now), maxlen=0)
    except SealingRefused:
        raise_audit_alert("sealing_refused", now=clock.now())
        raise
    finally:
        if late := sequencer.count_overdue_events(now=clock.now()):
            raise_audit_alert("sealing_lag", now=clock.now(), count=late)
