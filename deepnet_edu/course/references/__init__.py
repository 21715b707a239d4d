"""Reference answers, a module per lesson, cut from solutions/ by ``make build``."""
