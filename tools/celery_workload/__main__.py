"""`make celery-workload`: Celery's own integration tests as the workload, and every count compared with the truth.

``--broker rabbitmq`` and ``--pool threads`` run them elsewhere; ``--celery 5.6`` takes another release, whose tests and
worker it then is. ``--versions`` runs a smaller workload of our own with every supported release, on every pool and
broker, one of which is Redis under Sentinel whose master dies in the middle. Logs, recorded events and the page stay in
``--keep FOLDER``. The exit status is 1 when a count was wrong. A worker that stands still by a fault of Celery's is
named; what it did until then is compared.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from tools.celery_workload.cluster import BROKERS, POOLS, SENTINEL, Cluster, Result
from tools.celery_workload.mixed import RELEASES, run_mixed
from tools.celery_workload.releases import find_release
from tools.celery_workload.suite import TESTS, run_suite


def main() -> int:
    """Run what the options say; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tools.celery_workload", description=__doc__)
    parser.add_argument(
        "--broker", choices=(*BROKERS, SENTINEL), action="append", help="redis unless given; may be repeated"
    )
    parser.add_argument("--pool", choices=POOLS, action="append", help="prefork unless given; may be repeated")
    parser.add_argument("--celery", default=None, metavar="5.7", help="a release; the installed one unless given")
    parser.add_argument(
        "tests", nargs="*", default=TESTS, help="files in t/integration; further words after -- are for pytest"
    )
    parser.add_argument("--versions", action="store_true", help=f"a small workload on {', '.join(RELEASES)}")
    parser.add_argument("--keep", type=Path, help="an empty folder for logs, events and pages")
    options = parser.parse_args()
    if SENTINEL in (options.broker or ()) and not options.versions:
        parser.error(
            f"--broker {SENTINEL} is for --versions: Celery's own tests cannot do without a broker for a while"
        )
    folder = options.keep or Path(tempfile.mkdtemp(prefix="celery-workload-"))
    brokers = options.broker or ((*BROKERS, SENTINEL) if options.versions else ["redis"])
    pools = options.pool or (POOLS if options.versions else ["prefork"])
    releases = [options.celery] if options.celery else RELEASES if options.versions else [RELEASES[0]]
    results: list[Result] = []
    for broker in brokers:
        for wanted in releases:
            for pool in pools:
                cluster = Cluster(folder / f"{broker}-{wanted}-{pool}", broker, pool, find_release(wanted))
                results.append(run_mixed(cluster) if options.versions else run_suite(cluster, options.tests))
                print(results[-1].text(), flush=True)
    if len(results) > 1:
        print("\n".join(["", Result.HEAD, *(result.row() for result in results)]))
    print(f"logs, events and pages: {folder}")
    return 1 if any(result.differences for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
