"""Sentences of reports, in English and in Traditional Chinese. Placeholders are formatted by `language`."""

from __future__ import annotations

from typing import NamedTuple


class Text(NamedTuple):
    """One sentence in each language."""

    en: str
    zh: str


ADVICE: dict[str, tuple[Text, Text]] = {
    "pool_saturated": (
        Text(
            "The workers were {value} busy on average while {value2} messages waited.",
            "Worker 平均有 {value} 的執行槽忙碌，同時有 {value2} 則訊息在等待。",
        ),
        Text(
            "Add workers or slots, or move long tasks to a queue of their own.",
            "請增加 Worker 或執行槽，或將耗時任務移到專用佇列。",
        ),
    ),
    "queue_not_draining": (
        Text(
            "The queue {subject} grew to {value} messages and did not drain.",
            "佇列 {subject} 增加到 {value} 則訊息，沒有消化完。",
        ),
        Text(
            "Give this queue more consumers, or send less to it.",
            "請增加這個佇列的消費者，或減少送入的任務。",
        ),
    ),
    "long_tail": (
        Text(
            "One in a hundred runs of {subject} takes {value} or longer, ten times the usual and more.",
            "{subject} 每一百次執行就有一次需要 {value} 以上，是平常的十倍以上。",
        ),
        Text(
            "Look for the inputs that make it slow, set a soft time limit, or split it.",
            "請找出造成緩慢的輸入，設定軟性時間限制，或拆分任務。",
        ),
    ),
    "retry_storm": (
        Text(
            "{subject} was retried {value} as often as it ended.",
            "{subject} 的重試次數達到結束次數的 {value}。",
        ),
        Text(
            "Retry with exponential backoff and jitter, cap the retries, and mend what it calls.",
            "請使用指數退避與隨機抖動、限制重試次數，並修復它所呼叫的服務。",
        ),
    ),
    "task_eats_pool": (
        Text(
            "{subject} took {value} of all execution time.",
            "{subject} 佔了全部執行時間的 {value}。",
        ),
        Text(
            "Give it a queue and workers of its own, so that other tasks do not wait behind it.",
            "請給它專用的佇列與 Worker，避免其他任務排在後面等待。",
        ),
    ),
    "idle_workers": (
        Text(
            "The workers were {value} busy on average and {value2} at the most.",
            "Worker 平均只有 {value} 的執行槽忙碌，最高也只有 {value2}。",
        ),
        Text(
            "Fewer workers or slots would do; with autoscaling, lower the minimum.",
            "可以減少 Worker 或執行槽；若使用自動擴縮，請調低下限。",
        ),
    ),
    "prefetch_hoarding": (
        Text(
            "{subject} held {value} messages in reserve while {subject2} was only {value2} busy.",
            "{subject} 預取並保留了 {value} 則訊息，而 {subject2} 只有 {value2} 忙碌。",
        ),
        Text(
            "Lower worker_prefetch_multiplier (1 for long tasks), and consider task_acks_late.",
            "請調低 worker_prefetch_multiplier（耗時任務設為 1），並考慮 task_acks_late。",
        ),
    ),
    "redelivery_risk": (
        Text(
            "A message stayed unacknowledged for {value}; Redis redelivers soon after {threshold}.",
            "有訊息 {value} 未被確認；接近 {threshold} 之後 Redis 可能重新投遞。",
        ),
        Text(
            "Raise visibility_timeout above the longest task and the longest ETA, or tasks will run twice.",
            "請將 visibility_timeout 設定為大於最長的任務與 ETA，否則任務會執行兩次。",
        ),
    ),
    "events_missing": (
        Text(
            "The events of {value} task runs never arrived: all counts are short by them.",
            "有 {value} 次任務執行的事件未送達，所有計數都少了這些。",
        ),
        Text(
            "Start every worker with -E or POST /monitoring/start, and look at the broker's output buffer limits.",
            "請以 -E 啟動每個 Worker 或呼叫 POST /monitoring/start，並檢查 broker 的輸出緩衝限制。",
        ),
    ),
    "error_budget_spent": (
        Text(
            "Failures used {value} of what the objective allows; most failed in {subject}.",
            "失敗數已用掉目標容許量的 {value}；失敗最多的是 {subject}。",
        ),
        Text(
            "Mend the most failing task first; its exceptions are on the Tasks dashboard.",
            "請先修復失敗最多的任務；例外類別可在 Tasks 儀表板查看。",
        ),
    ),
}

NOTES: dict[str, Text] = {
    "no_scrapes": Text(
        "Prometheus holds no scrape of an exporter in this window: none was made, or it is beyond retention.",
        "Prometheus 在這段時間內沒有任何 exporter 的抓取資料：當時沒有抓取，或已超過保留期限。",
    ),
    "base_missing": Text(
        "The exporter was up before the window, but no scrape of that time is left to count from.",
        "Exporter 在這段時間之前就已啟動，但沒有當時的抓取資料可作為計數起點。",
    ),
    "nothing_ended": Text("No task ended in this window.", "這段時間內沒有任務結束。"),
    "nothing_succeeded": Text("No task succeeded in this window.", "這段時間內沒有任務成功。"),
    "not_watched_before": Text(
        "The window before was not watched throughout, so nothing is compared with it.",
        "前一段時間並未全程監看，因此不與它比較。",
    ),
    "not_measured": Text("Prometheus has no run times of these tasks.", "Prometheus 沒有這些任務的執行時間資料。"),
    "no_waits": Text(
        "No wait was measured: workers or producers send no task-sent events.",
        "沒有量測到等待時間：producer 未送出 task-sent 事件。",
    ),
    "no_history": Text(
        "Too many series to read step by step, and no recorded series: load the shipped recording rules.",
        "序列過多，無法逐步讀取，也沒有預先記錄的序列：請載入隨附的 recording rules。",
    ),
    "scrapes_missing": Text(
        "Some scrapes of the window are missing; what ended in between is counted at the next scrape.",
        "這段時間缺少部分抓取；期間結束的任務會計入下一次抓取。",
    ),
    "events_missed": Text(
        "Events of some task runs never arrived; counts are short by them.",
        "部分任務執行的事件未送達，計數因此偏少。",
    ),
    "series_folded": Text(
        "Some names went beyond a cap of the exporter and are counted as __other__.",
        "部分名稱超過 exporter 的上限，計入 __other__。",
    ),
    "late_base": Text(
        "The last scrape before the window is more than an hour older; what ended since then is in the figures.",
        "這段時間之前的最後一次抓取早了一小時以上；其間結束的任務也計入本報告。",
    ),
    "restarted": Text(
        "The exporter restarted; what ended between its last scrape and the restart is not in the figures.",
        "Exporter 曾重新啟動；最後一次抓取到重啟之間結束的任務不在計數內。",
    ),
    "exporters_disagree": Text(
        "Exporters on one broker counted differently. The figures are those of the one that counted most.",
        "同一個 broker 的多個 exporter 計數不一致；數字取自計數最多的那一個。",
    ),
    "query_warnings": Text("Prometheus answered with warnings.", "Prometheus 的回應帶有警告。"),
    "peak_recorded": Text(
        "The peak is of recorded five-minute means of succeeded and failed tasks.",
        "峰值取自預先記錄的五分鐘平均（成功與失敗的任務）。",
    ),
    "execution_not_drawn": Text(
        "Execution over time is left out: too many series for this window.",
        "未繪製執行時間曲線：這段時間的序列過多。",
    ),
}

VERDICTS: dict[str, Text] = {
    "complete": Text("The figures are complete.", "資料完整。"),
    "limited": Text("The figures are right within the limits that are named.", "在所列的限制內，數字是正確的。"),
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
    "total": Text("Ended", "結束"),
    "successful": Text("Succeeded", "成功"),
    "failed": Text("Failed", "失敗"),
    "retried": Text("Retried", "重試"),
    "revoked": Text("Revoked", "撤銷"),
    "rejected": Text("Rejected", "拒絕"),
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
    "before": Text("against the window before", "相較前一段時間"),
    "advice": Text("Advice", "建議"),
    "no_advice": Text("Nothing to advise.", "沒有建議事項。"),
    "evidence": Text("Evidence", "依據"),
    "threshold": Text("threshold", "門檻"),
    "quality": Text("Data quality", "資料品質"),
    "scrapes": Text("Scrapes present", "抓取完整度"),
    "restarts": Text("Exporter restarts", "Exporter 重新啟動"),
    "missed": Text("Events missed", "遺失事件"),
    "disagreement": Text("Tasks that other exporters did not count", "其他 exporter 未計入的任務"),
    "unsettled": Text(
        "The window is not settled: its last scrapes may still arrive.",
        "這段時間尚未結算：最後的抓取資料可能還會到達。",
    ),
    "no_data": Text("No data in this window.", "這段時間沒有資料。"),
    "busy": Text("Busy", "忙碌"),
    "busiest": Text("Busiest", "最忙"),
    "slots": Text("Slots", "執行槽"),
    "begun": Text("Runs begun", "開始執行數"),
    "reserved": Text("Reserved", "預取"),
    "mean_length": Text("Mean length", "平均長度"),
    "max_length": Text("Longest", "最大長度"),
    "queries": Text("The PromQL behind the figures", "數字背後的 PromQL"),
    "counted": Text(
        "Counted is what Prometheus scraped after the start, up to and including the end.",
        "計數範圍：開始之後、結束（含）之前 Prometheus 抓取到的資料。",
    ),
    "zone": Text("A time without zone was taken as", "未註明時區的時間視為"),
    "unknown": Text("unknown", "未知"),
}
