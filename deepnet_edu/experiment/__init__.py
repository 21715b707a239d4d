"""A run by its name or its TOML file, from tables to its end."""
