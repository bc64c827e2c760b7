"""Functions for the settings file of a project: the audit database, and values from environment
variables.

They use nothing of Django, because Django's settings are still being loaded when they are called.
"""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn

KEY_VARIABLES = {
    "encryption": "PHI_ENCRYPTION_KEYS",
    "subject": "PHI_SUBJECT_KEYS",
    "audit_mac": "PHI_AUDIT_MAC_KEYS",
    "pairwise": "PHI_PAIRWISE_KEY",
}
"""The environment variables under which `phi_oidc init` and `keys generate` write the keys of each
ring.
"""
KEY_RINGS = ("encryption", "subject", "audit_mac")
"""The rings that every project needs."""
OPTIONAL_KEY_VARIABLES = {
    "pairwise": KEY_VARIABLES["pairwise"],
    "audit_signing": "PHI_AUDIT_SIGNING_KEY",
}
PROVIDER_VARIABLES = {
    "issuer": "OIDC_ISSUER",
    "client_id": "OIDC_CLIENT_ID",
    "client_secret": "OIDC_CLIENT_SECRET",
}
EXIT_STATUS = 4
"""Gunicorn stops at this status of a worker; it would start the worker again and again after other
ones. Status 3 would make `runserver` reload forever.
"""
AUDIT_ALIAS = "phi_audit"
MIN_SQLITE_TIMEOUT_SECONDS = 5
_SQLITE_TIMEOUT_SECONDS = 20
_SQLITE_PRAGMAS = "PRAGMA journal_mode=WAL; PRAGMA secure_delete=ON;"
_SQLITE_ENGINES = ("sqlite", "spatialite")
_POSTGRESQL_ENGINES = ("postgres", "postgis", "psqlextra")
_CONNECT_SECONDS = 2


def add_audit_database(databases: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return DATABASES with the alias `phi_audit`: a second connection to the database of
    `default`.

    Events are written through it, so that they survive the rollback of a request. It is never part
    of ATOMIC_REQUESTS. On PostgreSQL it gives up an attempt to connect after 2 s, unless the
    options of `default` have a `connect_timeout`. On SQLite it is a file next to that of `default`,
    and both get the options that E016 requires.

    An alias `phi_audit` that exists is replaced: change what differs, such as USER, afterwards.
    """
    result = {alias: dict(declared) for alias, declared in databases.items()}
    default = result["default"]
    engine = str(default.get("ENGINE", ""))
    if any(name in engine for name in _SQLITE_ENGINES):
        default["OPTIONS"] = _complete_sqlite_options(default.get("OPTIONS", {}))
    audit = {**default, "ATOMIC_REQUESTS": False}
    if any(name in engine for name in _SQLITE_ENGINES):
        audit["NAME"] = _name_audit_file(default.get("NAME", ""))
        test = default.get("TEST", {})
        if test.get("NAME"):
            audit["TEST"] = {**test, "NAME": _name_audit_file(test["NAME"])}
    elif any(name in engine for name in _POSTGRESQL_ENGINES):
        audit["OPTIONS"] = {"connect_timeout": _CONNECT_SECONDS, **default.get("OPTIONS", {})}
    return {**result, AUDIT_ALIAS: audit}


def read_provider() -> dict[str, str]:
    """Return issuer, client id and client secret from OIDC_ISSUER, OIDC_CLIENT_ID and
    OIDC_CLIENT_SECRET.

    Ends the process as `read_variable` does.
    """
    return _read_variables(PROVIDER_VARIABLES)


def read_keys() -> dict[str, str]:
    """Return `KEYS` from PHI_ENCRYPTION_KEYS, PHI_SUBJECT_KEYS and PHI_AUDIT_MAC_KEYS.

    PHI_PAIRWISE_KEY and PHI_AUDIT_SIGNING_KEY are read too where they are set. Ends the process as
    `read_variable` does.
    """
    optional = {name: os.environ.get(variable) for name, variable in OPTIONAL_KEY_VARIABLES.items()}
    keys = _read_variables({ring: KEY_VARIABLES[ring] for ring in KEY_RINGS})
    return keys | {name: value for name, value in optional.items() if value}


def read_variable(name: str) -> str:
    """Return an environment variable. If it is missing or empty, end the process with a sentence
    that names it.

    `phi_oidc init` and `phi_oidc keys generate` get an empty text instead, because they create what
    is missing.
    """
    return _read_variables({name: name})[name]


def _read_variables(variables: Mapping[str, str]) -> dict[str, str]:
    values = {key: os.environ.get(variable, "") for key, variable in variables.items()}
    missing = []
    for key, variable in variables.items():
        if not values[key]:
            missing.append(variable)
    if missing and not _creates_keys(sys.argv[1:]):
        _exit_without(missing)
    return values


def _creates_keys(arguments: list[str]) -> bool:
    """Return whether this process runs a command that creates keys, for example for another
    developer.
    """
    return arguments[:2] == ["phi_oidc", "init"] or arguments[:3] == [
        "phi_oidc",
        "keys",
        "generate",
    ]


def _exit_without(missing: list[str]) -> NoReturn:
    """End the process. An exception would reach the user as a traceback, from any of the programs
    that load settings.

    Raises: SystemExit.
    """
    *others, last = missing
    if others:
        names = f"{', '.join(others)} and {last}"
    else:
        names = last

    if others:
        noun = "variables"
        verb = "are"
        pronoun = "them"
    else:
        noun = "variable"
        verb = "is"
        pronoun = "it"

    sys.stderr.write(
        f"The environment {noun} {names} {verb} not set: add {pronoun} to the environment of this "
        "process, for example"
        ' to portal.env, the file that phi_oidc init wrote, and then run "set -a; . '
        'secrets/portal.env; set +a".\n'
    )
    raise SystemExit(EXIT_STATUS)


def _complete_sqlite_options(options: Mapping[str, Any]) -> dict[str, Any]:
    timeout = options.get("timeout", 0)
    commands = str(options.get("init_command") or "").strip().rstrip(";")
    if commands:
        init_command = f"{commands}; {_SQLITE_PRAGMAS}"
    else:
        init_command = _SQLITE_PRAGMAS

    return {
        **options,
        "transaction_mode": "IMMEDIATE",
        "timeout": timeout if timeout >= MIN_SQLITE_TIMEOUT_SECONDS else _SQLITE_TIMEOUT_SECONDS,
        "init_command": init_command,
    }


def _name_audit_file(name: str | Path) -> str | Path:
    """Return the name of the audit database for an SQLite file, or for a database in memory."""
    text = str(name)
    if text == ":memory:" or "mode=memory" in text:
        return f"file:{AUDIT_ALIAS}?mode=memory&cache=shared"
    if not text or text.startswith("file:"):
        # Check E019 reports that both aliases have this name.
        return name
    path = Path(text)
    return path.with_name(f"{path.stem}-audit{path.suffix}")
