"""Tests a live provider, and reports problems and how to fix them."""

from argparse import ArgumentParser
from dataclasses import asdict

from django.core.management.base import CommandError
from django.db import DatabaseError

from ... import conf
from ..._internal import clock
from ...audit.triggers import list_deviations
from ...doctor.diagnostics import ProviderFinding, check_audit_log, sanitize_text
from ...doctor.probe import ProbeContext, probe_provider
from ...provider.http_transport import HTTPTransport
from ._arguments import Options, get_provider
from ._output import Output


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("provider", nargs="?", metavar="PROVIDER", help="its name (default: all declared providers)")
    parser.add_argument("--json", action="store_true", help="one object per line for each finding")
    parser.set_defaults(handler=handle)


def handle(options: Options, output: Output) -> None:
    """Print the findings of each provider, and without a name what is wrong with the audit log.

    Raises: CommandError if one is a failure, or there is no such provider.
    """
    providers, name = conf.providers(), options["provider"]
    declarations = [*providers.values()] if name is None else [get_provider(name)]
    context = ProbeContext(
        claims=conf.claims(),
        is_only_provider=len(providers) == 1,
        introspection_provider_names=[name for name, api in conf.apis().items() if api.method == "introspection"],
    )
    failures = warnings = 0
    for declaration in declarations:
        if not output.as_json:
            output.write(f"{declaration.name}: {sanitize_text(declaration.issuer)}")
        transport = HTTPTransport(declaration)
        try:
            for finding in probe_provider(declaration, context, transport=transport, clock=clock.now):
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
    if not output.as_json:
        output.write(total)


def _list_audit_log_deviations() -> list[str]:
    try:
        return list_deviations()
    except DatabaseError:
        # The health check reports an audit database that cannot be read.
        return []


def write_finding(finding: ProviderFinding, provider: str, output: Output) -> None:
    """Print a finding as an object or as a table row, followed by its remedy."""
    code = f" [{finding.code}]" if finding.code else ""
    remedy = f"\n{'':23}{finding.remedy}" if finding.remedy else ""
    output.write_row(
        {"provider": provider, **asdict(finding)},
        lambda _: f"  {finding.level:<8} {finding.check:<11} {finding.text}{code}{remedy}",
    )
