"""Data from elsewhere and for elsewhere: recordings, tables, other systems' logs, the event log."""
