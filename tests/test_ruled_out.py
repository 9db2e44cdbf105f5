"""What was ruled out is in no list: any value of any catalogue, in any case and number, through every door."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from conftest import make_interactions
from doors import DOORS, Ask, silent, through_chat, through_cli
from typer.testing import CliRunner

from llmrec.app.api.endpoints import Api
from llmrec.app.cli.main import app
from llmrec.data.catalog import Catalog, Item
from llmrec.data.constraints import constraints
from llmrec.data.filter_expressions import parse_conditions, parse_json_filters
from llmrec.data.filters import Filters
from llmrec.dialogue.chat import Chat, Items, Limits, Notice, Token
from llmrec.dialogue.request_parsing import parse_request
from llmrec.errors import RequestError
from llmrec.nlu.parser import parse_message
from llmrec.nlu.state import Session
from llmrec.ranking.fusion import FusedList, Fusion
from llmrec.recommender import Recommender, Request

SAID = (
    "no {}", "not {}", "without {}", "nothing with {}", "except {}", "anything but {}", "I hate {}", "no games with {}",
    "I don't like {}", "I don't want something with {}", "something new without any {} in it",
    "I do not really want {}", "I can't stand {}", "please avoid {}", "{} is not for me",
    "everything except {} please", "neither {}",
)  # fmt: skip
REAL = (
    "Zombies", "RPG", "indie", "Box", "Story Rich", "co-op", "Sci-Fi", "Dr. Seuss", "R&B", "Classic", "4X", "Dish",
    "First-Person", "SHOOT 'EM UP", "War", "Comedy", "Fairy", "St. John, Ltd.",
    "Massively Multiplayer Online Role Playing",
)  # fmt: skip
SYLLABLES = ("ba", "dor", "fli", "gim", "hu", "kel", "lom", "mos", "nar", "pim", "ru", "sel", "tov", "wek", "zan")
CASES = (str, str.lower, str.upper, str.title)


@dataclass(frozen=True, eq=False)
class Stub:
    """A scorer that puts items first whose description holds a word of the message; it keeps what it was asked."""

    catalog: Catalog
    threads: int = 0
    model: Any = None
    embedder: Any = None
    asked: list[str] = field(default_factory=list)

    def query(self, history: np.ndarray, message: str = "") -> Any:
        self.asked.append(message)
        texts = [self.catalog.describe(row).casefold() for row in range(len(self.catalog))]
        scores = np.array([sum(word in text for word in message.casefold().split()) for text in texts], np.float32)

        def top_k(fusion: Fusion, k: int, allowed: np.ndarray) -> FusedList:
            rows = np.array([row for row in np.argsort(-scores, kind="stable") if allowed[row]][:k], np.int64)
            return FusedList(rows, scores[rows], {"words": scores[rows]}, fusion)

        return SimpleNamespace(top_k=top_k)


def stubbed(catalog: Catalog) -> Recommender:
    model = SimpleNamespace(encoder=SimpleNamespace(item_vectors=np.ones((len(catalog), 2), np.float32)))
    fusions = {"history": Fusion({"words": 1.0}), "words": Fusion({"words": 1.0})}
    return Recommender(catalog, make_interactions(n=2), Stub(catalog, model=model), fusions)  # type: ignore[arg-type]


def values(rng: np.random.Generator, n: int) -> list[str]:
    """Different words and phrases in any case, some as shops have them."""
    made: dict[str, str] = {}
    while len(made) < n:
        words = ["".join(rng.choice(SYLLABLES, int(rng.integers(2, 4)))) for _ in range(int(rng.integers(1, 3)))]
        word = str(rng.choice(REAL)) if rng.random() < 0.2 else str(rng.choice([" ", "-"])).join(words)
        made.setdefault(word.casefold(), CASES[int(rng.integers(len(CASES)))](word))
        if n > len(REAL) * 2 and len(made) < 3:
            continue
    return list(made.values())


def shop(rng: np.random.Generator) -> Catalog:
    """1 to 500 tags, and sometimes a second column that shares some of them."""
    tags = values(rng, int(rng.choice([1, 3, 59, 60, 61, 200, 500])))
    kinds = list(rng.permutation(tags)[: int(rng.integers(1, 8))])
    two, n = rng.random() < 0.5, 60
    items = []
    for row in range(n):
        own = tuple(str(one) for one in tags[row::n] or [tags[row % len(tags)]])
        kind = {"genre": (CASES[int(rng.integers(4))](str(kinds[row % len(kinds)])),)} if two else {}
        items.append(Item(f"g{row}", f"Item {row}", "", {"tags": own, **kind}))
    return Catalog(items, "games")


def forms(value: str) -> list[str]:
    """A value as people write it: as it is, in other cases, in the plural or singular."""
    found = [case(value) for case in CASES]
    if value.isalpha() and value.casefold() != "seuss":
        low = value.lower()
        if low.endswith("y") and low[-2] not in "aeou":
            found.append(f"{low[:-1]}ies")
        elif low.endswith(("s", "x", "z", "ch", "sh")):
            found.append(low[:-1] if low.endswith("s") and not low.endswith("ss") and len(low) > 4 else f"{low}es")
        else:
            found.append(f"{low}s")
    return found


def having(catalog: Catalog, value: str) -> set[int]:
    return {
        row
        for row, item in enumerate(catalog.items)
        for one in item.attributes.values()
        if isinstance(one, tuple) and value.casefold() in {word.casefold() for word in one}
    }


def test_nothing_ruled_out_is_in_any_list_0_of_2000() -> None:
    rng = np.random.default_rng(0)
    wrong, tried = [], 0
    while tried < 2_000:
        recommender = stubbed(shop(rng))
        catalog = recommender.catalog
        known = sorted({one for row in catalog.items for many in row.attributes.values() for one in many})  # type: ignore[union-attr]
        for _ in range(50):
            value = str(rng.choice(known))
            message = str(rng.choice(SAID)).format(str(rng.choice(forms(value))))
            name = str(rng.choice([*DOORS, "cli"] if tried % 10 == 0 else [*DOORS]))
            rows = DOORS.get(name, through_cli)(recommender, Ask(message))
            left = set(range(len(catalog))) - having(catalog, value)
            if set(rows) & having(catalog, value) or (left and not rows):
                wrong.append((name, message, value, parse_message(message, catalog, Session("")).filters.describe()))
            tried += 1
    assert not wrong, (len(wrong), wrong[:5])


GAMES = Catalog(
    [
        Item(f"g{n}", f"Game {n}", "", {"genre": (("RPG", "Action", "Puzzle")[n % 3],), "tags": (tag, "Indie")})
        for n, tag in enumerate(
            ["RPG", "Zombies", "rpg", "Robots", "zombies", "Box"] * 3 + [f"Tag {n}" for n in range(70)]
        )
    ],
    "games",
)


ALIKE = (
    "no indie", "robots, no zombies", "an RPG without boxes", "Box or Zombies", "robots", "I loved Game 3",
    "I hated Game 3 and no rpg", "no rpgs, no zombies, under 10 dollars",
)  # fmt: skip


def test_every_door_gives_the_list_of_the_chat() -> None:
    recommender = stubbed(GAMES)
    for message in ALIKE:
        expected = through_chat(recommender, Ask(message))
        for name, door in {**DOORS, "cli": through_cli}.items():
            assert door(recommender, Ask(message)) == expected, (name, message)


def test_a_request_that_was_read_is_not_read_again() -> None:
    once = parse_request(Request(message="robots, no zombies", k=7), GAMES)
    assert once.request.parsed and once.request.message == "robots" and once.request.k == 7
    assert parse_request(once.request, GAMES).request == once.request
    told = Request(message="no zombies", parsed=True)
    assert parse_request(told, GAMES).request == told
    recommender = stubbed(GAMES)
    assert {one.row for one in recommender.recommend(replace(told, k=100))} & having(GAMES, "Zombies")


# ---- a value that stands in two columns


def test_a_value_of_two_columns_goes_and_comes_back_in_both() -> None:
    recommender = stubbed(GAMES)
    chat = Chat(recommender, Limits(default_k=100), silent)
    session = chat.open()

    def rows(text: str) -> set[int]:
        return {row for event in chat.turn(session, text) if isinstance(event, Items) for row in event.rows}

    both = having(GAMES, "RPG")
    assert any("RPG" not in GAMES[row].attributes["genre"] for row in both)  # type: ignore[operator]
    assert rows("no rpg") == set(range(len(GAMES))) - both
    labels = constraints(session.profile.filters)
    assert [one.label for one in labels] == ["no RPG"]
    chat.remove_filter(session, labels[0].key)
    assert session.profile.filters.empty
    rows("no rpg")
    assert rows("rpg is fine after all") == set(range(len(GAMES)))
    assert rows("an rpg please") == both
    assert not rows("no rpg") & both


def test_names_of_several_attributes_mean_any_of_them() -> None:
    assert set(np.flatnonzero(GAMES.where(Filters(all_of={"genre|tags": ("rpg",)})))) == having(GAMES, "RPG")
    assert not set(np.flatnonzero(GAMES.where(Filters(none_of={"genre|tags": ("rpg",)})))) & having(GAMES, "RPG")
    later = Filters(none_of={"genre|tags": ("RPG", "Box")}).merge(Filters(all_of={"tags": ("rpg",)}))
    assert dict(later.none_of) == {"genre|tags": ("Box",)}
    with pytest.raises(RequestError, match=r"no genre or tags 'RPGs'.*choose from"):
        GAMES.where(Filters(any_of={"genre|tags": ("RPGs",)}))
    with pytest.raises(RequestError, match="no attribute 'mood' in this catalogue; it has: genre, tags"):
        GAMES.where(Filters(any_of={"genre|mood": ("RPG",)}))


# ---- what the catalogue does not know


@pytest.mark.parametrize(
    ("text", "wish", "word"),
    [
        ("robots in space, no sequels", "robots in space", "sequels"),
        ("no gore, violence or torture", "", "violence"),
        ("something about trains without happy endings", "trains", "happy endings"),
        ("I don't want anything too violent", "", "violent"),
        ("gore puts me off, something about trains", "trains", "gore"),
        ("nothing with clowns", "", "clowns"),
        ("no politics", "", "politics"),
    ],
)
def test_what_no_value_is_called_is_said_and_not_wished_for(text: str, wish: str, word: str) -> None:
    recommender = stubbed(GAMES)
    read_ = parse_request(Request(message=text), GAMES)
    assert read_.request.message == wish
    assert f"\u201c{word}\u201d" in read_.notices[0]
    assert "the games here have \u201cgenre\u201d and \u201ctags\u201d" in read_.notices[0]
    recommender.recommend(Request(message=text))
    assert recommender.scorer.asked == [wish]  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text",
    ["I'm not convinced, go on.", "I am not sure", "I'm not really hungry", "we're not impressed", "I wasn't amused"],
)
def test_how_the_visitor_feels_is_no_word_that_the_catalogue_lacks(text: str) -> None:
    assert not any("cannot leave that out" in notice for notice in parse_request(Request(message=text), GAMES).notices)


@pytest.mark.parametrize(
    "text",
    ["robots under 10 dollars", "robots released after 2015", "robots for $5 or less", "robots from the nineties",
     "robots, at most 90 minutes", "robots below 3 euros"],
)  # fmt: skip
def test_constraints_that_no_attribute_can_hold_are_said(text: str) -> None:
    chat = Chat(stubbed(GAMES), talk=silent)
    events = list(chat.turn(chat.open(), text))
    assert next(event.items for event in events if isinstance(event, Items))
    (note,) = [event.text for event in events if isinstance(event, Notice)]
    assert note.startswith("I cannot filter by \u201c") and note.endswith(
        "have \u201cgenre\u201d and \u201ctags\u201d."
    )
    said = "".join(event.text for event in events if isinstance(event, Token))
    assert "I can only help" not in said


@pytest.mark.parametrize("text", ["list at least 10", "at most 5 games", "give me 20", "top 10 robots"])
def test_a_number_of_items_is_no_amount(text: str) -> None:
    assert parse_message(text, GAMES, Session("")).notes == ()


def test_a_year_is_looked_for_in_a_date_where_there_is_no_year() -> None:
    dated = Catalog([Item(f"d{n}", f"Game {n}", "", {"released": 20100101 + n * 10_000}) for n in range(10)], "games")
    assert set(parse_request(Request(message="released after 2015"), dated).request.filters.ranges) == {"released"}
    found = np.flatnonzero(dated.where(parse_message("from 2012 to 2014", dated, Session("")).filters))
    assert found.tolist() == [2, 3, 4]


def test_an_exclusion_holds_when_nothing_else_is_left() -> None:
    one = Catalog([Item("a", "Alone", "", {"tags": ("Zombies",)})], "games")
    recommender = stubbed(one)
    for name, door in DOORS.items():
        assert door(recommender, Ask("no zombies")) == (), name
    assert "No games left that fit no Zombies" in parse_request(Request(message="no zombies"), one).notices[0]
    chat = Chat(recommender, talk=silent)
    assert any(
        "no Zombies" in event.text for event in chat.turn(chat.open(), "no zombies") if isinstance(event, Notice)
    )


# ---- wishes are not turned round


@pytest.mark.parametrize(
    ("text", "wanted", "out"),
    [
        ("no rpg but puzzle", {"Puzzle"}, {"RPG"}),
        ("no, show me puzzle", {"Puzzle"}, set()),
        ("no show me puzzle games", {"Puzzle"}, set()),
        ("I hated Game 3, give me puzzle", {"Puzzle"}, set()),
        ("I hated Game 3 show me puzzle", {"Puzzle"}, set()),
        ("I like everything, but how about a puzzle", {"Puzzle"}, set()),
        ("not too long, with robots and puzzle", {"Puzzle", "Robots"}, set()),
        ("I have seen not many games give me puzzle", {"Puzzle"}, set()),
        ("it doesn't need to be an rpg", set(), set()),
        ("I don't mind zombies", set(), set()),
        ("nothing but puzzle", {"Puzzle"}, set()),
    ],
)
def test_where_a_negation_ends(text: str, wanted: set[str], out: set[str]) -> None:
    filters = parse_message(text, GAMES, Session("")).filters
    found = {value for part in (filters.any_of, filters.all_of) for many in part.values() for value in many}
    assert (found, {value for many in filters.none_of.values() for value in many}) == (wanted, out)


def test_a_title_that_is_also_a_value_is_excluded_as_both() -> None:
    twice = Catalog([*GAMES.items, Item("z", "Zombies", "", {"genre": ("Action",)})], "games")
    intent = parse_message("No Zombies please", twice, Session(""))
    assert intent.filters.none_of and not set(np.flatnonzero(twice.where(intent.filters))) & having(twice, "zombies")
    hated = parse_message("I hated Zombies", twice, Session(""))  # that was one game, and not a kind of them
    assert [twice[row].title for row in hated.disliked] == ["Zombies"] and hated.filters.empty


# ---- filters by hand


TYPED = Catalog(
    [
        Item(f"t{n}", f"Toy {n}", "", {"kind": (("Doll", "Car")[n % 2],), "year": 1990 + n, "released": 20200101 + n})
        for n in range(10)
    ],
    "toys",
)


@pytest.mark.parametrize(
    ("where", "exclude", "json_", "rows"),
    [
        (["kind=doll"], [], {"all_of": {"kind": ["doll"]}}, [0, 2, 4, 6, 8]),
        (["kind=Doll|Car", "year>=1997"], [],
         {"any_of": {"kind": ["Doll", "Car"]}, "ranges": {"year": [1997, None]}}, [7, 8, 9]),
        (["year<=1992"], ["kind=Car"], {"none_of": {"kind": ["Car"]}, "ranges": {"year": [None, 1992]}}, [0, 2]),
        (["kind!=Doll", "Year = 1993"], [], {"none_of": {"KIND": ["doll"]}, "ranges": {"year": [1993, 1993]}}, [3]),
        (["released>=2020-01-09"], ["year=1999"],
         {"none_of": {"year": ["1999"]}, "ranges": {"released": [20200109, None]}}, [8]),
        ([], [], {}, list(range(10))),
    ],
)  # fmt: skip
def test_filters_by_hand_and_as_json_mean_the_same(
    where: list[str], exclude: list[str], json_: dict[str, Any], rows: list[int]
) -> None:
    assert np.flatnonzero(TYPED.where(parse_conditions(where, exclude, TYPED))).tolist() == rows
    assert np.flatnonzero(TYPED.where(parse_json_filters(json_, TYPED))).tolist() == rows


@pytest.mark.parametrize(
    ("where", "exclude", "words"),
    [
        (["kind"], [], "'kind' is no condition; write attribute=value"),
        (["mood=Dark"], [], "no attribute 'mood' in this catalogue; it has: kind, released, year"),
        (["kind=Ball"], [], "no kind 'Ball' in this catalogue; choose from: Car, Doll"),
        (["year>=soon"], [], "year 'soon' is no number"),
        (["kind>=3"], [], "attribute 'kind' holds words, not numbers; ranges work on: released, year"),
        (["released>=May"], [], "released 'May' is no date; write it as 2013-05-01"),
        ([], ["year>=1990"], "nothing to exclude; write attribute=value"),
        (["kind=Doll|Car", "kind=Car|Doll"], [], "second choice of one attribute"),
        (["x" * 300], [], "300 characters"),
        (["year>=1"] * 101, [], "101 conditions; give at most 100"),
    ],
)
def test_what_is_wrong_with_a_condition_is_said_in_one_line(where: list[str], exclude: list[str], words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_conditions(where, exclude, TYPED)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["kind=Doll"], "filters are of type list"),
        ({"kind": ["Doll"]}, "filters have no part 'kind'; the parts are any_of, all_of, none_of and ranges"),
        ({"any_of": ["Doll"]}, "any_of is ['Doll']; it must be an object"),
        ({"none_of": {"kind": "Doll"}}, "none_of of 'kind' is 'Doll'; it must be a list of texts"),
        ({"none_of": {"kind": [1]}}, "it must be a list of texts"),
        ({"none_of": {"kind": ["Ball"]}}, "no kind 'Ball' in this catalogue; choose from: Car, Doll"),
        ({"ranges": {"year": 1990}}, "the range of 'year' is 1990; it must be [low, high]"),
        ({"ranges": {"year": [True, None]}}, "it must be [low, high]"),
        ({"ranges": {"year": [float("nan"), None]}}, "it must be [low, high]"),
        ({"ranges": {"kind": [1, 2]}}, "attribute 'kind' holds words"),
        ({"any_of": {"kind": ["Doll"] * 101}}, "list of texts"),
        ({"any_of": {f"a{n}": [] for n in range(3)}}, "no attribute 'a0'"),
    ],
)
def test_what_is_wrong_with_json_filters_is_said_in_one_line(given: object, words: str) -> None:
    with pytest.raises(RequestError) as caught:
        parse_json_filters(given, TYPED)
    assert words in str(caught.value) and "\n" not in str(caught.value)


def test_filters_hold_whatever_the_message_says(monkeypatch: pytest.MonkeyPatch) -> None:
    recommender = stubbed(GAMES)
    monkeypatch.setattr(Recommender, "from_pretrained", staticmethod(lambda _: recommender))
    for message in ("I want zombies", "Zombies or Box", "robots"):
        assert not set(through_cli(recommender, Ask(message), "--exclude", "tags=Zombies")) & having(GAMES, "zombies")
        held = Filters(none_of={"tags": ("Zombies",)})
        assert not {one.row for one in recommender.recommend(Request((), message, held, k=100))} & having(
            GAMES, "zombies"
        )
    only = recommender.recommend(Request((), "Box or Zombies", Filters(any_of={"tags": ("zombies", "Robots")}), k=100))
    assert {one.row for one in only} == having(GAMES, "zombies")
    done = CliRunner().invoke(app, ["recommend", "--where", "tags=Nothing"])
    assert isinstance(done.exception, RequestError) and "no tags 'Nothing'" in str(done.exception)
    api = Api(SimpleNamespace(chat=Chat(recommender)))  # type: ignore[arg-type]
    answer = api.recommend(
        [], "", "", 100, {"all_of": {"genre": ["Puzzle"], "tags": ["RPG"]}, "none_of": {"tags": ["indie"]}}
    )
    assert answer["items"] == [] and answer["notices"] == [
        "no games left that fit genre Puzzle, tags RPG, not tags indie"
    ]
