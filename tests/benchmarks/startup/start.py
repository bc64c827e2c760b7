"""A start of a web process: `python -m tests.benchmarks.startup.start` prints its cost and its modules in JSON."""

import sys
import time

wall, cpu = time.perf_counter(), time.process_time()

from django.core.wsgi import get_wsgi_application  # noqa: E402 -- measured
from django.urls import get_resolver  # noqa: E402 -- measured

application = get_wsgi_application()
assert get_resolver().url_patterns

wall, cpu, modules = time.perf_counter() - wall, time.process_time() - cpu, sorted(sys.modules)

import json  # noqa: E402 -- not measured
import os  # noqa: E402 -- not measured

from tests.benchmarks.startup.process_memory import get_resident_mb  # noqa: E402 -- not measured

cost = {"wall_ms": wall * 1000, "cpu_ms": cpu * 1000, "resident_mb": get_resident_mb(os.getpid()), "modules": modules}
print(json.dumps(cost))
