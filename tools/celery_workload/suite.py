"""Celery's own integration tests, run in the release's source archive against a worker of ours."""

from __future__ import annotations

import os
import subprocess
import sys

from tools.celery_workload.cluster import Cluster, Result
from tools.celery_workload.releases import rerun_plugin, unpack_tests

TESTS = ["test_canvas.py", "test_group_chains.py", "test_tasks.py"]
_PLUGINS = ("celery.contrib.pytest", "tools.celery_workload.suite_plugin")


def run_suite(cluster: Cluster, tests: list[str]) -> Result:
    """Run some of the tests, show how they get on, and compare the counts; what passes and fails is Celery's affair."""
    folder = unpack_tests(cluster.release)
    environment = {
        **cluster.release.environment,
        "TEST_BROKER": cluster.broker_url,
        "TEST_BACKEND": cluster.backend_url,
        "REDIS_HOST": "127.0.0.1",
        "REDIS_PORT": str(cluster.redis.port),
    }
    print(f"{cluster.title}: {', '.join(tests)}", flush=True)
    with cluster:
        cluster.start_worker("tools.celery_workload.suite_app", environment=environment, folder=folder)
        argv = [sys.executable, "-m", "pytest", "--quiet", "--no-header", "--tb=line", "--timeout=300"]
        argv += [f"--override-ini=cache_dir={cluster.folder / 'pytest'}", "--override-ini=xfail_strict=false"]
        argv += [f"-p{plugin}" for plugin in _PLUGINS]
        argv += [f"t/integration/{test}" if test.startswith("test_") else test for test in tests]
        environment["PYTHONPATH"] += f":{rerun_plugin()}"
        subprocess.run(argv, cwd=folder, env={**os.environ, **environment}, check=False)
        return cluster.judge()
