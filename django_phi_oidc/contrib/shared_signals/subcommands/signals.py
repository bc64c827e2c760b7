"""Operate the stream of security events at a provider (OpenID Shared Signals Framework 1.0)."""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from getpass import getpass
from typing import Any

from django.core.management.base import CommandError
from django.urls import NoReverseMatch, reverse
from django.views.decorators.debug import sensitive_variables

from ...._internal import clock
from ...._internal.command_arguments import (
    Options,
    add_command,
    build_argument_error,
    create_choice_parser,
    parse_number,
)
from ...._internal.command_output import Output
from ....audit.request_context import current_origin
from ....errors import PhiOidcError
from ....management.subcommands._arguments import get_provider
from ...common.portal_origin import parse_portal_origin
from .. import conf, event_streams
from ..event_poll import PollResult, poll_events
from ..event_stream import EventStream
from ..transmitter import Transmitter, get_transmitter

READING_COMMANDS = ("signals list",)

STATUSES = ("enabled", "paused", "disabled")
DEFAULT_SECONDS = 30
POLL_BUDGET_SECONDS = 600.0
STREAM_HELP = "The id of the stream, as `list` shows it; required if there are several."


def add_arguments(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="signals_command", required=True, metavar="SUBCOMMAND")
    create = add_command(
        commands, "create", _create, "Create a stream with the declared delivery and events."
    )
    create.add_argument(
        "--portal", required=True, metavar="ORIGIN", help="Origin of the portal: https://your.host."
    )
    listing = add_command(
        commands, "list", _list, "List the streams of this portal, as the transmitter has them."
    )
    update = add_command(commands, "update", _update, "Write the declared events to a stream.")
    delete = add_command(
        commands, "delete", _delete, "Delete a stream: the provider sends no further event."
    )
    status = add_command(commands, "status", _status, "Show the status of a stream, or set it.")
    status.add_argument(
        "--set",
        type=create_choice_parser("status", STATUSES),
        help=f"One of {', '.join(STATUSES)}.",
    )
    verify = add_command(
        commands, "verify", _verify, "Test a stream: request a verification event and wait for it."
    )
    seconds_help = f"Wait this many seconds (default: {DEFAULT_SECONDS})."
    verify.add_argument("--seconds", type=parse_number, default=DEFAULT_SECONDS, help=seconds_help)
    add = add_command(
        commands, "add", _add, "Register the person whose sub is read from standard input."
    )
    remove = add_command(
        commands, "remove", _remove, "Withdraw the person whose sub is read from standard input."
    )
    poll = add_command(
        commands, "poll", _poll, "Move the waiting events of a stream that is polled to the portal."
    )
    for command in (create, listing, update, delete, status, verify, add, remove, poll):
        provider_help = "The provider that sends the events; required if several do."
        command.add_argument("--provider", metavar="NAME", help=provider_help)
    for command in (update, delete, status, verify, add, remove):
        command.add_argument("--stream", metavar="ID", help=STREAM_HELP)


def _get_transmitter(options: Options) -> Transmitter:
    """Raises: CommandError if the provider is unknown or sends no events, or if it is not named and
    several do.
    """
    names = list(conf.signals())
    if options["provider"] is not None:
        name = get_provider(options["provider"]).name
        if name not in names:
            raise build_argument_error(f"Provider {name} has no `signals` in PROVIDERS.")
        return get_transmitter(name)
    if len(names) != 1:
        if names:
            listed = f"Add --provider: {', '.join(names)}."
        else:
            listed = "No provider has `signals` in PROVIDERS."
        raise build_argument_error(listed)
    return get_transmitter(names[0])


def _get_stream_id(transmitter: Transmitter, options: Options) -> str:
    if options["stream"] is not None:
        return str(options["stream"])
    streams = event_streams.list_streams(transmitter)
    if len(streams) != 1:
        ids = ", ".join(stream.stream_id for stream in streams)
        raise build_argument_error(
            f"Add --stream: {ids}." if streams else "There is no stream: create one."
        )
    return streams[0].stream_id


@contextmanager
def _report_faults() -> Iterator[None]:
    """Raises: CommandError instead of the errors of the transmitter and of the audit log."""
    try:
        yield
    except PhiOidcError as error:
        raise CommandError(f"{error} [{error.code}]") from error


def _describe(stream: EventStream) -> Mapping[str, Any]:
    return {
        "stream": stream.stream_id,
        "delivery": stream.delivery,
        "endpoint": stream.endpoint_url,
        "audience": list(stream.audience),
        "events": list(stream.events_delivered),
    }


def _format_stream(row: Mapping[str, Any]) -> str:
    return (
        f"{row['stream']}  {row['delivery']}  {row['endpoint']} "
        f" {len(row['events'])} types of events"
    )


def _create(options: Options, output: Output) -> None:
    transmitter = _get_transmitter(options)
    portal_origin = parse_portal_origin(options["portal"])
    try:
        push_url = f"{portal_origin}{reverse('oidc_ssf_events')}"
    except NoReverseMatch as error:
        line = 'path("oidc/", include("django_phi_oidc.urls"))'
        raise CommandError(
            f"The URLs of the portal do not accept events: add {line} to urlpatterns."
        ) from error
    with _report_faults():
        stream = event_streams.create_stream(
            transmitter, push_url=push_url, origin=current_origin(), now=clock.now()
        )
    row = _describe(stream)
    output.confirm(row, f"The stream was created: {_format_stream(row)}.")
    expected = transmitter.signals.audience or (transmitter.provider.declaration.client_id,)
    if unexpected := set(stream.audience) - set(expected):
        output.warn(
            f"Set `audience`: the transmitter will send aud {', '.join(sorted(unexpected))}."
        )


def _list(options: Options, output: Output) -> None:
    with _report_faults():
        for stream in event_streams.list_streams(_get_transmitter(options)):
            output.write_row(_describe(stream), _format_stream)


def _update(options: Options, output: Output) -> None:
    transmitter = _get_transmitter(options)
    with _report_faults():
        stream_id = _get_stream_id(transmitter, options)
        stream = event_streams.update_stream(
            transmitter, stream_id, origin=current_origin(), now=clock.now()
        )
    row = _describe(stream)
    output.confirm(row, f"The stream was updated: {_format_stream(row)}.")


def _delete(options: Options, output: Output) -> None:
    transmitter = _get_transmitter(options)
    with _report_faults():
        stream_id = _get_stream_id(transmitter, options)
        event_streams.delete_stream(
            transmitter, stream_id, origin=current_origin(), now=clock.now()
        )
    output.confirm({"stream": stream_id}, f"Stream {stream_id} was deleted.")


def _status(options: Options, output: Output) -> None:
    transmitter = _get_transmitter(options)
    with _report_faults():
        stream_id = _get_stream_id(transmitter, options)
        if options["set"] is None:
            status = event_streams.get_status(transmitter, stream_id)
        else:
            status = event_streams.set_status(
                transmitter, stream_id, options["set"], origin=current_origin(), now=clock.now()
            )
    output.write_row({"stream": stream_id, "status": status}, f"{stream_id}: {status}")


def _verify(options: Options, output: Output) -> None:
    transmitter = _get_transmitter(options)
    is_polled = transmitter.signals.delivery == "poll"
    provider = transmitter.provider.declaration.name

    def poll() -> None:
        if is_polled:
            poll_events(provider, clock=clock.now, budget_seconds=POLL_BUDGET_SECONDS)

    with _report_faults():
        stream_id = _get_stream_id(transmitter, options)
        state = event_streams.request_verification(transmitter, stream_id, now=clock.now())
        seconds = float(options["seconds"])
        is_verified = event_streams.wait_for_verification(
            transmitter, stream_id, state, seconds=seconds, poll=poll
        )

    if is_verified:
        fault = ""
    else:
        fault = "No verification event arrived in time: see the log and `signal.refused`."

    if is_verified:
        text = f"Stream {stream_id} delivers events."
    else:
        text = f"Stream {stream_id}:"

    output.confirm({"stream": stream_id, "verified": is_verified}, text, fault=fault)


def _add(options: Options, output: Output) -> None:
    _change_subject(options, output, is_added=True)


def _remove(options: Options, output: Output) -> None:
    _change_subject(options, output, is_added=False)


@sensitive_variables()
def _change_subject(options: Options, output: Output, *, is_added: bool) -> None:
    transmitter = _get_transmitter(options)

    if sys.stdin.isatty():
        sub = getpass("Subject (sub), not shown: ")
    else:
        sub = sys.stdin.read()

    with _report_faults():
        stream_id = _get_stream_id(transmitter, options)
        event_streams.change_subject(
            transmitter,
            stream_id,
            sub=sub.strip(),
            is_added=is_added,
            origin=current_origin(),
            now=clock.now(),
        )

    if is_added:
        done = "added to"
    else:
        done = "removed from"

    output.confirm(
        {"stream": stream_id, "added": is_added}, f"The person was {done} stream {stream_id}."
    )


def _poll(options: Options, output: Output) -> None:
    transmitter = _get_transmitter(options)
    if transmitter.signals.delivery != "poll":
        raise build_argument_error("The events of this provider are pushed.")
    with _report_faults():
        name = transmitter.provider.declaration.name
        result: PollResult = poll_events(name, clock=clock.now, budget_seconds=POLL_BUDGET_SECONDS)
    row = {"acknowledged": result.acknowledged, "refused": result.refused, "left": result.left}

    if result.left:
        fault = f"{result.left} events wait: see the log."
    else:
        fault = ""

    output.confirm(
        row, f"{result.acknowledged} events were received, {result.refused} refused.", fault=fault
    )
