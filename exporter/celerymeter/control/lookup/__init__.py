"""The look-up of one task: where is it, and why has it not run? It reads and changes nothing."""
