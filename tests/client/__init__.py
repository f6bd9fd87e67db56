"""The client, against real services and real servers that misbehave."""
