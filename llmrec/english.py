"""English word lists for reading a turn; lower case, and without apostrophes where they meet title keys."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that carry no description of what is wanted.
FILLER = _words(
    """
    a about absolutely actually again all already also am amazing an and another any anybody anymore
    anyone anything are as at avoid awesome awful bad be beautiful because been best bit bored boring both
    brilliant but by can can't cannot choice choose cool could decade decent did didn't different
    disappointing dislike disliked do does doesn't don't dont drop dull each either else enjoy enjoyed
    enough even evening ever every excellent except fan fantastic favorite favorites favour favourite
    favourites few film-like filter filters find fine for from fun gave genre genres get give go gonna
    good got great had has hate hated have haven't he hello help her here hey hi him his horrible how i
    i'd i'll i'm i've if in instead interesting is isn't it it's its just kind kinda know lately least
    less let let's like liked likes list little look looking looks lot love loved lovely made make many
    may maybe me might mind mood more most movie-night much must my need neither new next nice night no
    none nor not nothing now of off oh ok okay on one ones only option options or other others our out
    over overrated perhaps pick picks please pls possible prefer preferably previous quite rather really
    recently recommend recommendation recommendations recommended recommends remove right rubbish same saw
    say see seen set shall she should show similar since so some somebody someone something sort sound
    sounds stuff stupid style such suggest suggestion suggestions superb sure surprise take tell terrible
    than thank thanks that that's the their them then there these they thing things think this those
    though time title titles to today together tonight too top totally try type types under until up us
    twice once times used very via wanna
    want wanted was wasn't watch watched watching way we weak weekend well were what
    what's when where which while who whole why will wish with without wonderful worst would yeah year
    years yes yet you your
    """
)
# Words too common for a title made of them alone to be taken for one.
SMALL = _words(
    """
    a about after all am an and angel any anything are as at bad be been before best big boy but by day
    did do down everything film films fire first for from fun get girl give go good got great he head
    heart hello help her here hi him his home house how i im in into is it its just last let life like
    list little long love make man me money more most movie movies my new next night no not nothing now of
    off ok okay old on one only or other out over people please same see seen she short show so some
    something speed star thanks that the them then there these they thing things think this those time to
    today tonight too up us very want was we were what when where which who why with woman work world yes
    you your
    """
)
# A lower-case phrase after one of these is a description (`a love story`), not a title.
INDEFINITE = _words("a an another any some")
# Words after which a bare word may be a title.
TASTE = _words(
    """
    adore adored as called dislike disliked enjoy enjoyed hate hated hates is like liked likes love loved
    loves named of played read saw seen stand titled to watched
    """
)
# Words that may follow a one-word title.
CLOSERS = _words(
    """
    a also and are because both but either is or please since so though too very was were which yet
    """
)
# Words between a word of taste and a title.
ARTICLES = _words("a an book film movie the")
# Words that exclude what follows.
NEGATIONS = _words(
    """
    arent avoid cant didnt dislike doesnt dont except excluding hate hates isnt less minus neither never
    no non nor not nothing skip without wont
    """
)
# Pairs that exclude what follows.
NEGATION_PAIRS = frozenset(
    [
        "anything but",
        "apart from",
        "instead of",
        "other than",
        "rather than",
        "sick of",
        "tired of",
    ]
)
# Pairs that hold a negation and exclude nothing.
NOT_NEGATIONS = frozenset(
    [
        "doesnt matter",
        "dont care",
        "dont know",
        "dont mind",
        "no idea",
        "no matter",
        "no preference",
        "no problem",
        "not bad",
        "not just",
        "not necessarily",
        "not only",
        "not sure",
        "nothing but",
        "why not",
    ]
)
# Words at which an exclusion ends.
TURNS = _words(
    """
    but give however i id im just maybe only please prefer recommend show something though want with
    """
)
# Words that may stand between the members of a list.
LINKS = _words("a an and any either even maybe nor or the")

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
ORDINALS = (
    "first",
    "second",
    "third",
    "fourth",
    "fifth",
    "sixth",
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
)
# from the twenties on
DECADES = ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")
