"""Performance reports over HTTP: asked for, kept, and read again."""
