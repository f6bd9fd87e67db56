"""Data that is imported or exported: recordings, tables, other systems' logs, the event log."""
