"""The WebSocket feed: `hub` knows who gets what, `session` serves one client, `websocket` moves its bytes."""
