"""The embedding stage, its backends, and the rules of what is embedded."""
