"""English word lists for parsing messages; lower case, and without apostrophes where compared with title keys."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


# Words that do not describe what is wanted.
FILLER = _words(
    """
    content contents contain contains
    a able about absolutely actually again all already also am amazing an and another any anybody anymore
    anyone anything are as at avoid awesome awful bad be beautiful because been before best bit bored boring both
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
    advice advise ago appeal appeals available choices clue come comes condition conditions decide
    decision desire either enjoyable exactly fancy favor feel feeling flick folks follow fresh further
    glad gives got guess happy hm hmm hope idea ideas indecisive inspiration inspire joy keen keep
    kindly knows mean means mine minute moment myself nicely none offer offers often open opinion pass
    people picky pleasant pleased pleasure put puts ready requirement requirements restriction restrictions
    search searching seems selection sense seriously share simply spend spot started stuck suit suits
    tastes terms thought thoughts till tip tips unsure usual usually whatever whichever wondering worth
    yours i've i'd we'd we're you're you've anyone uh um er ah oh alright
    released
    added adding agree although along always appreciate based bet called came cant chance chat chatting check chose
    choosing compare comparison considering consider couple day decided definitely doing done down especially everything
    everyone fav finding first forgot fit fits friend friends given going gotta happen hear heard helped helpful helping
    history honestly hopefully hoping however i'd ill im interested into ive last later likely line listed looked lots
    match matched matches matching matter meant mentioned missing morning mostly myself name never night nope once
    order ordered our packed past pair part picked picking picture place present probably profile put quick rank ranked
    ranking rate rated real recall recommending reason related remember remind reminded rest sort sorted select selected
    selecting soon sorry still suggested suggesting supposed talk talking tend therefore thinking told tried try trying
    adore adored adores admire admired after aim alike along close closest closer comparable direct fond guide hand hit
    include includes including lead lines near nearby person point resemble resembling shoot spirit steer taste turn
    vein throw toss
    cut trim shorten shorter reduce narrow limit narrowed whittle longer extend expand
    between two version wait we'll week wonder work works write written yea yep yup top bottom ones among amongst whose
    """
)
# Small words that are kept between two content words of a description.
SMALL_BETWEEN = _words("a about an and as at by for from in into no not of on or the to with without")
# Common words; a title made of these alone is not recognised as a title.
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
    loves named of played read resemble resembles resembling saw seen stand titled to watched
    """
)
# Words that may follow a one-word title.
CLOSERS = _words(
    """
    a again also and are at because both but either if is or over please since so though too very was were which yet
    thank thanks
    """
)
# Words that may stand between a word of taste and a title.
ARTICLES = _words("a an book film movie the")
# Words that exclude what follows.
NEGATIONS = _words(
    """
    abhor arent avoid avoiding ban cannot cant chuck despise detest detested didnt dislike disliked dislikes ditch
    doesnt dont dump except excepting exclude excluded excludes excluding fewer hate hated hates hating hide hold isnt
    less loathe loathed lose minus neither never nix no non nor not nothing omit remove sans shun skip spare veto
    without wont
    """
)
# Word pairs that exclude what follows.
NEGATION_PAIRS = frozenset(
    [
        "all but",
        "allergic to",
        "anything but",
        "apart from",
        "aside from",
        "away from",
        "bored by",
        "bored of",
        "bored with",
        "cant bear",
        "cant take",
        "clear of",
        "cool it",
        "cut back",
        "couldnt bear",
        "couldnt stand",
        "cut down",
        "do without",
        "ease up",
        "easy on",
        "enough of",
        "everything but",
        "fed up",
        "instead of",
        "leave out",
        "light on",
        "other than",
        "pass on",
        "put off",
        "rather than",
        "rid of",
        "shouldnt be",
        "shouldnt have",
        "sick of",
        "stay clear",
        "tired of",
        "tone down",
        "too many",
        "too much",
        "turned off",
        "wouldnt like",
        "wouldnt want",
    ]
)
# Word pairs that contain a negation but exclude nothing.
NOT_NEGATIONS = frozenset(
    [
        "never seen",
        "not seen",
        "havent seen",
        "never watched",
        "cant choose",
        "cant decide",
        "cant find",
        "cant remember",
        "cant think",
        "cant wait",
        "doesnt matter",
        "dont care",
        "dont forget",
        "dont just",
        "dont know",
        "dont mind",
        "dont need",
        "dont only",
        "dont remember",
        "hold on",
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
# Words of TURNS that begin a clause even if nothing has been excluded yet.
CLAUSES = _words("but however i id im just maybe only please though")
# Words that may stand between a negation and what it excludes.
CARRIERS = _words(
    """
    a all am an any anything are at be bear being big by care do dont enjoy ever even fan fond for from get give handle
    have huge in include includes including interested into is it keen like likes looking love massive me mood more
    much not of
    particularly play prefer read really recommend see show so some something stand stomach such suggest that the these
    this those to tolerate too us very want watch with you
    """
)
# Words that are no wish by themselves but belong to the noun after them: `no happy endings`.
DESCRIBING = _words("bad beautiful boring dull good great happy interesting new nice real same stupid weak")
# Negated auxiliary verbs: the next word is a verb, not what is excluded.
HELPING = _words("arent cannot cant couldnt didnt doesnt dont isnt never shouldnt wont wouldnt")
# Words that may stand between the members of a list.
LINKS = _words("a an and any either even maybe nor or the")

NUMBERS = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")
NUMBER_WORDS = {word: number for number, word in enumerate(NUMBERS, start=1)}
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
# starting with the twenties
DECADES = ("twenties", "thirties", "forties", "fifties", "sixties", "seventies", "eighties", "nineties")

# Common words of German, French, Spanish, Italian, Portuguese and Dutch that are not English words.
FOREIGN = _words(
    """
    ich möchte mir mich einen eine einem der das und nicht bitte zeig keine lustigen suche gerne etwas aus ist für
    je voudrais veux un une le les des et pas avec pour moi cherche quelque chose drôle avez vous est dans
    quiero una el los las y con por para gusta busco algo películas película divertida muéstrame sin del
    vorrei il che non di mi piace cerco qualcosa della gli senza divertente mostrami
    eu quero um uma os não com filme filmes gosto algo engraçado sem
    ik wil een het niet graag iets zonder grappige zoek voor van
    """
)
