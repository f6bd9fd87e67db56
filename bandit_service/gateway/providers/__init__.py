"""One file a provider's dialect."""
