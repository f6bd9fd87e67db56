"""The read-only MCP server: asks a running service, and answers in words with figures."""
