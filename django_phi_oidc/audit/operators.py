"""The actor of a management command: the user of the operating system who ran it, and never the
primary key of an account.

`os:NAME@HOST`, where NAME is the real user of the process. Further parts follow, each after a
semicolon: `sudo=NAME` (SUDO_USER, which root can set to any name), `login=NAME` (the login that the
kernel of Linux keeps across `su` and `sudo`), and `as=PK` (the account that the operator named by
`--as`). Names are percent-encoded, so that a name cannot imitate another part. `uid=NUMBER` stands
for a user without a name.
"""

import os
import pwd
import socket
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from traceback import walk_stack
from types import CodeType
from typing import Any
from urllib.parse import quote, unquote

OPERATOR_PREFIX = "os:"
_ACCOUNT_PART = ";as="
# Together less than 255, the length of the columns that repeat the actor of an event.
_MAX_NAME_LENGTH = 32
_MAX_HOST_LENGTH = 63
_MAX_PK_LENGTH = 64
_LOGIN_UID = Path("/proc/self/loginuid")
_NO_LOGIN = 2**32 - 1


def build_operator_actor(*, account_pk: str = "") -> str:
    """Return the actor of the events of a command that this process runs.

    account_pk: the primary key of the account that the operator named. NOT checked: that the
    operator is its user.
    """
    name = _get_name(os.getuid())
    sudo = _encode(os.environ.get("SUDO_USER", ""), _MAX_NAME_LENGTH)
    login = _find_login_name()
    actor = f"{OPERATOR_PREFIX}{name}@{_encode(socket.gethostname(), _MAX_HOST_LENGTH)}"
    if sudo not in ("", name):
        actor += f";sudo={sudo}"
    if login not in ("", name):
        actor += f";login={login}"
    if account_pk:
        actor += _ACCOUNT_PART + _encode(account_pk, _MAX_PK_LENGTH)
    return actor


def has_operator_name() -> bool:
    """Return whether the operating system has a name for the user of this process."""
    return bool(_find_name(os.getuid()))


def is_command_process() -> bool:
    """Return whether this process runs a management command, of any app: `manage.py` or
    `django-admin`, also a shell.

    A web process or a Celery worker that calls `call_command` is none. The stack of the main thread
    decides, so that threads of a command belong to it, and a `manage.py` may have any name.
    """
    frame = sys._current_frames().get(threading.main_thread().ident or 0)
    return any(_is_command_line(frame.f_code, frame.f_globals) for frame, _ in walk_stack(frame))


def find_stated_account_pk(actor: str) -> str:
    """Return the primary key of the account that the operator of a command named; empty for any
    other actor.
    """
    if actor.startswith(OPERATOR_PREFIX):
        return unquote(actor.partition(_ACCOUNT_PART)[2])
    return ""


def _is_command_line(code: CodeType, variables: Mapping[str, Any]) -> bool:
    """Return whether a frame is that of Django's `ManagementUtility.execute`."""
    # By its name: a web process does not import the module.
    module = variables.get("__name__")
    return (module, code.co_name) == ("django.core.management", "execute")


def _get_name(uid: int) -> str:
    return _find_name(uid) or f"uid={uid}"


def _find_name(uid: int) -> str:
    try:
        return _encode(pwd.getpwuid(uid).pw_name, _MAX_NAME_LENGTH)
    except KeyError:
        return ""


def _find_login_name() -> str:
    try:
        uid = int(_LOGIN_UID.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return ""
    if uid == _NO_LOGIN:
        return ""
    return _get_name(uid)


def _encode(text: str, max_length: int) -> str:
    # Names that are not UTF-8 reach Python with surrogates.
    return quote(text, safe="", errors="surrogateescape")[:max_length]
