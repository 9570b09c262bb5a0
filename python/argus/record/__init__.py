"""What stays: journal, keys, verification."""
