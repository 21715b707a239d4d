"""Many notebooks at once: planned, run in slots, audited, resumed, and reported."""
