"""Test a live provider, and report problems and how to fix them."""

from argparse import ArgumentParser
from dataclasses import asdict, replace

from django.core.management.base import CommandError
from django.db import DatabaseError

from .... import conf
from ...._internal import clock
from ...._internal.command_arguments import Options
from ...._internal.command_output import Output
from ....audit.triggers import list_deviations
from ....http.http_transport import HTTPTransport
from ....management.subcommands._arguments import get_provider
from ...common.portal_origin import parse_portal_origin
from ...common.provider_findings import ProviderFinding, sanitize_text
from ..callback_path import build_callback_path
from ..diagnostics import check_audit_log
from ..probe import ProbeContext, probe_provider

READING_COMMANDS = ("doctor",)


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "provider",
        nargs="?",
        metavar="PROVIDER",
        help="Its name (default: all declared providers).",
    )
    parser.add_argument(
        "--portal",
        metavar="ORIGIN",
        help="Origin of the portal, such as https://your.host: check how the client is registered.",
    )
    parser.set_defaults(handler=handle)


def handle(options: Options, output: Output) -> None:
    """Print the findings of each provider, and without a name what is wrong with the audit log.

    Raises: CommandError if one is a failure, or there is no such provider.
    """
    providers = conf.providers()
    name = options["provider"]
    if name is None:
        declarations = [*providers.values()]
    else:
        declarations = [get_provider(name)]

    if options["portal"] is None:
        portal_origin = ""
    else:
        portal_origin = parse_portal_origin(options["portal"])

    context = ProbeContext(
        claims=conf.claims(),
        is_only_provider=len(providers) == 1,
    )
    failures = warnings = 0
    for declaration in declarations:
        output.write(f"{declaration.name}: {sanitize_text(declaration.issuer)}")
        transport = HTTPTransport(declaration)
        if portal_origin:
            context = replace(
                context, callback_url=portal_origin + build_callback_path(declaration.name)
            )
        try:
            for finding in probe_provider(
                declaration, context, transport=transport, clock=clock.now
            ):
                failures += finding.level == "failure"
                warnings += finding.level == "warning"
                write_finding(finding, declaration.name, output)
        finally:
            transport.close()
    if name is None:
        for finding in check_audit_log(_list_audit_log_deviations()):
            failures += 1
            write_finding(finding, "", output)
    total = f"{failures} failures, {warnings} warnings."
    if failures:
        raise CommandError(total)
    output.write(total)


def _list_audit_log_deviations() -> list[str]:
    try:
        return list_deviations()
    except DatabaseError:
        # The health check reports an audit database that cannot be read.
        return []


def write_finding(finding: ProviderFinding, provider: str, output: Output) -> None:
    """Print a finding as an object or as a table row, followed by its remedy."""
    if finding.code:
        code = f" [{finding.code}]"
    else:
        code = ""

    if finding.remedy:
        remedy = f"\n{'':23}{finding.remedy}"
    else:
        remedy = ""

    level = output.colour(f"{finding.level:<8}", finding.level)
    text = f"  {level} {finding.check:<11} {finding.text}{code}{remedy}"
    output.write_row({"provider": provider, **asdict(finding)}, text)
