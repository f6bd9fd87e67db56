"""The event log for other tools: JSON lines, Parquet, and Vowpal Wabbit's DSJSON."""
