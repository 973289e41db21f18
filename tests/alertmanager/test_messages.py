"""Messages say what is wrong, where, since when, how badly, and what to open next; then that it is over."""

from __future__ import annotations

from email.message import EmailMessage
from functools import cache

import pytest
import yaml
from tests.alertmanager.conftest import LOG, PAGER, SLACK, Office
from tests.alertmanager.sinks import awaited
from tests.rules.bundle import TESTS

pytestmark = pytest.mark.integration

HOSTS = {"runbook_url": "https://wiki.example.org/", "dashboard_url": "https://grafana.example.org"}
Message = dict[str, dict[str, str]]
TITLE = "eu: 1.2 million messages wait in queue orders"
WARNED = "eu: 60 messages wait in queue orders"
SILENCE = "http://am.example.org/#/silences/new?filter=%7Balertname%3D%22CeleryQueueBacklog%22"


@cache
def rendered(name: str, severity: str) -> Message:
    """The alert as the promtool tests prove that Prometheus sends it, with links as `bundle export` writes them."""
    for path in TESTS:
        for test in yaml.safe_load(path.read_text())["tests"]:
            for check in test.get("alert_rule_test", []):
                for alert in check["exp_alerts"] if check["alertname"] == name else []:
                    if alert["exp_labels"]["severity"] == severity:
                        labels = {"alertname": name, **alert["exp_labels"]}
                        notes = alert["exp_annotations"]
                        links = {key: HOSTS[key] + notes[key] for key in HOSTS}
                        return {"labels": labels, "annotations": {**notes, **links}}
    raise LookupError(name)


def body(message: EmailMessage, kind: str) -> str:
    """The text of one of an e-mail's parts."""
    part = message.get_body((kind,))
    assert part is not None
    content = part.get_content()
    assert isinstance(content, str)
    return content


def titled(office: Office, subject: str) -> EmailMessage:
    """The first e-mail with this subject, once it is there."""
    found = awaited(
        lambda: [message for message in office.mail.messages if message["Subject"] == subject], what=subject
    )
    return found[0]


def all_cards(office: Office) -> list[dict[str, str]]:
    """Every card in the channel."""
    return [card for one in office.http.to(SLACK) for card in one.body["attachments"]]


def cards(office: Office, title: str) -> list[dict[str, str]]:
    """The cards with this title in the channel, once there is one."""
    return awaited(lambda: [card for card in all_cards(office) if card["title"] == title], what=title)


def tells_all(text: str, alert: Message) -> bool:
    """Both languages, severity, place, and the links to open next."""
    notes, labels = alert["annotations"], alert["labels"]
    wanted = [notes[key] for key in ("summary", "description", "summary_zh", "description_zh", "runbook_url")]
    missing = [part for part in (*wanted, labels["severity"], labels["queue_name"], "Query") if part not in text]
    assert not missing
    return notes["dashboard_url"] in text.replace("&amp;", "&")


def test_an_email_says_it_all_and_later_that_it_is_over(office: Office) -> None:
    """Subject, text and HTML, to a server that wants the password from the file."""
    backlog = rendered("CeleryQueueBacklog", "critical")
    office.tell(backlog)
    first = titled(office, f"CRITICAL: {TITLE}")
    assert first["To"] == "on-call@example.org"
    for kind in ("plain", "html"):
        assert tells_all(body(first, kind), backlog)
        assert "Since" in body(first, kind)
        assert SILENCE in body(first, kind)
    office.tell(backlog, ended=True)
    last = titled(office, f"RESOLVED: {TITLE}")
    assert "Resolved" in body(last, "plain")
    assert "Silence" not in body(last, "plain")


def test_a_chat_message_says_it_all_and_later_that_it_is_over(office: Office) -> None:
    """Slack's incoming webhook, its URL from the file."""
    backlog = rendered("CeleryQueueBacklog", "warning")
    office.tell(backlog)
    [card, *_] = cards(office, f"WARNING: {WARNED}")
    assert office.http.to(SLACK)[0].body["channel"] == "#celery-alerts"
    assert card["fallback"] == card["title"]
    assert card["title_link"] == backlog["annotations"]["dashboard_url"]
    assert tells_all(f"{card['title']} {card['text']}", backlog)
    assert "since 20" in card["text"]
    assert card["color"] == "#e65100"
    office.tell(backlog, ended=True)
    [card, *_] = cards(office, f"RESOLVED: {WARNED}")
    assert "resolved 20" in card["text"]
    assert card["color"] == "#2e7d32"


def test_names_mention_nobody_and_make_no_link_in_chat(office: Office) -> None:
    """In Slack angle brackets do: those of a queue's name and of a text are escaped, in the title too."""
    backlog = rendered("CeleryQueueBacklog", "warning")
    evil = "<!channel> <https://evil.example|here> & <@U1>"
    notes = dict.fromkeys(("summary", "summary_zh", "description", "description_zh"), f"eu: {evil}")
    office.tell(
        {"labels": {**backlog["labels"], "queue_name": evil}, "annotations": {**backlog["annotations"], **notes}}
    )
    escaped = "&lt;!channel&gt; &lt;https://evil.example|here&gt; &amp; &lt;@U1&gt;"
    [card, *_] = cards(office, f"WARNING: eu: {escaped}")
    for text in (card["title"], card["fallback"], card["text"]):
        assert "<!" not in text
        assert "<@" not in text
        assert "<https://evil" not in text
    assert card["text"].count(escaped) == 4


def test_webhooks_carry_every_label_and_annotation_and_their_own_token(office: Office) -> None:
    """The pager's and the log's, each with the bearer token from its file; both hear of the end."""
    backlog = rendered("CeleryQueueBacklog", "critical")
    office.tell(backlog)
    for path, token in ((PAGER, "pager-secret"), (LOG, "log-secret")):
        [first, *_] = awaited(lambda: office.http.to(path, "firing"), what=path)
        assert first.authorization == f"Bearer {token}"
        [alert] = first.body["alerts"]
        assert alert["labels"] == backlog["labels"]
        assert alert["annotations"] == backlog["annotations"]
    office.tell(backlog, ended=True)
    for path in (PAGER, LOG):
        awaited(lambda: office.http.to(path, "resolved"), what=f"the end at {path}")


def test_alerts_of_one_kind_share_a_message_and_their_names_cannot_break_it(office: Office) -> None:
    """Grouped by cluster and alert; markup in a queue's name stays text."""
    backlog = rendered("CeleryQueueBacklog", "critical")
    other = {
        "labels": {**backlog["labels"], "queue_name": "<b>bold</b>"},
        "annotations": {**backlog["annotations"], "summary": "eu: <b>bold</b> is long"},
    }
    office.tell(backlog, other)
    message = titled(office, "CRITICAL (2): eu: <b>bold</b> is long; also queue orders")
    assert backlog["annotations"]["summary"] in body(message, "html")
    assert "&lt;b&gt;bold&lt;/b&gt; is long" in body(message, "html")
    assert "<b>" not in body(message, "html")


def test_a_link_without_a_host_is_no_link(office: Office) -> None:
    """As shipped, the runbook is a path inside the bundle and there is no host for dashboards."""
    backlog = rendered("CeleryQueueBacklog", "critical")
    notes = {**backlog["annotations"], "runbook_url": "runbooks/X.md", "dashboard_url": "/d/celerymeter-queues"}
    office.tell({"labels": backlog["labels"], "annotations": notes})
    message = titled(office, f"CRITICAL: {TITLE}")
    for kind in ("plain", "html"):
        assert "runbooks/X.md" in body(message, kind)
        assert "celerymeter-queues" not in body(message, kind)
    assert 'href="runbooks' not in body(message, "html")
    [card, *_] = cards(office, f"CRITICAL: {TITLE}")
    assert card["title_link"] == "http://am.example.org/#/alerts"
    assert "Runbook: runbooks/X.md" in card["text"]


@pytest.mark.parametrize("summary", ["eu: queue orders is long", "eu: no worker: none", "no worker: none"])
def test_the_title_is_what_is_wrong_said_once(office: Office, summary: str) -> None:
    """The sentence names its subject; the text does not repeat it."""
    labels = {"alertname": "CeleryX", "severity": "warning", "area": "tasks", "cluster": summary[:2]}
    office.tell({"labels": labels, "annotations": {"summary": summary, "description": "It is.", "summary_zh": ""}})
    [card, *_] = cards(office, f"WARNING: {summary}")
    assert summary not in card["text"]


def test_the_title_begins_with_the_worst_and_names_the_others(office: Office) -> None:
    """At most three of them; each has its own sentence below."""
    office.tell(
        *(
            {
                "labels": {"alertname": "CeleryX", "severity": severity, "area": "tasks", "cluster": "eu", **subject},
                "annotations": {"summary": f"eu: {next(iter(subject.values()))} fails"},
            }
            for severity, subject in (
                ("warning", {"name": "shop.a"}),
                ("warning", {"hostname": "celery@b"}),
                ("critical", {"name": "shop.c"}),
                ("warning", {"schedule": "nightly", "name": "shop.d"}),
                ("warning", {"collector": "queues"}),
                ("warning", {"queue_name": "e"}),
            )
        )
    )
    others = ["celery@b", "queues", "shop.a", "nightly", "queue e"]
    [card, *_] = awaited(lambda: [one for one in all_cards(office) if "(6)" in one["title"]], what="six")
    assert card["title"].startswith("CRITICAL (6): eu: shop.c fails; also ")
    assert card["title"].endswith(" and others")
    assert sum(other in card["title"] for other in others) == 3
    assert all(
        f"eu: {name} fails" in card["text"] for name in ("shop.a", "celery@b", "shop.c", "nightly", "queues", "e")
    )


def test_a_warning_that_is_left_is_called_so(office: Office) -> None:
    """Its message also says that a critical alert of the same name is resolved."""
    warning, critical = (
        {
            "labels": {"alertname": "CeleryX", "severity": severity, "cluster": "eu", "name": f"shop.{severity}"},
            "annotations": {"summary": f"eu: shop.{severity} fails"},
        }
        for severity in ("warning", "critical")
    )
    office.tell(warning, critical)
    cards(office, "CRITICAL (2): eu: shop.critical fails; also task shop.warning")
    office.tell(critical, ended=True)
    [card, *_] = cards(office, "WARNING: eu: shop.warning fails")
    assert "*eu: shop.critical fails*" in card["text"]
