"""Natural-language understanding: titles, attribute values, numbers, opinions and references in messages."""
