"""Words and sentences of reports, in English and in Traditional Chinese."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """One sentence in each language."""

    en: str
    zh: str


NAMES_LIKE_IT = Text(" Names like it: {names}.", "相近的名稱：{names}。")

NOTES: dict[str, Text] = {
    "task_unknown": Text(
        "Prometheus has no task of this name in this window.", "Prometheus 在這段時間內沒有這個名稱的任務。"
    ),
    "queue_unknown": Text(
        "Prometheus has no queue of this name in this window.", "Prometheus 在這段時間內沒有這個名稱的佇列。"
    ),
    "no_scrapes": Text(
        "Prometheus has no scrape of an exporter in this window: there was none, or it is older than the retention.",
        "Prometheus 在這段時間內沒有任何 exporter 的抓取資料：當時沒有抓取，或已超過保留期限。",
    ),
    "base_missing": Text(
        "The exporter was running before the window, but no scrape from before the window is left to count from.",
        "Exporter 在這段時間之前就已啟動，但沒有當時的抓取資料可作為計數起點。",
    ),
    "nothing_ended": Text("No task ended in this window.", "這段時間內沒有任務結束。"),
    "nothing_succeeded": Text("No task succeeded in this window.", "這段時間內沒有任務成功。"),
    "not_watched_before": Text(
        "Some of the window before was not scraped, so there is no comparison with it.",
        "前一段時間並未全程監看，因此不與它比較。",
    ),
    "not_measured": Text("Prometheus has no run times for these tasks.", "Prometheus 沒有這些任務的執行時間資料。"),
    "no_waits": Text(
        "No waiting time was measured, because producers send no task-sent events.",
        "沒有量測到等待時間：producer 未送出 task-sent 事件。",
    ),
    "no_history": Text(
        "Throughput over time is not known: the metrics are some minutes old, or there are too many series to read "
        "step by step and no recorded ones (load the bundled recording rules).",
        "無法得知處理量隨時間的變化：指標才收集幾分鐘；或序列過多，無法逐步讀取，也沒有預先記錄的序列"
        "（請載入隨附的 recording rules）。",
    ),
    "scrapes_missing": Text(
        "Some scrapes of the window are missing: {present} are there. Tasks that ended in between are counted at the "
        "next scrape.",
        "這段時間缺少部分抓取（現有 {present}）；期間結束的任務會計入下一次抓取。",
    ),
    "events_missed": Text(
        "The events of some task runs were lost, so counts are too low.", "部分任務執行的事件未送達，計數因此偏少。"
    ),
    "series_folded": Text(
        "There are more names than the exporter keeps; the rest is counted as __other__.",
        "部分名稱超過 exporter 的上限，計入 __other__。",
    ),
    "late_base": Text(
        "The last scrape before the window is over an hour older; tasks that ended since then are counted too.",
        "這段時間之前的最後一次抓取早了一小時以上；其間結束的任務也計入本報告。",
    ),
    "rows_left_out": Text(
        "There are too many tasks, queues, workers or alerts to list; those with the most are listed.",
        "任務、佇列、Worker 或告警過多，只列出最多的部分。",
    ),
    "restarted": Text(
        "The exporter restarted; tasks that ended between its last scrape and the restart are not counted.",
        "Exporter 曾重新啟動；最後一次抓取到重啟之間結束的任務不在計數內。",
    ),
    "exporters_disagree": Text(
        "Exporters on one broker counted differently. This report uses the one that counted most.",
        "同一個 broker 的多個 exporter 計數不一致；數字取自計數最多的那一個。",
    ),
    "query_warnings": Text("Prometheus returned warnings.", "Prometheus 的回應帶有警告。"),
    "peak_recorded": Text(
        "The peak is the highest recorded five-minute mean of succeeded and failed tasks.",
        "峰值取自預先記錄的五分鐘平均（成功與失敗的任務）。",
    ),
    "execution_not_drawn": Text(
        "The chart of execution times is left out: there are too many series for this window.",
        "未繪製執行時間曲線：這段時間的序列過多。",
    ),
    # of the replay (`capacity`)
    "nothing_arrived": Text("No task arrived in the queue in this window.", "這段時間內沒有任務進入這個佇列。"),
    "no_run_times": Text(
        "No run of the queue's tasks was seen, so it is unknown how long they take.",
        "沒有看到這個佇列的任務執行，因此不知道需要多久。",
    ),
    "too_many_tasks": Text(
        "There are too many tasks to replay; choose a shorter window.", "任務過多，無法重播；請選擇較短的時間範圍。"
    ),
    "too_few_scrapes": Text(
        "Prometheus has too few scrapes of this window to know when tasks arrived.",
        "Prometheus 在這段時間的抓取太少，無法得知任務何時到達。",
    ),
    "time_left_out": Text(
        "Some scrapes of the window are missing: {present} are there. The time without scrapes is left out of the "
        "replay and of the slot hours.",
        "這段時間缺少部分抓取（現有 {present}）；重播與執行槽小時都不含沒有抓取的時間。",
    ),
    "slots_unknown": Text(
        "No reply of a worker said how many slots this queue had.", "沒有 Worker 回報這個佇列有多少執行槽。"
    ),
    "slots_missing": Text(
        "For more than a tenth of the time the number of slots is unknown; it is taken to be as in the rest.",
        "有一成以上的時間不知道執行槽數；視為與其餘時間相同。",
    ),
    "slots_shared": Text(
        "Workers consume several queues, so the present slots are not this queue's alone.",
        "Worker 同時消費多個佇列，現有的執行槽並非這個佇列專用。",
    ),
    "slots_changed": Text(
        "The number of slots changed in this window, so the replay cannot be compared with what was measured.",
        "這段時間內執行槽數有變動，因此無法將重播與實測比較。",
    ),
    "resolution_coarse": Text(
        "The scrape interval is longer than the wait target: a scrape does not say when in between tasks arrived.",
        "抓取間隔比等待目標更長：無法得知任務在兩次抓取之間何時到達。",
    ),
    "length_unknown": Text(
        "The length of the queue is unknown, so tasks arrive in the replay only when a worker took them; "
        "the answer may be too low.",
        "不知道佇列長度，重播時任務在 Worker 取走時才算到達；答案可能偏低。",
    ),
    "messages_removed": Text(
        "Messages left the queue without being run (purged, expired or moved); the replay runs them.",
        "有訊息未經執行就離開佇列（清除、過期或移走）；重播時仍會執行。",
    ),
    "tasks_scheduled": Text(
        "Workers held tasks with an ETA or countdown; in the replay these arrive when they were sent, not when due.",
        "有 Worker 保留帶 ETA 或 countdown 的任務；重播時以送出時間為準，而不是到期時間。",
    ),
    "backlog_at_start": Text(
        "Tasks were already waiting when the window began; in the replay they arrive at its start.",
        "這段時間開始時已有任務在等待；重播時視為在開始時到達。",
    ),
    "long_runs": Text(
        "Some runs took longer than the last bucket of the histogram; how much longer is known only on average.",
        "部分執行超過直方圖的最後一個 bucket；只知道平均超出多少。",
    ),
    "window_short": Text(
        "The window is shorter than fifty mean run times: runs at its edges change the answer.",
        "這段時間不到平均執行時間的五十倍：邊緣的執行會影響答案。",
    ),
}

VERDICTS: dict[str, Text] = {
    "complete": Text("The data is complete.", "資料完整。"),
    "limited": Text("The numbers are right within the limits listed here.", "在所列的限制內，數字是正確的。"),
    "unusable": Text("The tasks of this window cannot be counted.", "無法計算這段時間的任務。"),
}

LABELS: dict[str, Text] = {
    "title": Text("Celery performance report", "Celery 效能報告"),
    "window": Text("Window", "時間範圍"),
    "cluster": Text("Cluster", "叢集"),
    "task": Text("Task", "任務"),
    "tasks": Text("Tasks", "任務"),
    "queue": Text("Queue", "佇列"),
    "queues": Text("Queues", "佇列"),
    "worker": Text("Worker", "Worker"),
    "workers": Text("Workers", "Worker"),
    "schedules": Text("Schedules", "排程"),
    "schedule": Text("Schedule", "排程"),
    "due": Text("Due", "應送出"),
    "sent": Text("Sent", "已送出"),
    "schedule_missed": Text("Missed", "錯過"),
    "lateness": Text("Late", "遲到"),
    "total": Text("Ended", "結束"),
    "successful": Text("Succeeded", "成功"),
    "failed": Text("Failed", "失敗"),
    "retried": Text("Retried", "重試"),
    "revoked": Text("Revoked", "撤銷"),
    "rejected": Text("Rejected", "拒絕"),
    "expired": Text("Expired before they started", "開始前過期"),
    "redelivered": Text("Redelivered", "重新投遞"),
    "redelivered_hint": Text("runs that may have happened twice", "可能執行了兩次"),
    "alerts": Text("Alerts", "告警"),
    "no_alerts": Text("No alert fired.", "沒有告警觸發。"),
    "severity": Text("Severity", "嚴重性"),
    "subject": Text("Where", "對象"),
    "fired_from": Text("From", "開始"),
    "fired_until": Text("Until", "結束"),
    "fired_for": Text("Fired for", "持續"),
    "still_firing": Text("still firing", "仍在觸發"),
    "times": Text("Times", "次數"),
    "slot_user": Text("Most slot time", "用掉最多執行槽"),
    "of_queue_slots": Text("of its slots", "這個佇列的執行槽"),
    "of_busy_time": Text("of all busy time", "全部忙碌時間"),
    "capacity": Text("Slots for the wait target", "達到等待目標所需的執行槽"),
    "wait_target": Text("Wait target", "等待目標"),
    "slots_needed": Text("Slots needed", "所需執行槽"),
    "present_slots": Text("Present slots", "現有執行槽"),
    "saved_slot_hours": Text("Slot hours saved", "節省的執行槽小時"),
    "slot_time": Text("Slot time", "執行槽時間"),
    "rows_left_out": Text("more, in JSON and CSV", "筆，見 JSON 與 CSV"),
    "error_rate": Text("Error rate", "錯誤率"),
    "avg_execution": Text("Mean execution", "平均執行時間"),
    "execution": Text("Execution", "執行時間"),
    "wait": Text("Wait", "等待時間"),
    "throughput": Text("Throughput", "吞吐量"),
    "throughput_chart": Text("Tasks per second", "每秒任務數"),
    "execution_chart": Text("Execution of succeeded tasks, ms", "成功任務的執行時間（毫秒）"),
    "queue_chart": Text("Messages waiting by queue", "各佇列等待的訊息數"),
    "ended_rate": Text("ended", "結束"),
    "failed_rate": Text("failed", "失敗"),
    "average": Text("average", "平均"),
    "peak": Text("Peak", "峰值"),
    "budget": Text("Error budget spent", "已用錯誤預算"),
    "objective": Text("objective", "目標"),
    "no_objective": Text("no objective", "未設定目標"),
    "before": Text("against the window before", "相較前一段時間"),
    "advice": Text("Advice", "建議"),
    "no_advice": Text("No advice.", "沒有建議事項。"),
    "evidence": Text("Evidence", "依據"),
    "threshold": Text("threshold", "門檻"),
    "quality": Text("Data quality", "資料品質"),
    "scrapes": Text("Scrapes present", "抓取完整度"),
    "restarts": Text("Exporter restarts", "Exporter 重新啟動"),
    "missed": Text("Events missed", "遺失事件"),
    "disagreement": Text("Tasks that the other exporters did not count", "其他 exporter 未計入的任務"),
    "unsettled": Text(
        "The window has just ended: its last scrapes may still arrive.",
        "這段時間尚未結算：最後的抓取資料可能還會到達。",
    ),
    "no_data": Text("No data in this window.", "這段時間沒有資料。"),
    "busy": Text("Busy", "忙碌"),
    "busy_with_all": Text("Busy with all tasks", "忙碌（所有任務）"),
    "busiest": Text("Busiest", "最忙"),
    "slots": Text("Slots", "執行槽"),
    "begun": Text("Runs begun", "開始執行數"),
    "reserved": Text("Reserved", "預取"),
    "mean_length": Text("Mean length", "平均長度"),
    "max_length": Text("Longest", "最大長度"),
    "queries": Text("The PromQL behind the numbers", "數字背後的 PromQL"),
    "counted": Text(
        "Counts cover the scrapes after the start, up to and including the end.",
        "計數範圍：開始之後、結束（含）之前 Prometheus 抓取到的資料。",
    ),
    "zone": Text("A time without a zone was read as", "未註明時區的時間視為"),
    "unknown": Text("unknown", "未知"),
}
