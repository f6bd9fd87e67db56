"""What was decided, earned and spent, by hour, day, week or month: read from the log."""
