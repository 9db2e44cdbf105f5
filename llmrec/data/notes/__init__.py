"""Item notes as package data: the schemas of notes, and the notes on MovieLens-100k."""
