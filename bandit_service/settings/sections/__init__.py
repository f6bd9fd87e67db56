"""The sections of the configuration file: every key with its default and what is allowed."""
