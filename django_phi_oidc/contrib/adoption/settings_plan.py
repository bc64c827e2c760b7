"""What a project has to change: the settings to paste, and what they do not cover. No Django."""

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ...config.request_parameters import PROTOCOL_PARAMETER_PREFIXES, PROTOCOL_PARAMETERS
from ...project_settings import PROVIDER_VARIABLES
from .issuer_discovery import DiscoveredProvider
from .python_source import LINE_LENGTH, UNPACKED, Call, EnvironmentVariable, format_python

EMAIL_CLAIM = {
    "purpose": "HOPERAT",
    "basis": "FILL IN: why the portal may request it",
    "retention": None,
}
SCOPE_NOTES = {
    "profile": "declare each claim that the portal uses in "
    "CLAIMS, such as name; others are dropped.",
    "address": "declare the claim address in CLAIMS, with the members that the portal uses.",
    "phone": "declare the claim phone_number in CLAIMS.",
}
PORTAL_ORIGIN = "https://your.host"
LOGOUT_URLS = {
    "post-logout redirect URI": "/oidc/logged-out/",
    "back-channel logout URI": "/oidc/backchannel-logout/",
}
_OTHER_LINES = """\
    "KEYS": read_keys(),
    "AUDIT": {"origin": "your.host/audit"},
"""
"""As in the settings of `phi_oidc init`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """A setting, class or hook, and what replaces it."""

    subject: str
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """An environment variable to set. value: empty if it is a secret or not known. meaning: where
    the value is.
    """

    name: str
    value: str = ""
    meaning: str = ""


@dataclass(slots=True, kw_only=True)
class SettingsPlan:
    """The equivalent of the project's settings, and what has no equivalent. Contains no secret."""

    library: str
    providers: dict[str, dict[str, Any]] = field(default_factory=dict)
    claims: dict[str, dict[str, Any]] = field(default_factory=dict)
    variables: list[Variable] = field(default_factory=list)
    """Environment variables for what is not printed. See `list_variables`."""
    redirect_uris: list[str] = field(default_factory=list)
    """Paths of redirect URIs that the providers do not know yet."""
    notes: list[Note] = field(default_factory=list)
    """What is not taken over."""
    removals: list[str] = field(default_factory=list)
    """What to delete or replace in the project."""

    def note(self, subject: str, text: str) -> None:
        self.notes.append(Note(subject=subject, text=text))

    def read_variable(self, name: str, meaning: str) -> EnvironmentVariable:
        """Return the environment variable for a value that is not printed."""
        self.variables.append(Variable(name=name, meaning=meaning))
        return EnvironmentVariable(name)

    def add_scopes(
        self, scopes: Sequence[str], provider_options: dict[str, Any], *, source: str
    ) -> None:
        """Add the claims or resource scopes of the scopes that the project requests."""
        for scope in dict.fromkeys(scopes):
            if scope == "email":
                self.claims["email"] = EMAIL_CLAIM
            elif scope in SCOPE_NOTES:
                self.note(f"{source} {scope}", SCOPE_NOTES[scope])
            elif scope != "openid":
                declared = provider_options.setdefault("resource_scopes", {})
                declared[scope] = {name: EMAIL_CLAIM[name] for name in ("purpose", "basis")}

    def add_authorization_parameters(
        self, parameters: Mapping[str, Any], provider_options: dict[str, Any], *, source: str
    ) -> None:
        """Add the parameters of authorization requests that a provider's declaration may have."""
        kept: dict[str, str] = {}
        for name, value in parameters.items():
            text = str(value)
            if name == "acr_values" and text.split():
                provider_options["acr_values"] = text.split()
            elif name == "max_age" and text.isdecimal():
                provider_options["max_age"] = int(text)
            elif (
                name in PROTOCOL_PARAMETERS
                or name.startswith(PROTOCOL_PARAMETER_PREFIXES)
                or not text
            ):
                self.note(
                    f"{source} {name}",
                    "the protocol code sets this parameter, or it cannot be empty.",
                )
            else:
                kept[name] = text
        if kept:
            provider_options["authorization_parameters"] = kept


def build_provider_options(
    plan: SettingsPlan,
    *,
    source: str,
    issuer: str | EnvironmentVariable,
    client_id: str | EnvironmentVariable,
    client_secret: EnvironmentVariable,
    discovered: DiscoveredProvider | None,
    keeps_subjects: bool,
) -> dict[str, Any]:
    """Return the options that follow from the provider's metadata.

    source: the provider, as the subject of notes.
    keeps_subjects: existing accounts are linked by the `sub` that the provider sends now, so it
    must stay the same.
    """
    options: dict[str, Any] = {
        "issuer": issuer,
        "client_id": client_id,
        "client_secret": client_secret,
    }
    if discovered is None:
        return options
    if discovered.needs_loopback_http:
        options["allow_loopback_http"] = True
    if not discovered.members.get("revocation_endpoint"):
        options["revocation"] = "best_effort"
        plan.note(
            source, "it has no revocation endpoint, so tokens stay valid after a logout (W002)."
        )
    subject_types = discovered.members.get("subject_types_supported")
    if subject_types == ["pairwise"]:
        return options
    has_choice = isinstance(subject_types, list) and "pairwise" in subject_types
    if has_choice and not keeps_subjects:
        text = (
            "register the client with pairwise subjects before the first sign-in here, or add "
            '"subject_type": "public"'
        )
        plan.note(source, f"{text} (W001). A later change would make every user a new one.")
        return options
    options["subject_type"] = "public"
    if has_choice:
        text = (
            'delete "subject_type" if the client has pairwise '
            "subjects there. Do not change its registration"
        )
        plan.note(source, f"{text}: every user would become a new one.")
    return options


def list_variables(plan: SettingsPlan) -> list[Variable]:
    """Return the environment variables to set, those of `read_provider` first."""
    if len(plan.providers) != 1:
        return plan.variables
    ((_, options),) = plan.providers.items()
    known = []
    for name, variable in PROVIDER_VARIABLES.items():
        known.append((variable, options[name]))
    values = []
    for name, value in known:
        if isinstance(value, str):
            values.append(Variable(name=name, value=value))
    return [*values, *plan.variables]


def format_settings(plan: SettingsPlan) -> str:
    """Return the lines of `PHI_OIDC`, with references to the environment in place of secrets and
    keys.

    The only provider of a project is read from the environment as in the settings of `phi_oidc
    init`.
    """
    providers: dict[str, Any] = plan.providers
    if len(providers) == 1:
        ((name, options),) = providers.items()
        others = {}
        for option, value in options.items():
            if option not in PROVIDER_VARIABLES:
                others[option] = value
        provider = Call("read_provider()")
        providers = {name: {UNPACKED: provider, **others} if others else provider}
    members = {"PROVIDERS": providers, "CLAIMS": plan.claims}
    lines = []
    for name, value in members.items():
        text = format_python(value, indent=4, prefix=f"{name}: ")
        lines.append(f'    "{name}": {text},\n')
    return f"PHI_OIDC = {{\n{''.join(lines)}{_OTHER_LINES}}}\n"


def list_functions(plan: SettingsPlan) -> list[str]:
    """Return the sorted names of the functions of `project_settings` that the lines call."""
    lines = format_settings(plan)
    functions = []
    for name in ("read_keys", "read_provider", "read_variable"):
        if f"{name}(" in lines:
            functions.append(name)
    return functions


def format_plan(plan: SettingsPlan) -> str:
    """Return a plan as Python: the settings, and the rest as comments."""
    head = (
        f"# From the settings of {plan.library}. Put this in place of "
        "the PHI_OIDC that `phi_oidc init` wrote.\n"
    )
    imports = f"from django_phi_oidc.project_settings import {', '.join(list_functions(plan))}\n\n"
    sections = {
        "Environment variables to set": map(_format_variable, list_variables(plan)),
        **list_remarks(plan),
    }
    comments = []
    for title, items in sections.items():
        comments.append(format_list(title, list(items), marker="# "))
    return f"{head}{imports}{format_settings(plan)}{''.join(comments)}"


def list_remarks(plan: SettingsPlan) -> dict[str, list[str]]:
    """Return what the settings do not cover, by title."""
    return {
        "URLs of your portal to register at the provider": list_urls(plan),
        "Not taken over": [f"{item.subject}: {item.text}" for item in plan.notes],
        "Delete or replace": plan.removals,
    }


def list_urls(plan: SettingsPlan) -> list[str]:
    """Return the URLs to register at the providers, with the origin of the example."""
    redirect_uris = []
    for path in plan.redirect_uris:
        redirect_uris.append(f"redirect URI: {PORTAL_ORIGIN}{path}")
    return [
        *redirect_uris,
        *(f"{name}: {PORTAL_ORIGIN}{path}" for name, path in LOGOUT_URLS.items()),
    ]


def format_list(title: str, items: Sequence[str], *, marker: str = "") -> str:
    """Return the items as lines below the title, or nothing if there are none. marker: in front of
    each line.
    """
    wrapper = textwrap.TextWrapper(
        LINE_LENGTH,
        initial_indent=f"{marker}- ",
        subsequent_indent=f"{marker}  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = []
    for item in items:
        lines.append(wrapper.fill(item if item.isprintable() else ascii(item)))

    if items:
        return "\n".join(["", f"{marker}{title}:", *lines, ""])
    return ""


def describe_plan(plan: SettingsPlan) -> dict[str, Any]:
    """Return a plan as an object for JSON. Environment variables are objects with the member
    `env`.
    """
    return {
        "library": plan.library,
        "PHI_OIDC": {"PROVIDERS": _describe(plan.providers), "CLAIMS": plan.claims},
        "urls": list_urls(plan),
        "variables": {variable.name: variable.value or None for variable in list_variables(plan)},
        "not_taken_over": [{"subject": item.subject, "text": item.text} for item in plan.notes],
        "delete_or_replace": plan.removals,
    }


def _format_variable(variable: Variable) -> str:
    if variable.value:
        return f"{variable.name}={variable.value}"
    return f"{variable.name}: {variable.meaning}"


def _describe(value: Any) -> Any:
    if isinstance(value, EnvironmentVariable):
        return {"env": value.name}
    if isinstance(value, Mapping):
        result = {}
        for name, item in value.items():
            result[name] = _describe(item)
        return result
    return value
