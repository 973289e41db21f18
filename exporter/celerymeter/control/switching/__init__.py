"""Task events on and off: `switch` tells the workers, `taskevents` (pure) judges by what arrives."""
