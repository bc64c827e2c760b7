"""Looks at a live provider, and says what is wrong with it and how to mend it."""

import json
from argparse import ArgumentParser
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from django.core.management.base import CommandError, OutputWrapper

from ... import conf
from ..._internal import clock
from ...doctor.diagnostics import ProviderFinding, sanitize_text
from ...doctor.probe import ProbeContext, probe_provider
from ...provider.http_transport import HTTPTransport


def add_arguments(parser: ArgumentParser) -> None:
    """Declare the arguments of `phi_oidc doctor`."""
    parser.add_argument("provider", nargs="?", metavar="PROVIDER", help="its name (default: all that are declared)")
    parser.add_argument("--json", action="store_true", help="an object a line, for each finding")


def handle(options: Mapping[str, Any], *, stdout: OutputWrapper, stderr: OutputWrapper) -> None:
    """Tell what is found of each. Raises: CommandError when something is a failure, or there is no such provider."""
    providers, name = conf.providers(), options["provider"]
    if name is not None and name not in providers:
        raise CommandError(f"There is no provider {name}.")
    introspecting = [name for name, api in conf.apis().items() if api.method == "introspection"]
    alone = len(providers) == 1
    surroundings = ProbeContext(
        claims=conf.claims(), is_only_provider=alone, introspection_provider_names=introspecting
    )
    failures = warnings = 0
    for declaration in providers.values() if name is None else [providers[name]]:
        if not options["json"]:
            stdout.write(f"{declaration.name}: {sanitize_text(declaration.issuer)}")
        transport = HTTPTransport(declaration)
        try:
            for finding in probe_provider(declaration, surroundings, transport=transport, clock=clock.now):
                failures += finding.level == "failure"
                warnings += finding.level == "warning"
                write_finding(finding, declaration.name, as_json=options["json"], stdout=stdout)
        finally:
            transport.close()
    told = f"{failures} failures, {warnings} warnings."
    if failures:
        raise CommandError(told)
    if not options["json"]:
        stdout.write(told)


def write_finding(finding: ProviderFinding, provider: str, *, as_json: bool, stdout: OutputWrapper) -> None:
    """Write a line of the table with what to do about it, or an object."""
    if as_json:
        stdout.write(json.dumps({"provider": provider, **asdict(finding)}))
        return
    code = f" [{finding.code}]" if finding.code else ""
    stdout.write(f"  {finding.level:<8} {finding.check:<11} {finding.text}{code}")
    if finding.remedy:
        stdout.write(f"{'':23}{finding.remedy}")
