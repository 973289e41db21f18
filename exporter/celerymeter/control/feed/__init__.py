"""The WebSocket feed.

`hub` distributes messages, `sampler` gives it snapshots, `views` serves a client, and `websocket` moves the bytes.
"""
