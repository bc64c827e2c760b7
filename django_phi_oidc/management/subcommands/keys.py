"""Make keys, tell what each is needed for, rotate encryption keys, and retire a subject key."""

import json
import re
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from ... import conf
from ...crypto import keyring
from ...errors import KeyRingError
from ...key_rotation.subject_keys import SubjectKeyRingUsage, SubjectKeyUsage, get_subject_key_usage, retire_subject_key
from . import keys_rotate
from .keys_generate import generate_key_files

__all__ = ["add_arguments", "generate_key_files", "handle"]


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the subcommands of `phi_oidc keys`."""
    subcommands = parser.add_subparsers(dest="keys_command", required=True)
    subcommands.add_parser("generate", help="write the key files that do not exist; print keys for the other rings")
    status = subcommands.add_parser("status", help="tell what each key is needed for; list the client keys")
    status.add_argument("--json", action="store_true", help="one object, for programs")
    keys_rotate.add_database_argument(status)
    rotation = subcommands.add_parser("rotate", help="seal again what is not under the newest encryption key")
    keys_rotate.add_arguments(rotation)
    retiring = subcommands.add_parser("retire", help="delete the digests under a subject key that left the list")
    retiring.add_argument("key_id", metavar="KEYID", help="as `keys status` shows it")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Do what the subcommand says.

    Raises: CommandError when the keys can't be read, a key that is to be retired is still needed, sealed texts name a
    key that is not configured, or a rotation had to leave some.
    """
    subcommands = {"generate": _generate, "status": _status, "rotate": keys_rotate.rotate, "retire": _retire}
    try:
        subcommands[options["keys_command"]](options, stdout, stderr)
    except KeyRingError as error:
        raise CommandError(str(error)) from error


def _generate(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Write the missing key files, print new keys for the rings that have no file, and tell what was done."""
    written = generate_key_files()
    for ring in (*conf.KEY_RINGS, conf.PAIRWISE_KEY_RING):
        source = conf.get_key_source(ring)
        if source in written:
            stderr.write(f"KEYS[{ring!r}]: a new key was written to {source}.")
        elif isinstance(source, Path):
            stderr.write(f"KEYS[{ring!r}]: {source} was there, and left as it is.")
        else:
            stdout.write(f"{conf.KEY_VARIABLES[ring]}={keyring.generate_key()}")
            stderr.write(f"KEYS[{ring!r}]: a new key was printed, and stored nowhere.")
    signing = conf.get_key_source("audit_signing")
    if isinstance(signing, Path):
        done = "a new key was written to" if signing in written else "left as it is:"
        stderr.write(f"KEYS['audit_signing']: {done} {signing}.")


def _status(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    ring = get_subject_key_usage([key.id for key in keyring.get_keys("subject")])
    pairwise = (
        [key.id for key in keyring.get_keys(conf.PAIRWISE_KEY_RING)]
        if conf.get_key_source(conf.PAIRWISE_KEY_RING)
        else []
    )
    sealed = keys_rotate.get_encryption_key_usage(using=options["database"])
    if options["json"]:
        told = {"encryption_keys": sealed, "subject_keys": asdict(ring)}
        stdout.write(json.dumps({**told, "client_keys": _list_client_keys(), "pairwise_key": pairwise}))
    else:
        keys_rotate.write_key_usage(sealed, stdout)
        _write_other_keys(ring, pairwise, stdout)
    if faults := keys_rotate.list_key_faults(sealed):
        raise CommandError(" ".join(faults))


def _write_other_keys(key_usage: SubjectKeyRingUsage, pairwise_key_ids: list[str], stdout: OutputWrapper) -> None:
    _write_subject_keys(key_usage, stdout)
    for key in _list_client_keys():
        use = "signs" if key["signs"] else "published, does not sign"
        stdout.write(f"client key of {key['provider']}: {key['kid']} ({key['alg']}): {use}")
    stdout.write(f"KEYS['pairwise']: {', '.join(pairwise_key_ids) or 'not configured'}")


def _write_subject_keys(key_usage: SubjectKeyRingUsage, stdout: OutputWrapper) -> None:
    stdout.write(
        f"KEYS['subject']: {key_usage.persons} persons, {key_usage.unknown_persons} of them known by no key of the list"
    )
    for key in key_usage.keys:
        counts = f"{key.digests} digests, {key.persons_without_digest} persons lack one"
        stdout.write(f"{key.position or '-'}  {key.id}  {counts}: {_describe_key(key)}")


def _describe_key(key: SubjectKeyUsage) -> str:
    known = f"{key.dependent_persons} persons are known by it alone"
    if key.position:
        return (
            "may be removed"
            if key.removable
            else f"needed, {known}"
            if key.dependent_persons
            else "needed, the only key"
        )
    return "not configured, may be retired" if key.removable else f"not configured, and {known}: put it back"


def _list_client_keys() -> list[dict[str, Any]]:
    """Tell which key signs at which provider; those after the first are published, for a rotation."""
    keys = []
    for name, provider in conf.providers().items():
        for position, key in enumerate(provider.client_keys):
            alg = provider.get_assertion_alg(key)
            keys.append({"provider": name, "kid": key.kid, "alg": alg, "signs": position == 0})
    return keys


def _retire(options: Mapping[str, Any], stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    def progress(done: int) -> None:
        if stderr.isatty():
            stderr.write(f"\r{done} digests", ending="")

    if not re.fullmatch(r"[0-9a-f]{8}", options["key_id"]):
        raise CommandError("A KEYID is eight hexadecimal digits, as `keys status` shows it.")
    configured = [key.id for key in keyring.get_keys("subject")]
    done = retire_subject_key(options["key_id"], configured_key_ids=configured, progress=progress)
    if done and stderr.isatty():
        stderr.write("")
    stdout.write(f"{done} digests under key {options['key_id']} were deleted.")
