"""The actor of a command: the user of the operating system who ran it, and never the primary key of
an account.

`os:NAME@HOST`, where NAME is the real user of the process. Further parts follow, each after a
semicolon: `sudo=NAME` (SUDO_USER, which root can set to any name), `login=NAME` (the login that the
kernel of Linux keeps across `su` and `sudo`), and `as=PK` (the account that the operator named by
`--as`). Names are percent-encoded, so that a name cannot imitate another part. `uid=NUMBER` stands
for a user without a name.
"""

import os
import pwd
import socket
from pathlib import Path
from urllib.parse import quote, unquote

OPERATOR_PREFIX = "os:"
_ACCOUNT_PART = ";as="
# Together less than 255, the length of the columns that repeat the actor of an event.
_MAX_NAME_LENGTH = 32
_MAX_HOST_LENGTH = 63
_MAX_PK_LENGTH = 64
_LOGIN_UID = Path("/proc/self/loginuid")
_NO_LOGIN = 2**32 - 1


def find_operator_actor(*, account_pk: str = "") -> str | None:
    """Return the actor of the events of a command that this process runs.

    account_pk: the primary key of the account that the operator named. NOT checked: that the
    operator is its user.
    None: the operating system has no name for the user, and no account is named.
    """
    uid = os.getuid()
    if not account_pk and not _find_name(uid):
        return None
    name = _get_name(uid)
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


def find_stated_account_pk(actor: str) -> str:
    """Return the primary key of the account that the operator of a command named; empty for any
    other actor.
    """
    if actor.startswith(OPERATOR_PREFIX):
        return unquote(actor.partition(_ACCOUNT_PART)[2])
    return ""


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
