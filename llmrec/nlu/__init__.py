"""Reading of messages: titles, attribute values, numbers, opinions and references in English."""
