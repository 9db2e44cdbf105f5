"""A catalogue of well-known films and a recommender without a model, for tests of conversation and page."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

from llmrec.data.catalog import Catalog, Item
from llmrec.recommender import Recommendation, Request

_FILMS = """\
Toy Story|1995|Animation,Children's,Comedy
Aladdin|1992|Animation,Children's,Musical
The Lion King|1994|Animation,Children's,Musical
Alien|1979|Action,Horror,Sci-Fi,Thriller
Aliens|1986|Action,Sci-Fi,Thriller,War
Blade Runner|1982|Film-Noir,Sci-Fi
Star Wars|1977|Action,Adventure,Romance,Sci-Fi,War
The Empire Strikes Back|1980|Action,Adventure,Drama,Romance,Sci-Fi,War
Back to the Future|1985|Comedy,Sci-Fi
The Terminator|1984|Action,Sci-Fi,Thriller
Terminator 2: Judgment Day|1991|Action,Sci-Fi,Thriller
The Shining|1980|Horror
Psycho|1960|Horror,Romance,Thriller
Scream|1996|Horror,Thriller
Heat|1995|Action,Crime,Thriller
The Godfather|1972|Action,Crime,Drama
Goodfellas|1990|Crime,Drama
Pulp Fiction|1994|Crime,Drama
Fargo|1996|Crime,Drama,Thriller
Casablanca|1942|Drama,Romance,War
Schindler's List|1993|Drama,War
Sense and Sensibility|1995|Drama,Romance
Sabrina|1954|Comedy,Romance
Sabrina|1995|Comedy,Romance
Groundhog Day|1993|Comedy,Romance
When Harry Met Sally...|1989|Comedy,Romance
Four Weddings and a Funeral|1994|Comedy,Romance
Singin' in the Rain|1952|Musical,Romance
Some Like It Hot|1959|Comedy,Crime
Unforgiven|1992|Western
Men in Black|1997|Action,Adventure,Comedy,Sci-Fi
Il Postino (The Postman)|1994|Drama,Romance
"""


def films(domain: str = "films") -> Catalog:
    """Thirty-two films with year and genre."""
    items = []
    for number, line in enumerate(_FILMS.splitlines(), start=1):
        title, year, genres = line.split("|")
        items.append(Item(f"f{number}", title, "", {"year": int(year), "genre": tuple(genres.split(","))}))
    return Catalog(items, domain)


class FakeRecommender:
    """Lists allowed rows, those that share a genre with the history first; keeps what it was asked."""

    def __init__(self, catalog: Catalog | None = None, words: Sequence[str] = ("They ", "fit ", "well.")) -> None:
        self.catalog = catalog or films()
        self.words = list(words)
        self.requests: list[Request] = []
        self.dialogues: list[list[tuple[str, str]]] = []
        self.users: tuple[str, ...] = ("7", "12", "196")
        self.model_card: dict[str, object] = {"name": "fake"}
        self.gate: threading.Event | None = None

    def history_of(self, user_id: str) -> tuple[int, ...]:
        return {"7": (3, 5), "12": (0, 1, 2), "196": (15, 16)}[user_id]

    def recommend(self, request: Request) -> list[Recommendation]:
        self.requests.append(request)
        gone = set(request.exclude) | (set(request.history) if request.unseen else set())
        liked = {genre for row in request.history for genre in self._genres(row)}
        fits = [int(row) for row in self.catalog.where(request.filters).nonzero()[0] if int(row) not in gone]
        fits.sort(key=lambda row: (-len(liked & set(self._genres(row))), row))
        return [self._one(row, place, liked) for place, row in enumerate(fits[: request.k])]

    def look_up(self, text: str, n: int = 6) -> list[int]:
        return [row for row in range(len(self.catalog)) if set(text.split()) & set(self._genres(row))][:n]

    def talk(
        self,
        dialogue: Sequence[tuple[str, str]],
        shown: Sequence[Recommendation],
        max_tokens: int,
        stop: threading.Event | None = None,
    ) -> Iterator[str]:
        self.dialogues.append(list(dialogue))
        for word in self.words[:max_tokens]:
            if self.gate is not None:
                self.gate.wait(5)
            if stop is not None and stop.is_set():
                return
            yield word

    def _genres(self, row: int) -> tuple[str, ...]:
        value = self.catalog[row].attributes.get("genre", ())
        return value if isinstance(value, tuple) else ()

    def _one(self, row: int, place: int, liked: set[str]) -> Recommendation:
        shared = sorted(liked & set(self._genres(row)))
        reason = f"Shares {', '.join(shared)} with what you liked" if shared else "Popular with many viewers"
        return Recommendation(row, 1.0 / (place + 1), "llm", reason)
