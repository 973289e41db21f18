"""The WebSocket feed: `hub` distributes messages, `session` serves one client, `websocket` moves its bytes."""
