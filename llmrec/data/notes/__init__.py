"""Item notes as data: schemas of what a note may say, and the notes on MovieLens-100k."""
