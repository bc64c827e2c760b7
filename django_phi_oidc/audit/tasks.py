"""The trail's Celery tasks."""

from collections import deque

from celery import shared_task

from .. import clock, conf
from ..errors import SealingRefused
from . import outbox, sealing, signing, spooling, throttling
from .alerting import alert


@shared_task(name="phi_oidc.drain_outbox", ignore_result=True, acks_late=True)
def drain_outbox() -> None:
    """Write what was counted of refusals, and move to the trail what waits in the outbox and in our spool."""
    try:
        throttling.flush(now=clock.now())
    finally:
        outbox.drain()
    if (declared := conf.emergency()) and declared.spool:
        spooling.drain(declared.spool, now=clock.now())


@shared_task(name="phi_oidc.seal", ignore_result=True, acks_late=True)
def seal() -> None:
    """Seal what is new, where this worker has the key; and say so where nobody has sealed for too long."""
    key = signing.signing_key()
    try:
        if key is not None:
            deque(sealing.seal_all(key=key, clock=clock.now), maxlen=0)
    except SealingRefused:
        alert("sealing_refused", now=clock.now())
        raise
    finally:
        if late := sealing.late(now=clock.now()):
            alert("sealing_lag", now=clock.now(), count=late)
