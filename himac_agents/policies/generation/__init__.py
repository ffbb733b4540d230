"""How local models write: decoding, the key-value cache, constrained answers."""
