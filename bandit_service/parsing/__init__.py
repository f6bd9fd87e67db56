"""Text of other people: decoded and checked, with every mistake named and what was meant."""
