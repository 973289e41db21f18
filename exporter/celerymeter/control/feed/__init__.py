"""The WebSocket feed: `hub` distributes messages, `views` serves a client of it, `websocket` moves its bytes."""
