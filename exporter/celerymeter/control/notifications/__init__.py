"""Alerts from Alertmanager: taken by a webhook, logged, `kept`, and sent to the feed by `tail`."""
