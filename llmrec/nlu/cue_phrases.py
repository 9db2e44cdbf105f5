"""Cue phrases of dialogue acts: a question, a request for others, a change of mind, a constraint dropped.

Patterns over lower-case text with straight apostrophes.
"""

from __future__ import annotations

import re

WHY = re.compile(
    r"^(?:(?:but|and|so|please|hey|well|ok(?:ay)?|hmm|oh)\b[,!. ]*)*(?:why|how come|explain|justify"
    r"|for what reason)\b(?! not)"
    r"|\bwhy (?:that|this|these|those|did you|do you|are|is|the|#|number|no\.|item)"
    r"|\b(?:did you (?:pick|choose|recommend|suggest)|(?:can|could|would) you (?:explain|justify))\b"
    r"|\b(?:reasons?|reasoning|thinking|logic|idea) (?:for|behind|why)\b|\btell me why\b|\bwhy on earth\b"
    r"|\bon what basis\b"
    r"|\bwhat ma(?:de|kes) you (?:choose|pick|think|suggest|recommend|believe|list|show)\b"
    r"|\bhow did you (?:come up with|choose|pick|find|get|arrive at|make|select)\b"
    r"|\bwhat(?:'s| is| was) (?:the|your) (?:idea|thinking|logic|reason|reasoning)\b"
)
MORE = re.compile(
    r"\b(?:something else|anything else|what else|(?:some |any |the |show me |see |for )?others\b"
    r"|another(?: one(?! (?:i|we|that i|of my)\b)| list| set| batch|(?! one\b))"
    r"|any other (?:ideas?|suggestions?|options?|ones?|recommendations?)|other (?:ideas|suggestions|options|ones)"
    r"|alternatives?|keep going|go on|carry on|next batch|next page|next list|next set"
    r"|(?:a |some )?fresh (?:list|ones?|set|batch)|(?:^any|got any|have any|there any|some|a few|few|even"
    r"|\d) more\b(?! like| recent| than)"
    r"|(?:show me|give me|show|let's see|let me see) more\b(?! like| recent| than| of)"
    r"|(?<!no )more(?=\s*(?:$|[.,!?:]|please|thanks|thank you|if possible))|next(?: ones?)?(?=\s*(?:$|[.,!?:]"
    r"|please|thanks))"
    r"|(?:a |something |some(?:thing)? |show me )?different(?: ones?| list| set| selection)?"
    r"|none of (?:these|those|them|this|that)(?: (?:appeals?|interests?|speaks?|convinces?|grabs?"
    r"|works?)(?: to)?(?: me)?)?"
    r"|new ones|try again|not (?:these|those)(?: ones)?"
    r"|(?:these|those|they) (?:don't|do not|won't|didn't|all don't) (?:do it|appeal|work|convince|interest"
    r"|grab|excite)(?: me)?(?: (?:for|to) me)?)\b"
)
FRESH = re.compile(
    r"\b(?:instead(?! of (?!those|these|them|that|this))|rather(?! than)|actually|now|switch|change"
    r"|what about|how about|in the mood for|let's try"
    r"|(?:on )?second thoughts?|changed? my mind|forget (?:that|those|it)|let's (?:do|go (?:for|with)|have"
    r"|change)|i'd prefer"
    r"|would be better|scratch that|make that|in (?:their|its) place|swap|no, (?=\w)|make (?:it|that) (?=from"
    r"|made|released|\d|between|something|films?|movies?))\b"
)
_ALL_OF = r"(?: about)?(?: (?:all|every|any|of|the|my|these|those|your|other))*"
_CONDITIONS = r"(?:filters?|constraints?|limits?|conditions?|restrictions?|requirements?|criteria|rules)"
DROP = re.compile(
    rf"\b(?:forget|drop|remove|clear|ignore|reset|lift|scrap|delete|cancel|undo|never mind|get rid of"
    rf"|throw (?:out|away)|wipe|take"
    rf"|no more){_ALL_OF}"
    rf"\s*(?P<what>[\w' -]{{0,40}}?)\s*\b(?P<kind>{_CONDITIONS}|years?|decades?|genres?|part)\b"
    r"|\b(?:any|whatever|whichever) (?P<any>years?|decades?|genres?|time|period|age|era)\b"
    rf"|\bno (?P<none>{_CONDITIONS})\b"
    r"|\b(?:the |which )?(?P<matter>years?|decades?|genres?|age|era|date|release date) (?:doesn't|does not"
    r"|don't|do not|no longer) (?:really )?matters?\b"
    r"|\b(?:don't|do not|no longer) (?:really )?(?:care|mind) (?:about )?(?:(?P<when>when|how old"
    r"|how recent)\b[^.,!?]*|(?:the |which )(?P<careless>years?|decades?|genres?|age|era))"
    r"|\b(?P<either>old or new|new or old|no matter how old|no matter when)\b"
)
RESET = re.compile(
    r"^(?:please,? )?(?:let's )?(?:start (?:over|again|afresh|from scratch)|reset|forget everything|new conversation)"
    r"(?: please)?[.! ]*$"
)
UNDO = re.compile(
    r"^(?:please,? |oops,? |no,? |wait,? )?(?:undo(?: (?:that|this|it|the last (?:one|step|thing)))?"
    r"|take (?:that|it) back"
    r"|go back(?: (?:one step|a step))?|scratch my last (?:message|request))(?: please)?[.! ]*$"
)
ASKING = re.compile(
    r"\b(?:tell me (?:something |a bit )?(?:more )?about|more about|know (?:more |something )?about"
    r"|details? (?:on|of|about)"
    r"|info(?:rmation)? (?:on|about)|describe|fill me in|(?:plot|story|gist|synopsis) of|what (?:sort|kind"
    r"|type) of|what can you (?:tell|say)|what is"
    r"|what's|what was"
    r"|who (?:is|was|made|directed|wrote|starred|stars|plays)|when (?:was|did|is)|how long|how old is"
    r"|do you (?:have|know)|have you got|what about|is there|summari[sz]e|compare|which (?:of|one))\b"
)
VERDICT = re.compile(r"\b(?:is|was|were|are) (?:(?:too|so|very|a bit|rather|quite|really) )+\w+(?: for me)?")
ASKED_DIRECTLY = re.compile(
    r"^(?:(?:please|hey|well|okay|ok|hmm|so),? )?(?:do you (?:like|know|have|recommend)|have you (?:got|seen)"
    r"|did you (?:like|see)|would you recommend|is|was|are)\s+(?:the )?[\"\u201c]?$"
)
# what may precede the item in `newer than ITEM`, `made before ITEM`
_MADE = (
    r"(?:released|made|shot|published|came out|come out|out|anything|something|ones|films?|movies?|books?)(?: from)?"
)
NEWER_THAN = re.compile(
    rf"\b(?:(?:newer|more recent|more modern|later|younger) than|{_MADE} (?:later than|after|since))"
    r"\s+(?:the (?:film|movie|book) )?[\"\u201c]?$"
)
OLDER_THAN = re.compile(
    rf"\b(?:(?:older|earlier|less recent|(?:further|farther) back) than|{_MADE} (?:earlier than|before))"
    r"\s+(?:the (?:film|movie|book) )?[\"\u201c]?$"
)
# separators of names in a list (PIECES), words around a name that are not part of it (TRIM), and a cue that names
# follow (CUE)
PIECES = re.compile(r"\s*(?:[,;/&]|\band\b|\bor\b)\s*")
TRIM = re.compile(
    r"^(?:(?:the|a|an) (?:film|movie|book|game|song|album|show)s? |to (?:see|watch) |watching |seeing )+"
    r"|(?: (?:films?|movies?|books?|games?|songs?|albums?|shows?|very much|a lot|so much|too|also|as well|please|"
    r"recently|last \w+|yesterday|though|again))+$",
    re.IGNORECASE,
)
CUE = re.compile(
    r"\b(?:i|we)?\s*(?:really |also |just |recently |absolutely )?(?:liked?|loved?|enjoyed|enjoy|adored?"
    r"|hated?|watched|saw|disliked?|"
    r"(?:big )?fan of|fond of|keen on|crazy about|similar to|such as|can't stand)\s+(?P<rest>[^.!?;\n]+)",
    re.IGNORECASE,
)
# a cue followed by a name that the catalogue may lack: `do you have Inception?`, `is Inception any good?`
ASKED = re.compile(
    r"\b(?:do you (?:have|know|like)|have you (?:got|seen|heard of)|tell me (?:more )?about|(?:what|how|know) about"
    r"|(?:my|a|one of my) (?:all-time )?favou?rites?(?: (?:film|movie|book|game|song|album|show)s?)?"
    r" (?:is|are|was|were|include)|(?:^|[.!?;,]\s+)(?:is|was))\s+(?P<rest>[^.!?;\n]+?)"
    r"(?=(?:\s+(?:any good|good|in there|in the list|worth \w+|here|there|too))?\s*(?:[.!?;\n]|$))",
    re.IGNORECASE,
)
ENDING = re.compile(
    r"\s+(?:but|because|so|and i|and we|what|which|can you|please|do you|give|show|recommend)\b.*$",
    re.IGNORECASE,
)
STOCKED = re.compile(
    r"(?:^|[.!?;,]\s+)(?:is|was|are|would|will)\s+(?P<rest>[^.!?;\n]+?)(?=\s+(?:be )?(?:in|on|part of)"
    r" (?:your|the|this|that) (?:catalogue?|list|collection|library|database|selection)\b)",
    re.IGNORECASE,
)
