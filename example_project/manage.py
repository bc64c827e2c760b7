#!/usr/bin/env python
"""The commands of the example portal: migrate, runserver, demo, demo_provider and all of Django's."""

import os
import sys

from django.core.management import execute_from_command_line
from portal.demo import services


def main() -> None:
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
    if sys.argv[1:2] == ["demo"] and not {"-h", "--help"} & set(sys.argv):
        services.set_up_environment(os.environ)
    elif {"-h", "--help", "help"} & set(sys.argv[1:]):
        os.environ.setdefault("DJANGO_DEBUG", "1")
    execute_from_command_line(sys.argv)


if __name__ == "__main__":
    main()
