"""The answer of `celerymeter capacity` as text for people, in English or in Traditional Chinese."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

from celerymeter.escaping import terminal
from celerymeter.reports.capacity import Capacity
from celerymeter.reports.formatting import decimal, percent, seconds, timestamp, translate, with_text
from celerymeter.reports.texts import Text

LINES: dict[str, Text] = {
    "queue": Text("Queue {queue}, {window}", "佇列 {queue}，{window}"),
    "slots": Text(
        "Slots that would have started {share} of its tasks within {target}: {slots} (between {low} and {high}).",
        "{slots} 個執行槽可讓 {share} 的任務在 {target} 內開始（介於 {low} 與 {high} 之間）。",
    ),
    "unknown": Text(
        "How many slots would have started {share} of its tasks within {target} cannot be known, because: {reason}",
        "無法得知需要多少執行槽才能讓 {share} 的任務在 {target} 內開始，因為：{reason}",
    ),
    "demand": Text(
        "Tasks that arrived: {tasks}; mean run time: {mean}; slots busy on average: {load}.",
        "到達的任務：{tasks}；平均執行時間：{mean}；平均佔用的執行槽：{load}。",
    ),
    "present": Text(
        "Present slots: {slots}, which are {hours} slot hours.", "現有執行槽：{slots}，即 {hours} 執行槽小時。"
    ),
    "saved": Text(
        "The target would have cost {hours} slot hours: {difference} fewer.",
        "達到目標需要 {hours} 執行槽小時：節省 {difference}。",
    ),
    "cost": Text(
        "The target would have cost {hours} slot hours: {difference} more.",
        "達到目標需要 {hours} 執行槽小時：多出 {difference}。",
    ),
    "resolution": Text(
        "Resolution: {step}, the time between two scrapes; when a task arrived in between is not known (the bounds "
        "above). Arrivals are {source}.",
        "解析度：{step}（兩次抓取的間隔）；期間內何時到達無從得知（即上述範圍）。到達數取自{source}。",
    ),
    "from_sent": Text("counted tasks that were sent", "已送出的任務計數"),
    "from_queue": Text(
        "what workers took plus the growth of the queue, whose length is read every 15 s",
        "Worker 取走的任務加上佇列的增長（每 15 秒讀取長度）",
    ),
    "checked": Text(
        "Check: with the present slots {measured} started in time as measured, {replayed} in the replay.",
        "驗證：以現有執行槽，實測有 {measured} 準時開始，重播為 {replayed}。",
    ),
    "measured": Text("Measured: {measured} started in time.", "實測：{measured} 準時開始。"),
    "assumptions": Text(
        "The replay is first come, first served, with slots of this queue alone. Priorities, rate limits and "
        "prefetching (tasks that wait in one worker while another is idle) are not in it.",
        "重播採先到先執行，且執行槽專屬這個佇列；不含優先權、速率限制與預取（任務在某個 Worker 等待，而另一個閒置）。",
    ),
}


def in_language(found: Capacity, language: str) -> Capacity:
    """Return the answer with its sentences in ``en`` or ``zh-TW``."""
    say = partial(with_text, language=language, scrapes_present=found.scrapes_present_percent)
    return replace(
        found,
        notes=tuple(map(say, found.notes)),
        unknown={name: say(note) for name, note in found.unknown.items()},
    )


def as_text(found: Capacity, language: str) -> str:
    """Return the answer for people."""
    return "\n".join(terminal(line) for line in _lines(found, language))


def _lines(found: Capacity, language: str) -> Iterator[str]:
    def say(key: str, **values: str) -> str:
        return translate(LINES[key], language).format(**values)

    window = f"{timestamp(found.time_range.start)} to {timestamp(found.time_range.end)}"
    target = {"share": percent(found.objective_percent), "target": f"{found.wait_target_seconds:g} s"}
    yield say("queue", queue=found.queue_name, window=window)
    if found.slots is None:
        yield say("unknown", reason=found.unknown["slots"].text, **target)
    else:
        bounds = {"low": decimal(found.slots_at_least), "high": decimal(found.slots_at_most)}
        yield say("slots", slots=decimal(found.slots), **target, **bounds)
        yield say(
            "demand",
            tasks=f"{found.tasks:,}",
            mean=f"{found.mean_run_seconds:.3g} s",
            load=decimal(found.load_slots),
        )
    yield from _present(found, say)
    if found.resolution_seconds is not None:
        yield say("resolution", step=seconds(found.resolution_seconds), source=say(f"from_{found.arrivals_from}"))
    if found.measured_percent is not None and found.replayed_percent is not None:
        yield say("checked", measured=percent(found.measured_percent), replayed=percent(found.replayed_percent))
    elif found.measured_percent is not None:
        yield say("measured", measured=percent(found.measured_percent))
    reasons = [note for name, note in found.unknown.items() if name != "slots"]
    yield from (f"- {text}" for text in dict.fromkeys(note.text for note in (*reasons, *found.notes)))
    if found.slots is not None:
        yield say("assumptions")


def _present(found: Capacity, say: Callable[..., str]) -> Iterator[str]:
    """Yield what the present slots were, and what the others would have cost or saved."""
    if found.present_slots is None:
        return
    changed = found.present_slots_min != found.present_slots_max
    spread = f" ({decimal(found.present_slots_min)} to {decimal(found.present_slots_max)})" if changed else ""
    yield say("present", slots=decimal(found.present_slots) + spread, hours=decimal(found.present_slot_hours))
    if found.slot_hours is not None and found.saved_slot_hours is not None:
        saved = found.saved_slot_hours
        yield say("saved" if saved >= 0 else "cost", hours=decimal(found.slot_hours), difference=decimal(abs(saved)))
