"""`manage.py demo`: runs the steps of a patient's use of the portal; then the portal serves until Ctrl-C."""

import io
import os
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, NoReturn

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from django_phi_oidc import conf
from django_phi_oidc.testing.mock_provider import demo_accounts, demo_staff
from portal.demo.accounts import format_guide
from portal.demo.narration import run_steps
from portal.demo.processes import Processes, ProcessFailed
from portal.demo.scene import Scene
from portal.demo.services import BEAT_SECONDS, RETENTION_SECONDS, ROOT
from portal.demo.story import STEPS

CELERY = ("-m", "celery", "-A", "portal", "--quiet")


class Command(BaseCommand):
    """Runs the demo, then serves the portal."""

    help = (
        "Starts a demo identity provider, the portal, a Celery worker and beat, runs steps of a patient's use of the "
        "portal over HTTP, prints the resulting audit events, and serves until Ctrl-C. Without a terminal, or with "
        "ONCE=1, it exits after the steps: with 0 if all passed, otherwise 1. PORT and the port of OIDC_ISSUER are "
        "used if they are set."
    )
    requires_system_checks: ClassVar[list[str]] = []

    def handle(self, *args: Any, **options: Any) -> None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            # Do not fail on a terminal without ✓. With a pipe, print each step at once.
            sys.stdout.reconfigure(errors="replace", line_buffering=True)
        # A shell without job control starts background jobs with SIGINT ignored, and Python then installs no handler.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, _exit)
        signal.signal(signal.SIGHUP, _exit)
        scene = self.create_scene()
        self.stdout.write(
            "A patient portal, its identity provider, a Celery worker and beat. The steps follow the patient Amina."
        )
        self.stdout.write(
            f"Durations are short for the demo: an address is stored for {RETENTION_SECONDS} s (PHI_CLAIMS_JSON), "
            f"beat runs every {BEAT_SECONDS} s (CELERY_BEAT_SECONDS).\n"
        )
        try:
            with Processes(directory=ROOT, logs=settings.VAR / "log", environ=os.environ) as processes:
                self.start(processes, scene)
                passed = run_steps(STEPS, scene, write=self.stdout.write, style=self.style)
                self.stdout.write(f"Databases, queue and logs: {_format_path(settings.VAR)}")
                if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("ONCE") != "1":
                    self.serve(processes, scene)
        except ProcessFailed as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.stdout.write("\nAll processes were stopped.")
            sys.exit(128 + signal.SIGINT)
        if not passed:
            sys.exit(1)

    def create_scene(self) -> Scene:
        """Return the scene for the environment variables."""
        provider = conf.providers()["default"]
        amina, jonas = demo_accounts()
        lena, otto, *_ = demo_staff()
        return Scene(
            portal=f"http://127.0.0.1:{os.environ['PORT']}",
            provider=provider.issuer,
            client=(provider.client_id, ""),
            var=settings.VAR,
            amina=amina,
            jonas=jonas,
            lena=lena,
            otto=otto,
        )

    def start(self, processes: Processes, scene: Scene) -> None:
        """Migrate, create keys and start the four processes. Return when they are ready."""
        self.stdout.write("Starting databases, keys, provider, portal, worker and beat ...", ending="")
        self.stdout.flush()
        processes.run("migrate", "manage.py", "migrate", "--no-color")
        secret = settings.CLIENT_SECRET_FILE.read_text("ascii").strip()
        scene.client = (scene.client[0], secret)
        processes.start("provider", "manage.py", "demo_provider", "--portal", scene.portal)
        address = scene.portal.removeprefix("http://")
        processes.start("portal", "manage.py", "runserver", "--noreload", "--no-color", address)
        worker = ("worker", "--queues=celery,seal", "--pool=solo", "--loglevel=INFO")
        processes.start("worker", *CELERY, *worker, "--without-gossip", "--without-mingle")
        processes.start("beat", *CELERY, "beat", "--loglevel=INFO", f"--pidfile={settings.VAR / 'beat.pid'}")
        processes.wait_for_url("provider", f"{scene.provider}/.well-known/openid-configuration")
        processes.wait_for_url("portal", f"{scene.portal}/healthz")
        processes.wait_for_log("worker", "ready.")
        self.stdout.write(" ready.\n\n")

    def serve(self, processes: Processes, scene: Scene) -> None:
        """Print the URLs, the accounts and what to click first, and serve until Ctrl-C."""
        accounts = (*demo_accounts(), *demo_staff())
        guide = format_guide(portal=scene.portal, provider=scene.provider, accounts=accounts)
        self.stdout.write(f"\n{guide}\n\nPress Ctrl-C to stop.")
        try:
            while not (exited := processes.list_exited()):
                time.sleep(0.5)
        except KeyboardInterrupt:
            self.stdout.write("\nStopping ...")
            return
        raise ProcessFailed(f"{exited[0]} has exited:\n{processes.get_last_lines(exited[0])}")


def _exit(signal_number: int, frame: FrameType | None) -> NoReturn:
    """Raise SystemExit, so that context managers stop their processes."""
    sys.exit(128 + signal_number)


def _format_path(path: Path) -> str:
    """Return the path relative to the working directory, if it is inside."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
