"""Sentences of the advice in a report: the observation, and what to do; `formatting` fills the placeholders."""

from __future__ import annotations

from celerymeter.reports.texts import Text

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
            "Add workers that consume this queue, or send fewer tasks to it.",
            "請增加這個佇列的消費者，或減少送入的任務。",
        ),
    ),
    "waits_too_long": (
        Text(
            "One in twenty tasks of the queue {subject} waited {value} or longer; the target is {threshold}.",
            "佇列 {subject} 每二十個任務就有一個等待 {value} 以上；目標是 {threshold}。",
        ),
        Text(
            "Add workers that consume this queue, or make the tasks that use its slots faster.",
            "請增加這個佇列的 Worker，或讓佔用執行槽的任務更快完成。",
        ),
    ),
    "slots_taken": (
        Text(
            "While tasks of the queue {subject2} waited too long, {subject} used most slot time: {value}.",
            "佇列 {subject2} 的任務等待過久時，用掉最多執行槽時間的是 {subject}：{value}。",
        ),
        Text(
            "Give it a queue and workers of its own, or find out why it takes longer or runs more often than usual.",
            "請給它專用的佇列與 Worker，或查明它為何比平常更久、更頻繁。",
        ),
    ),
    "tasks_redelivered": (
        Text(
            "{value} runs of {subject} began again without a retry: these tasks may have run twice.",
            "{subject} 有 {value} 次執行未經重試就再次開始：這些任務可能執行了兩次。",
        ),
        Text(
            "Set visibility_timeout longer than the longest task and ETA, look for lost connections, and run one beat.",
            "請將 visibility_timeout 設定為大於最長的任務與 ETA，檢查是否斷線，並確認只有一個 beat。",
        ),
    ),
    "tasks_expired": (
        Text(
            "{value} of the tasks of {subject} expired before a worker started them.",
            "{subject} 有 {value} 的任務在開始前就已過期。",
        ),
        Text(
            "Add workers for their queue, or let them expire later.",
            "請增加其佇列的 Worker，或延長它們的期限。",
        ),
    ),
    "long_tail": (
        Text(
            "The slowest 1% of the runs of {subject} take {value} or longer, at least ten times the median.",
            "{subject} 每一百次執行就有一次需要 {value} 以上，是平常的十倍以上。",
        ),
        Text(
            "Find the arguments that make it slow, set a soft time limit, or split the task.",
            "請找出造成緩慢的輸入，設定軟性時間限制，或拆分任務。",
        ),
    ),
    "retry_storm": (
        Text(
            "{subject} was retried often: {value} of the number of runs that ended.",
            "{subject} 的重試次數達到結束次數的 {value}。",
        ),
        Text(
            "Retry with exponential backoff and jitter, limit the retries, and repair the service that the task calls.",
            "請使用指數退避與隨機抖動、限制重試次數，並修復它所呼叫的服務。",
        ),
    ),
    "task_eats_pool": (
        Text("{subject} used {value} of all execution time.", "{subject} 佔了全部執行時間的 {value}。"),
        Text(
            "Give it a queue and workers of its own, so that other tasks do not wait behind it.",
            "請給它專用的佇列與 Worker，避免其他任務排在後面等待。",
        ),
    ),
    "idle_workers": (
        Text(
            "The workers were {value} busy on average, and the busiest worker {value2} at most.",
            "Worker 平均只有 {value} 的執行槽忙碌，最忙的 Worker 最高也只有 {value2}。",
        ),
        Text(
            "Fewer workers or slots are enough; with autoscaling, lower the minimum.",
            "可以減少 Worker 或執行槽；若使用自動擴縮，請調低下限。",
        ),
    ),
    "prefetch_hoarding": (
        Text(
            "{subject} had {value} messages reserved on average while {subject2} was only {value2} busy.",
            "{subject} 預取並保留了 {value} 則訊息，而 {subject2} 只有 {value2} 忙碌。",
        ),
        Text(
            "Lower worker_prefetch_multiplier (1 for long tasks), and consider task_acks_late.",
            "請調低 worker_prefetch_multiplier（耗時任務設為 1），並考慮 task_acks_late。",
        ),
    ),
    "redelivery_risk": (
        Text(
            "A message was unacknowledged for {value}, over 80% of the visibility timeout of Redis.",
            "有訊息長達 {value} 未被確認，已超過 Redis visibility_timeout 的 80%。",
        ),
        Text(
            "Set visibility_timeout longer than the longest task and the longest ETA; otherwise tasks run twice.",
            "請將 visibility_timeout 設定為大於最長的任務與 ETA，否則任務會執行兩次。",
        ),
    ),
    "events_missing": (
        Text(
            "The events of {value} task runs were lost, so all counts are too low by that number.",
            "有 {value} 次任務執行的事件未送達，所有計數都少了這些。",
        ),
        Text(
            "Start every worker with -E or POST /monitoring/start, and check the output buffer limits of the broker.",
            "請以 -E 啟動每個 Worker 或呼叫 POST /monitoring/start，並檢查 broker 的輸出緩衝限制。",
        ),
    ),
    "error_budget_spent": (
        Text(
            "Failures used {value} of the error budget. Most of them were in {subject}.",
            "失敗數已用掉目標容許量的 {value}；失敗最多的是 {subject}。",
        ),
        Text(
            "Start with the task that fails most; the Tasks dashboard shows its exceptions.",
            "請先修復失敗最多的任務；例外類別可在 Tasks 儀表板查看。",
        ),
    ),
}
