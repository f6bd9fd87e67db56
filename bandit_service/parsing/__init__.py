"""Text of other people: decoded, unpacked, split into cells, checked, with every mistake named."""
