"""The kinds of events, by what they are about; `core.events` has all of them."""
