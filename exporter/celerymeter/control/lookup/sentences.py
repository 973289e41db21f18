"""The verdict as one sentence for people, in English and Traditional Chinese."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timezone
from typing import Final
from uuid import UUID

from celerymeter.control.evidence.task import Evidence, named
from celerymeter.control.lookup.models import Decision, Sentence
from celerymeter.control.routing import utc

_LOST: Final = (
    "It is lost: {worker}, which had it, is gone (last heard of at {since}); ",
    "任務已遺失：持有它的 {worker} 已不存在（最後一次出現於 {since}）；",
)
_UNKNOWN: Final = ("It cannot be known where it is: ", "無法得知它在哪裡：")
_SENTENCES: Final[Mapping[tuple[str, str], tuple[str, str]]] = {
    ("running", "active"): ("It has been running at {worker} since {since}{usual}.", "它自 {since} 起在 {worker} 執行中{usual}。"),
    ("running", "by_event"): (
        "It has been running at {worker} since {since} by its events{usual}; no newer answer of that worker shows it.",
        "依事件，它自 {since} 起在 {worker} 執行中{usual}；該 worker 沒有更新的回覆。",
    ),
    ("running", "survives"): (
        "It still runs at {worker}: terminate was sent, and its process is alive.",
        "它仍在 {worker} 執行：已送出終止訊號，但其行程還活著。",
    ),
    ("queued", "list"): (
        "It waits in {queue}, message {number} of {total}{priority}; {consumers}{drain}.",
        "它在佇列 {queue} 等候，第 {number} 則，共 {total} 則{priority}；{consumers}{drain}。",
    ),
    ("queued", "depth"): (
        "It was sent to {queue} at {since} and no worker has received it; {total} messages wait there, and RabbitMQ does "
        "not show which; {consumers}{drain}.",
        "它於 {since} 送至 {queue}，尚無 worker 收到；該佇列有 {total} 則訊息，RabbitMQ 不顯示是哪些；{consumers}{drain}。",
    ),
    ("scheduled", "worker"): ("{worker} holds it until {eta}.", "{worker} 持有它，直到 {eta} 才執行。"),
    ("scheduled", "by_event"): (
        "{worker} received it and holds it until {eta}, by its event.",
        "依事件，{worker} 已收到它，並保留到 {eta}。",
    ),
    ("scheduled", "delay_level"): (
        "RabbitMQ holds it in a delay level until {eta} (level {level} and those below hold messages), then it goes to "
        "{queue}.",
        "RabbitMQ 將它保留在延遲層，直到 {eta}（第 {level} 層及以下有訊息），之後送往 {queue}。",
    ),
    ("scheduled", "delayed"): (
        "It was sent to be delayed by RabbitMQ until {eta}; the delay levels could not be read.",
        "它已交由 RabbitMQ 延遲到 {eta}；延遲層無法讀取。",
    ),
    ("reserved", "held"): (
        "{worker} has reserved it and will run it{behind}.",
        "{worker} 已預留它，輪到時就會執行{behind}。",
    ),
    ("reserved", "by_event"): (
        "{worker} received it at {since} and has not started it, by its events.",
        "依事件，{worker} 於 {since} 收到它，尚未開始。",
    ),
    ("reserved", "rate_limited"): (
        "{worker} received it at {since} and keeps it for its rate limit ({rate}).",
        "{worker} 於 {since} 收到它，因速率限制（{rate}）而等候。",
    ),
    ("retrying", "held"): (
        "It waits at {worker} for its next try{until}; {tries}.",
        "它在 {worker} 等候下一次重試{until}；{tries}。",
    ),
    ("retrying", "queued"): (
        "It waits in {queue} for its next try{place}; {tries}.",
        "它在佇列 {queue} 等候下一次重試{place}；{tries}。",
    ),
    ("retrying", "delayed"): (
        "RabbitMQ holds its next try{until}; {tries}.",
        "RabbitMQ 保留它的下一次重試{until}；{tries}。",
    ),
    ("succeeded", "event"): ("It succeeded at {worker} at {since}.", "它於 {since} 在 {worker} 成功完成。"),
    ("succeeded", "stored"): ("It succeeded{ended}, by its stored result.", "依儲存的結果，它已成功完成{ended}。"),
    ("failed", "event"): (
        "It failed at {worker} at {since}{exception}.",
        "它於 {since} 在 {worker} 失敗{exception}。",
    ),
    ("failed", "stored"): ("It failed{ended}{exception}, by its stored result.", "依儲存的結果，它已失敗{ended}{exception}。"),
    ("rejected", "event"): (
        "It rejected its message at {worker} at {since} and will not run again.",
        "它於 {since} 在 {worker} 拒絕了自己的訊息，不會再執行。",
    ),
    ("rejected", "stored"): (
        "It rejected its message{ended}, by its stored result, and will not run again.",
        "依儲存的結果，它拒絕了自己的訊息{ended}，不會再執行。",
    ),
    ("revoked", "discarded"): (
        "It was revoked: {worker} discarded it at {since} without running it.",
        "它已被撤銷：{worker} 於 {since} 將它丟棄，未執行。",
    ),
    ("revoked", "terminated"): (
        "It was terminated at {worker} at {since}: the process that ran it is gone.",
        "它於 {since} 在 {worker} 被終止：執行它的行程已不存在。",
    ),
    ("expired", "discarded"): (
        "It expired: {worker} discarded it at {since} without running it.",
        "它已過期：{worker} 於 {since} 將它丟棄，未執行。",
    ),
    ("expired", "in_queue"): (
        "It expired at {since} in {queue} before any worker received it; RabbitMQ drops such messages.",
        "它於 {since} 在佇列 {queue} 過期，沒有 worker 收到它；RabbitMQ 會丟棄這種訊息。",
    ),
    ("lost", "redelivered"): (
        _LOST[0] + "the broker delivers it again at {redelivered} at the earliest.",
        _LOST[1] + "broker 最早於 {redelivered} 重新投遞。",
    ),
    ("lost", "requeued"): (
        _LOST[0] + "RabbitMQ puts such a message back into its queue, and no worker has received it since.",
        _LOST[1] + "RabbitMQ 會把這種訊息放回佇列，此後尚無 worker 收到。",
    ),
    ("lost", "never"): (
        _LOST[0] + "its message was acknowledged, so it will not be delivered again.",
        _LOST[1] + "它的訊息已被確認，不會再投遞。",
    ),
    ("lost", "unknown"): (
        _LOST[0] + "it cannot be known whether it will be delivered again.",
        _LOST[1] + "無法得知是否會重新投遞。",
    ),
    ("ran_twice", "at_once"): (
        "It runs twice at this moment, at {worker}: its message was delivered, or sent, more than once.",
        "它此刻正被執行兩次，在 {worker}：它的訊息被投遞或送出不只一次。",
    ),
    ("ran_twice", "again"): (
        "It ran to its end before and runs again at {worker} since {since}.",
        "它先前已執行完畢，又自 {since} 起在 {worker} 再次執行。",
    ),
    ("ran_twice", "ended_twice"): (
        "It ran to its end more than once, the last time at {worker} at {since}; `runs` lists them.",
        "它執行完畢不只一次，最後一次於 {since} 在 {worker}；詳見 `runs`。",
    ),
    ("unknown", "terminate_sent"): (
        "It cannot be known whether it ended: terminate was sent to {worker} at {since} by something else than this API, "
        "and Celery reports that before the process dies.",
        "無法得知它是否已結束：{since} 有其他程式對 {worker} 送出終止，而 Celery 在行程結束之前就回報。",
    ),
    ("unknown", "ended_unseen"): (
        "It cannot be known how it ended: {worker} had it at {since} and has it no more, and no event or stored result "
        "tells (it was ignored or replaced, or its events are off or were lost).",
        "無法得知它如何結束：{worker} 於 {since} 持有它，如今已無；沒有事件或儲存的結果說明（被忽略、被取代，或事件未開啟、已遺失）。",
    ),
    ("unknown", "worker_silent"): (
        _UNKNOWN[0] + "{worker} had it at {since} and does not answer; nothing proves that it is gone{redelivery}.",
        _UNKNOWN[1] + "{worker} 於 {since} 持有它，現在沒有回應；沒有證據顯示該 worker 已不存在{redelivery}。",
    ),
    ("unknown", "left"): (
        _UNKNOWN[0] + "{worker} had it at {since} and then shut down; a worker finishes what it runs, unless it is "
        "killed{redelivery}.",
        _UNKNOWN[1] + "{worker} 於 {since} 持有它，之後關閉；worker 會執行完手上的任務，除非被強制終止{redelivery}。",
    ),
    ("unknown", "broker"): (_UNKNOWN[0] + "the broker cannot be reached.", _UNKNOWN[1] + "無法連上 broker。"),
    ("unknown", "silent"): (
        _UNKNOWN[0] + "no queue that was read has it and no worker that answered, but {silent} did not answer.",
        _UNKNOWN[1] + "讀到的佇列與有回應的 worker 都沒有它，但 {silent} 沒有回應。",
    ),
    ("unknown", "held_by_silent"): (
        _UNKNOWN[0] + "some worker took it at {since} and has not acknowledged it, and {silent} did not "
        "answer{redelivery}.",
        _UNKNOWN[1] + "有 worker 於 {since} 取走它且尚未確認，而 {silent} 沒有回應{redelivery}。",
    ),
    ("unknown", "held_by_nobody"): (
        _UNKNOWN[0] + "some worker took it at {since} and has not acknowledged it, but none lists it: it waits for a rate "
        "limit, or its worker died{redelivery}.",
        _UNKNOWN[1] + "有 worker 於 {since} 取走它且尚未確認，但沒有 worker 列出它：它在等速率限制，或該 worker 已死{redelivery}。",
    ),
    ("unknown", "not_read"): (
        _UNKNOWN[0] + "no worker that answered has it, and not every waiting message could be read ({total} wait).",
        _UNKNOWN[1] + "有回應的 worker 都沒有它，而等候中的訊息未能全部讀取（共 {total} 則）。",
    ),
    ("unknown", "gone"): (
        _UNKNOWN[0] + "it was sent{sent}, but no queue and no worker has it, and no end was seen: a worker that sends no "
        "events ran it, or its message was removed.",
        _UNKNOWN[1] + "它已送出{sent}，但沒有佇列或 worker 持有它，也未見結束：不送事件的 worker 執行了它，或訊息已被移除。",
    ),
    ("unknown", "mute"): (
        _UNKNOWN[0] + "it was sent to {queue}, which a worker consumes that sends no task events and may have run it.",
        _UNKNOWN[1] + "它已送至 {queue}，而消費該佇列的某個 worker 不送任務事件，可能已執行它。",
    ),
    ("unknown", "stored_revoked"): (
        _UNKNOWN[0] + "the result backend says REVOKED, which Celery stores also for ids that never existed and for tasks "
        "that run on.",
        _UNKNOWN[1] + "結果後端記為 REVOKED，但 Celery 對不存在的 id 或仍在執行的任務也會這樣記。",
    ),
    ("unknown", "stored_other"): (
        _UNKNOWN[0] + "the result backend says {stored}, and no queue or worker has it now.",
        _UNKNOWN[1] + "結果後端記為 {stored}，但目前沒有佇列或 worker 持有它。",
    ),
    ("unknown", "never_seen"): (
        "Nothing has seen this id: no event{listening}, no worker, no queue, no stored result; its sending or its end "
        "would have been seen only by events, its result only with a result backend.{spelling}",
        "沒有任何來源見過此 id：沒有事件{listening}、worker、佇列或儲存的結果；只有事件會顯示其送出或結束，只有結果後端會有其結果。{spelling}",
    ),
    ("unknown", "never_seen_closed"): (
        "Nothing has seen this id: no event{listening}, no worker, no stored result; if it was sent before, it may wait in "
        "a queue, since this broker does not show its messages.{spelling}",
        "沒有任何來源見過此 id：沒有事件{listening}、worker 或儲存的結果；若更早送出，它可能仍在佇列中，因為此 broker 不顯示訊息。{spelling}",
    ),
}  # fmt: skip


def sentence(decision: Decision, evidence: Evidence) -> Sentence:
    """Return the sentence of a decision in both languages."""
    english, chinese = _SENTENCES[decision.verdict, decision.reason]
    return Sentence(
        en=english.format_map(_words(decision, evidence, lambda english, _: english)),
        zh_tw=chinese.format_map(_words(decision, evidence, lambda _, chinese: chinese)),
    )


def _words(decision: Decision, evidence: Evidence, say: Callable[[str, str], str]) -> dict[str, str]:
    """Return every value that a sentence may name; a part that is not known is empty."""
    unknown = say("an unknown time", "未知時間")
    since = _time(decision.since) or unknown
    exception = decision.runs[-1].exception if decision.runs else None
    exception = exception or (evidence.stored.exception if evidence.stored else None)
    position, words = decision.position, dict(decision.words)
    silent = [worker.hostname for worker in evidence.workers.values() if worker.alive and not worker.answered]
    depth = evidence.broker.depth
    return {
        "since": since,
        "worker": decision.worker or say("its worker", "其 worker"),
        "queue": decision.queue or say("its queue", "其佇列"),
        "eta": _time(decision.eta) or unknown,
        "until": say(f" at {_time(decision.eta)}", f"({_time(decision.eta)})") if decision.eta else "",
        "redelivered": _time(decision.redelivered_at) or unknown,
        "redelivery": _redelivery(decision, say),
        "usual": _usual(decision, evidence, say),
        "number": "?" if position is None or position.number is None else str(position.number),
        "total": str(
            position.total if position is not None else say("an unknown number", "未知數量") if depth is None else depth
        ),
        "priority": _priority(decision, say),
        "place": _place(decision, say),
        "consumers": _consumers(decision, say),
        "drain": _drain(decision, say),
        "behind": _behind(decision, say),
        "tries": say(f"{evidence.history.retries} retries so far", f"已重試 {evidence.history.retries} 次"),
        "ended": say(f" at {since}", f"({since})") if decision.since else "",
        "exception": say(f" with {exception}", f"({exception})") if exception else "",
        "level": words.get("level", "?"),
        "rate": words.get("rate", "?"),
        "silent": named(silent) or say("a worker", "某個 worker"),
        "sent": _at(evidence.history.sent_at, say),
        "stored": evidence.stored.state if evidence.stored is not None else "",
        "listening": _listening(evidence, say),
        "spelling": _spelling(evidence.task_id, say),
    }


def _time(at: float | None) -> str | None:
    return None if at is None else utc(at).astimezone(timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")


def _at(at: float | None, say: Callable[[str, str], str]) -> str:
    return say(f" at {_time(at)}", f"({_time(at)})") if at is not None else ""


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"


def _redelivery(decision: Decision, say: Callable[[str, str], str]) -> str:
    at = _time(decision.redelivered_at)
    if at is None:
        return ""
    return say(
        f"; if it does not end, the broker delivers it again at {at} at the earliest",
        f"；若未結束，broker 最早於 {at} 重新投遞",
    )


def _usual(decision: Decision, evidence: Evidence, say: Callable[[str, str], str]) -> str:
    usual, since = decision.usual_seconds, decision.since
    if usual is None or since is None or usual <= 0:
        return ""
    runs = max(evidence.asked_at - since, 0.0)
    if runs <= usual:
        return say(
            f", for {_seconds(runs)}; 95 % of such runs take at most {_seconds(usual)}",
            f"，已 {_seconds(runs)}；95% 的同類任務在 {_seconds(usual)} 內完成",
        )
    return say(
        f", for {_seconds(runs)}, {runs / usual:.1f} times the 95th percentile of such runs ({_seconds(usual)})",
        f"，已 {_seconds(runs)}，為同類任務第 95 百分位數（{_seconds(usual)}）的 {runs / usual:.1f} 倍",
    )


def _priority(decision: Decision, say: Callable[[str, str], str]) -> str:
    step = decision.position.priority if decision.position is not None else None
    if not step:
        return ""
    return say(f", at priority step {step}, behind all more urgent ones", f"，優先級 {step}，排在所有更急的訊息之後")


def _place(decision: Decision, say: Callable[[str, str], str]) -> str:
    if decision.position is None or decision.position.number is None:
        return ""
    position = decision.position
    return say(f", message {position.number} of {position.total}", f"，第 {position.number} 則，共 {position.total} 則")


def _consumers(decision: Decision, say: Callable[[str, str], str]) -> str:
    if decision.consumers is None:
        return say("it is not known which workers consume it", "不知道哪些 worker 消費它")
    if not decision.consumers:
        return say("no live worker consumes it", "沒有存活的 worker 消費它")
    count, free = len(decision.consumers), decision.free_slots
    consumers = say(f"consumed by {_many(count, 'worker')}", f"{count} 個 worker 消費它")
    slots = "" if free is None else say(f" with {_many(free, 'free slot')}", f"，有 {free} 個空位")
    return consumers + slots


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"


def _drain(decision: Decision, say: Callable[[str, str], str]) -> str:
    if decision.drain_seconds is None:
        return ""
    drain = _seconds(decision.drain_seconds)
    return say(f"; at its present pace it is empty in {drain}", f"；依目前速度 {drain} 後清空")


def _behind(decision: Decision, say: Callable[[str, str], str]) -> str:
    if decision.behind is None:
        return ""
    slots = decision.slots
    return say(
        f", behind at most {_many(decision.behind, 'task')}" + (f" in {_many(slots, 'slot')}" if slots else ""),
        f"，前面最多有 {decision.behind} 個任務" + (f"（{slots} 個空位）" if slots else ""),
    )


def _listening(evidence: Evidence, say: Callable[[str, str], str]) -> str:
    if evidence.listening_since is None:
        return say(" (none is received now)", "（目前收不到事件）")
    since = _time(evidence.listening_since)
    return say(f" since {since}", f"（自 {since} 起）")


def _spelling(task_id: str, say: Callable[[str, str], str]) -> str:
    """Return a hint when the id is a UUID in capitals, without dashes or in braces: ids are compared as they are."""
    try:
        usual = str(UUID(task_id))
    except ValueError:
        return ""
    if usual == task_id:
        return ""
    return say(f" Celery would write this id as {usual}.", f"Celery 會把此 id 寫成 {usual}。")
