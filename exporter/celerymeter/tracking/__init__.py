"""The pure core: what tasks and workers are doing, and what was missed. No I/O, no threads; time is an argument."""
