"""Evidence about single tasks: events, the result backend, what workers hold, and what the broker keeps."""
