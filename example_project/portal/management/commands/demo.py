"""`manage.py demo`: one person's life in the portal, on real parts; then the portal keeps serving until Ctrl-C."""

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
from portal.demo.processes import NotStarted, Processes
from portal.demo.scene import Scene
from portal.demo.story import STEPS
from portal.demo.services import BEAT_SECONDS, RETENTION_SECONDS, ROOT
from portal.demo.narration import tell

CELERY = ("-m", "celery", "-A", "portal", "--quiet")


class Command(BaseCommand):
    """Shows one person's life in the portal, then serves it."""

    help = (
        "Starts a demo identity provider, the portal, a Celery worker and a beat, shows one person's life by HTTP with "
        "the audit events it leaves, and keeps serving until Ctrl-C. Without a terminal, or with ONCE=1, it ends after "
        "the story: 0 when all steps held, 1 when not. PORT and the port of OIDC_ISSUER are taken where given."
    )
    requires_system_checks: ClassVar[list[str]] = []

    def handle(self, *args: Any, **options: Any) -> None:
        """Tell the story."""
        if isinstance(sys.stdout, io.TextIOWrapper):
            # A terminal without ✓ is no reason to stop, and a pipe shows each step when it was done.
            sys.stdout.reconfigure(errors="replace", line_buffering=True)
        signal.signal(signal.SIGTERM, _end)
        signal.signal(signal.SIGHUP, _end)
        scene = self.scene()
        self.stdout.write("A patient portal, its identity provider, a worker and a beat: one person's life in it.")
        self.stdout.write(
            f"To be seen in time, times are short: an address is kept for {RETENTION_SECONDS} s (PHI_CLAIMS_JSON), "
            f"the beat is {BEAT_SECONDS} s (CELERY_BEAT_SECONDS).\n"
        )
        try:
            with Processes(directory=ROOT, logs=settings.VAR / "log", environ=os.environ) as processes:
                self.start(processes, scene)
                held = tell(STEPS, scene, say=self.stdout.write, style=self.style)
                self.stdout.write(f"Databases, queue and logs: {_shown(settings.VAR)}")
                if sys.stdin.isatty() and sys.stdout.isatty() and os.environ.get("ONCE") != "1":
                    self.serve(processes, scene)
        except NotStarted as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            self.stdout.write("\nAll stopped.")
            sys.exit(128 + signal.SIGINT)
        if not held:
            sys.exit(1)

    def scene(self) -> Scene:
        """Return the scene that the environment describes."""
        provider = conf.providers()["default"]
        amina, jonas = demo_accounts()
        lena, otto = demo_staff()
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
        """Migrate, make keys, and start the four processes; return when they are ready."""
        self.stdout.write("Starting: database, keys, provider, portal, worker, beat ...", ending="")
        self.stdout.flush()
        processes.run("migrate", "manage.py", "migrate", "--no-color")
        secret = settings.CLIENT_SECRET_FILE.read_text("ascii").strip()
        scene.client = (scene.client[0], secret)
        processes.python("provider", "manage.py", "demo_provider", "--portal", scene.portal)
        address = scene.portal.removeprefix("http://")
        processes.python("portal", "manage.py", "runserver", "--noreload", "--no-color", address)
        processes.python(
            "worker", *CELERY, "worker", "--pool=solo", "--loglevel=INFO", "--without-gossip", "--without-mingle"
        )
        processes.python("beat", *CELERY, "beat", "--loglevel=INFO", f"--pidfile={settings.VAR / 'beat.pid'}")
        processes.wait_until_answers("provider", f"{scene.provider}/.well-known/openid-configuration")
        processes.wait_until_answers("portal", f"{scene.portal}/healthz")
        processes.wait_until_says("worker", "ready.")
        self.stdout.write(" ready.\n\n")

    def serve(self, processes: Processes, scene: Scene) -> None:
        """Say where everything is, and stay until Ctrl-C."""
        self.stdout.write(f"\nPortal             {self.style.SUCCESS(scene.portal)}")
        self.stdout.write(f"Identity provider  {scene.provider}")
        for account in (scene.amina, scene.jonas):
            self.stdout.write(f"Account            {account.username}, password {account.password}")
        self.stdout.write("\nCtrl-C stops everything.")
        try:
            while not (ended := processes.ended()):
                time.sleep(0.5)
        except KeyboardInterrupt:
            self.stdout.write("\nStopping ...")
            return
        raise NotStarted(f"{ended[0]} has ended by itself:\n{processes.last_lines(ended[0])}")


def _end(number: int, frame: FrameType | None) -> NoReturn:
    """Leave by an exception, so that every block on the way stops what it started."""
    sys.exit(128 + number)


def _shown(path: Path) -> str:
    """Return the path as seen from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)
