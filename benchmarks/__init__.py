"""Measurements against peers and physical floors; run as programs, results in results/."""
