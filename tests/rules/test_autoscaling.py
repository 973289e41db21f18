"""The simulation of autoscaling computes what the recording rules record, and its triggers differ as the page says."""

from __future__ import annotations

from pathlib import Path

import kubernetes_validate
import pytest
import yaml
from tests.rules.promtool import run, tool
from tools.autoscaling import RULES, BySlots, Cluster, Sample, by_length, days, main, simulate

pytestmark = pytest.mark.timeout(600)

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "deploy" / "autoscaling"
LABELS = '{job="celery",instance="a:9808"'


def test_the_rules_record_what_the_simulation_computes(tmp_path: Path) -> None:
    """Two hours of bursts and a trickle; the mean is recorded once a minute, so a slot may differ."""
    arrivals = [(300 if now % 3600 == 900 else 0) + (now % 2) for now in range(7200)]
    cluster, history, computed, trigger = Cluster(iter(lambda: 2.0, None)), [Sample(0, 0, 0, 0.0)], [0], BySlots()
    cluster.pods = 4
    for now, count in enumerate(arrivals, start=1):
        cluster.step(now, count)
        if now % RULES == 0:
            history.append(Sample(len(cluster.waiting), len(cluster.running), cluster.started, cluster.busy))
            trigger(history)
            computed.append(trigger.slots)
    times = [600, 915, 930, 960, 1020, 1100, 1560, 3000, 4515, 4560, 4800, 7000]
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(_test(history, {at: computed[at // RULES] for at in times})))
    ran = run(tool("installed"), "test", "rules", str(path))
    assert ran.returncode == 0, ran.stdout + ran.stderr


def _test(history: list[Sample], expected: dict[int, int]) -> dict[str, object]:
    head = yaml.safe_load((Path(__file__).parent / "autoscaling_test.yml").read_text())
    task = LABELS + ',name="a",queue_name="q"}'
    series: dict[str, list[float]] = {
        f"up{LABELS}}}": [1] * len(history),
        f"celerymeter_build_info{LABELS}}}": [1] * len(history),
        f"celerymeter_start_time_seconds{LABELS}}}": [-7200] * len(history),
        f"celerymeter_broker_up{LABELS}}}": [1] * len(history),
        f'celery_queue_length{LABELS},queue_name="q"}}': [sample.waiting for sample in history],
        f"celery_task_in_progress{task}": [sample.running for sample in history],
        f"celery_task_started_total{task}": [sample.started for sample in history],
        f"celery_task_busy_seconds_total{task}": [sample.busy_seconds for sample in history],
    }
    wanted = 'celery:queue_slots:wanted{queue_name="q"}'
    return {
        **head,
        "rule_files": [str((Path(__file__).parent / name).resolve()) for name in head["rule_files"]],
        "evaluation_interval": "15s",
        "tests": [
            {
                "interval": f"{RULES}s",
                "input_series": [
                    {"series": name, "values": " ".join(map(str, values))} for name, values in series.items()
                ],
                "promql_expr_test": [
                    {
                        "expr": f"abs({wanted} - {slots}) <= bool {max(1, 0.2 * slots)}",
                        "eval_time": f"{at}s",
                        "exp_samples": [{"labels": '{queue_name="q"}', "value": 1}],
                    }
                    for at, slots in expected.items()
                ],
            }
        ],
    }


def test_slots_do_not_oscillate_where_the_length_does() -> None:
    """A queue that is served has no length, so that the usual trigger takes its workers away again and again."""
    ((arrivals, mean),) = [(arrivals, mean) for title, arrivals, mean in days() if title.startswith("daily rhythm")]
    ours = simulate(arrivals, iter(lambda: mean, None), BySlots())
    usual = simulate(arrivals, iter(lambda: mean, None), by_length(20))
    assert ours.in_time > 0.999
    assert ours.reversals <= 5
    assert usual.reversals > 100


def test_the_pages_have_what_the_simulation_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """The table, and its short form in deploy/README.md."""
    main()
    printed = capsys.readouterr().out
    assert printed in (PAGE / "README.md").read_text()
    rows = [[cell.strip(" `") for cell in line.split("|")] for line in printed.splitlines()[2:]]
    short = (PAGE.parent / "README.md").read_text().partition("| simulated day |")[2].partition("\n\n")[0]
    for trigger, column in (("celery:queue_slots:wanted", 2), ("length ÷ 20", 3)):
        measured = [(row[3], row[8]) for row in rows if row[2] == trigger]
        cells = [line.split("|")[column] for line in short.splitlines()[2:]]
        assert len(cells) == len(measured)
        for cell, (in_time, reversals) in zip(cells, measured, strict=True):
            assert cell.strip().startswith(in_time)
            assert cell.strip().endswith(f" {reversals} times")


def test_the_manifests_ask_for_the_recorded_series() -> None:
    """By its name, with the slots of a worker as threshold."""
    scaled = yaml.safe_load((PAGE / "keda.yaml").read_text())
    adapter = yaml.safe_load((PAGE / "prometheus-adapter.yaml").read_text())["rules"]["external"][0]
    hpa = yaml.safe_load((PAGE / "hpa.yaml").read_text())
    kubernetes_validate.validate(hpa, kubernetes_validate.latest_version(), strict=True)
    assert {type(value) for value in scaled["spec"]["triggers"][0]["metadata"].values()} == {str}, "as KEDA has it"
    assert "celery:queue_slots:wanted{" in scaled["spec"]["triggers"][0]["metadata"]["query"]
    assert adapter["name"]["as"] == hpa["spec"]["metrics"][0]["external"]["metric"]["name"]
