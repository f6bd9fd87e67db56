"""Drop-in use: the wire format of OpenAI in front of any arm."""
