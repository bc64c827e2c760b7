"""Write settings for this project, and new keys; print which log-ins change."""

import json
import re
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from django.apps import apps
from django.conf import global_settings, settings
from django.core.management.base import CommandError
from django.db import connections
from django.views.decorators.debug import sensitive_variables

from ...._internal.command_arguments import Options, build_argument_error
from ...._internal.command_output import Output
from ...._internal.sql import SUPPORTED_VENDORS
from ....audit.log.signing_keys import generate_signing_key
from ....crypto import keyring
from ....management.subcommands.apps import list_available_features
from ....project_settings import KEY_RINGS, KEY_VARIABLES, PROVIDER_VARIABLES
from ...common.private_files import create_private_file
from ...doctor.known_providers import PROVIDERS_BY_SLUG
from ...doctor.known_providers.definitions import Recipe
from ..settings_plan import (
    SettingsPlan,
    format_list,
    format_settings,
    list_functions,
    list_remarks,
    list_variables,
)
from ._provider_recipe import (
    format_imports,
    format_provider,
    generate_client_key,
    list_key_types,
    list_recipe_functions,
    list_variable_lines,
)
from ._sign_in_changes import list_new_backends, list_sign_in_changes
from .migrate_from import LIBRARIES, read_plan

INITIAL_APPS = ("django_phi_oidc.audit", "django_phi_oidc.contrib.administrators")
"""What `init` always adds: the core needs the audit log, and the portal a first administrator."""
READING_COMMANDS = ("init",)
COMMANDS_WITHOUT_CHECKS = ("init",)

SETTINGS_LINES = """\
from django_phi_oidc.project_settings import add_audit_database, read_keys, read_provider

MIDDLEWARE = [*MIDDLEWARE, "django_phi_oidc.middleware.RevocationMiddleware"]
AUTHENTICATION_BACKENDS = ["django_phi_oidc.backends.OIDCAuthenticationBackend"]
DATABASES = add_audit_database(DATABASES)
DATABASE_ROUTERS = ["django_phi_oidc.audit.router.AuditRouter"]
LOGIN_URL = "oidc_authentication_init"
TEST_RUNNER = "django_phi_oidc.testing.runner.PHIAuditTestRunner"
PHI_OIDC = {
    "PROVIDERS": {"default": read_provider()},
    "CLAIMS": {"birthdate": {"purpose": "TREAT", "basis": "dose by age", "retention": "session"}},
    "KEYS": read_keys(),
    "AUDIT": {"origin": "your.host/audit"},
}
"""
"""The lines for a new project. README.md contains them."""
NEXT_STEPS_TEMPLATE = """\
{folder}/settings.py: append its lines to your settings, and change the claims and the name of the log.
{folder}/portal.env: the environment of every process. Fill in the provider, and delete the # in front of these lines.
{folder}/audit-signing-key.pem: set its text as PHI_AUDIT_SIGNING_KEY for the worker that seals the audit log only.
{client_key}\
Put none of them into a repository. Keep a copy in a safe place: without the keys, encrypted data can't be read again.
Then: urlpatterns += [path("oidc/", include("django_phi_oidc.urls"))]
      set -a; . {folder}/portal.env; set +a
      python manage.py migrate && python manage.py migrate --database phi_audit
      python manage.py phi_oidc doctor"""  # noqa: E501
CLIENT_KEY_TEMPLATE = """\
{names}: keys of the client. Register https://your.host/oidc/jwks.json, or what the provider's page requires.
"""  # noqa: E501
FEDERATION_KEY_TEMPLATE = """\
{names}: keys of the client. Register the public half of the federation key at the operator of the federation.
"""  # noqa: E501


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="A new folder, readable by its owner only."
    )
    source = parser.add_mutually_exclusive_group()
    text = "Take over the settings of mozilla-django-oidc or django-allauth."
    source.add_argument("--from", dest="library", choices=list(LIBRARIES), help=text)
    text = "Write the settings that this provider needs, with a comment for each."
    source.add_argument("--provider", choices=sorted(PROVIDERS_BY_SLUG), help=text)
    text = (
        "Names of apps to install, separated by commas, such as scim,siem; an empty text for none. "
        "Without this option, init asks. phi_oidc apps lists them."
    )
    parser.add_argument("--with", dest="apps", metavar="APPS", help=text)
    parser.set_defaults(handler=handle)


@sensitive_variables()
def handle(options: Options, output: Output) -> None:
    """Write the files, and print the next steps.

    Raises: CommandError if the folder exists, an app does not exist, or the database of the project
    is not supported.
    """
    folder: Path = options["folder"]
    app_names = _select_apps(options["apps"])
    if (vendor := connections["default"].vendor) not in SUPPORTED_VENDORS:
        raise CommandError(
            f"DATABASES['default'] is {vendor}. django_phi_oidc needs PostgreSQL, or SQLite for "
            "development: only there can triggers refuse changes "
            "of the audit log. Nothing was written."
        )

    known = None
    if options["provider"]:
        known = PROVIDERS_BY_SLUG[options["provider"]]

    recipe = known.recipe if known else None

    plan = None
    if options["library"]:
        plan = read_plan(options["library"])

    if recipe:
        key_types = list_key_types(recipe)
    else:
        key_types = {}

    files = {
        # The empty line in front ends the last line of a file that lacks a newline there.
        "settings.py": f"\n{_build_settings(plan, recipe, app_names)}",
        "portal.env": _build_environment(plan, recipe, folder),
        "audit-signing-key.pem": generate_signing_key() + "\n",
        **{name: generate_client_key(key_type) for name, key_type in key_types.items()},
    }
    try:
        folder.mkdir(mode=0o700, parents=True)
        for name, text in files.items():
            with create_private_file(folder / name) as file:
                file.write(text)
    except OSError as error:
        raise CommandError(
            f"{folder} can't be written as a new folder: {error.strerror}."
        ) from error
    changes = list(list_sign_in_changes(app_names))
    row = {"files": [str(folder / name) for name in files], "sign_in_changes": changes}
    names = ", ".join(str(folder / name) for name in key_types)

    if recipe and recipe.trust_anchor:
        template = FEDERATION_KEY_TEMPLATE
    else:
        template = CLIENT_KEY_TEMPLATE

    if key_types:
        client_key = template.format(names=names)
    else:
        client_key = ""

    lines = [NEXT_STEPS_TEMPLATE.format(folder=folder, client_key=client_key)]

    if known:
        lines += [f"\nThe steps at the provider: {known.get_page()}"]

    if changes:
        lines += ["\nWith these lines, log-ins change:", *(f"- {change}" for change in changes)]

    remarks: Iterable[tuple[str, list[str]]]
    if plan:
        remarks = list_remarks(plan).items()
    else:
        remarks = ()

    if plan:
        lines += ["".join(format_list(title, items) for title, items in remarks).rstrip("\n")]

    output.confirm(row, "\n".join(lines))


def _select_apps(listed: str | None) -> list[str]:
    """Return the apps to add to INSTALLED_APPS: INITIAL_APPS, what is listed, and what these need.

    listed: the last parts of the names; None: ask on a terminal. Raises: CommandError.
    """
    available = {}
    for config in list_available_features():
        label = config.name.rpartition(".")[2]
        available[label] = config.name
    if listed is None and sys.stdin.isatty():
        listed = input(f"Apps to install ({', '.join(available)}), or none: ")
    names = list(INITIAL_APPS)
    for word in (listed or "").replace(",", " ").split():
        if word not in available:
            known = ", ".join(available)
            raise build_argument_error(f"There is no app {word!r}. The apps are: {known}.")
        names += _iterate_required(available[word])

    missing = []
    for name in dict.fromkeys(names):
        if not apps.is_installed(name):
            missing.append(name)
    return missing


def _iterate_required(name: str) -> Iterator[str]:
    """Yield the app after the apps that it needs, in the order in which they need each other."""
    for config in list_available_features():
        if config.name == name:
            for required in config.requires:
                yield from _iterate_required(required)
    yield name


@sensitive_variables()
def _build_environment(plan: SettingsPlan | None, recipe: Recipe | None, folder: Path) -> str:
    """Return the lines of portal.env. A variable without a value is a comment: an empty one would
    replace another.
    """
    if recipe is not None:
        lines = list_variable_lines(recipe, folder=folder.absolute())
    else:
        if plan:
            found = {}
            for variable in list_variables(plan):
                found[variable.name] = variable.value
        else:
            found = {}

        variables = found or dict.fromkeys(PROVIDER_VARIABLES.values(), "")
        lines = []
        for name, value in variables.items():
            if value:
                # A shell reads the file, and the issuer is what a provider has sent.
                lines.append(f"{name}={shlex.quote(value)}")
            else:
                lines.append(f"#{name}=")
    for ring in KEY_RINGS:
        lines.append(f"{KEY_VARIABLES[ring]}={keyring.generate_key()}")
    return "".join(f"{line}\n" for line in lines)


def _build_settings(
    plan: SettingsPlan | None, recipe: Recipe | None, app_names: Sequence[str]
) -> str:
    """Return the lines for this project: its routers, its test runner and backends that grant
    permissions are kept.

    plan: what another library declares, in place of the provider and the claims of a new project.
    recipe: the settings of a known provider. app_names: to add to INSTALLED_APPS.
    """
    text = re.sub(
        r"(?<=^AUTHENTICATION_BACKENDS = ).*",
        json.dumps(list_new_backends()),
        SETTINGS_LINES,
        flags=re.MULTILINE,
    )
    if settings.DATABASE_ROUTERS:
        text = text.replace('AuditRouter"]', 'AuditRouter", *DATABASE_ROUTERS]')
    if settings.TEST_RUNNER != global_settings.TEST_RUNNER:
        text = re.sub(r"^TEST_RUNNER = .*\n", "", text, flags=re.MULTILINE)
    if plan is not None:
        text = re.sub(
            r"(?<=import ).*",
            ", ".join(["add_audit_database", *list_functions(plan)]),
            text,
            count=1,
        )
        text = text[: text.index("PHI_OIDC = {")] + format_settings(plan)
    if recipe is not None:
        functions = ["add_audit_database", "read_keys", *list_recipe_functions(recipe)]
        text = re.sub(r"^from .*\n", format_imports(recipe, functions=functions), text, count=1)
        provider = format_provider(recipe, indent=4)
        text = text.replace('{"default": read_provider()}', provider)
    if app_names:
        lines = "".join(f'    "{name}",\n' for name in app_names)
        text = text.replace("MIDDLEWARE =", f"INSTALLED_APPS += [\n{lines}]\nMIDDLEWARE =", 1)
    return text
