"""Decodes and checks text from outside; errors name every mistake and suggest what was meant."""
