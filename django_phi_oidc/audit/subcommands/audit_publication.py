"""Ask the witnesses of the audit log (`phi_oidc audit witnesses`), and export its tiles (`phi_oidc
audit tiles`).
"""

from django.core.management.base import CommandError

from ..._internal import clock
from ..._internal.command_arguments import Options, build_argument_error
from ..._internal.command_output import Output, ProgressLine
from .. import conf
from ..log import cosigned_checkpoints, signing_keys, tile_export, witnesses
from ..log.models import LogWitness
from ..log.tile_store import TileFolder, TileStore, find_tile_store
from ..models import AuditCheckpoint


def ask_witnesses(options: Options, output: Output) -> None:
    """Ask each declared witness for its cosignature, and write what it has cosigned.

    Raises: CommandError without a quorum for the newest checkpoint.
    """
    if not conf.witnesses():
        raise CommandError("PHI_OIDC['AUDIT']['witnesses'] is empty.")
    witnesses.submit_newest_checkpoint(clock=clock.now, only_due=False)
    states = LogWitness.objects.in_bulk(conf.witnesses())
    for name in conf.witnesses():
        state = states.get(name) or LogWitness(name=name)
        row = {"witness": name, "tree_size": state.tree_size, "fault": state.last_fault}

        if state.cosigned_at:
            row["cosigned_at"] = state.cosigned_at.isoformat()
        else:
            row["cosigned_at"] = ""

        text = f"{name}: {state.tree_size} events cosigned"
        colour = "success"
        if state.last_fault:
            text += f"; {state.last_fault}"
            colour = "failure"

        output.write_row(row, output.colour(text, colour))
    newest = AuditCheckpoint.objects.last()
    cosigned = cosigned_checkpoints.find_cosigned_checkpoint(signing_keys.get_public_keys())
    if newest and conf.witness_quorum() and (cosigned is None or cosigned.epoch < newest.epoch):
        raise CommandError("No checkpoint of this epoch is cosigned by a quorum of the witnesses.")
    if cosigned and newest and cosigned.checkpoint.tree_size < newest.tree_size:
        raise CommandError(
            f"The newest checkpoint with a quorum has {cosigned.checkpoint.tree_size} events."
        )


def write_tiles(options: Options, output: Output) -> None:
    """Export the tiles that are new. Raises: CommandError (wrong arguments) without a place for
    them.
    """
    store: TileStore | None
    if options["folder"]:
        store = TileFolder(options["folder"])
    else:
        store = find_tile_store()

    if store is None:
        raise build_argument_error("PHI_OIDC['AUDIT']['tiles'] is not declared: name a --folder.")
    with ProgressLine(output, "events exported") as progress:
        result = tile_export.export_tiles(
            store, keys=signing_keys.get_public_keys(), progress=progress
        )
    row = {"tree_size": result.tree_size, "written": result.written}
    output.confirm(row, f"Exported: {result.tree_size} events; new tiles: {result.written}.")
