"""A batch reported afterwards: one HTML page, its pictures and summary, and JUnit's file for CI."""
