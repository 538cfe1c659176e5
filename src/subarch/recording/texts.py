"""The texts of a corpus that are sent to a teacher: distinct, and short enough to be read whole by every candidate.

A vector is of a whole text, and what is trained to give it has to read the same text. So long documents are cut before
they are sent, at ends of sentences where there are any, and not after: a vector of an article says nothing about its
first 64 tokens.

    >>> cut("One two three. Four five six seven.", max_words=4)
    ['One two three.', 'Four five six seven.']
"""

from __future__ import annotations

import re

from subarch.errors import InvalidCorpus
from subarch.recording.config import RecordConfig
from subarch.run import Report
from subarch.text.read import THREE_WORDS, UNSPACED, identity, read

LONGEST_WORD = 40
"""Characters of a word; longer ones (addresses, encoded data) count as several, as tokenizers split them."""

_WORD = re.compile(rf"[{UNSPACED}]|[^\s{UNSPACED}]{{1,{LONGEST_WORD}}}")
_SENTENCE_END = re.compile("[.!?\u2026\u3002\uff01\uff1f][\"')\\]\u00bb\u201d\u2019]*")


def wanted(config: RecordConfig, report: Report) -> dict[str, str | None]:
    """The distinct texts of the corpus in its order, each with the group that it must be held out with.

    The pieces of one document are a group. Of texts that differ only in case, punctuation and spacing the first counts,
    and what has fewer than three words is left out, as corpora do it.

    Raises:
        InvalidCorpus: a source cannot be read, or there is no text.
    """
    seen: set[int] = set()
    found: dict[str, str | None] = {}
    for document in read(config.corpus, config.text_column):
        pieces = cut(document.text, config.max_words)
        together = f"document {identity(document.text):016x}" if len(pieces) > 1 else None
        for piece in pieces:
            if not THREE_WORDS.match(piece) or (key := identity(piece)) in seen:
                continue
            seen.add(key)
            found[piece] = document.group or together
            if len(found) % 1000 == 0:
                report("reading the corpus", len(found), config.limit or 0)
            if len(found) == config.limit:
                return found
    if not found:
        raise InvalidCorpus(f"no text of three words or more in {', '.join(config.corpus)}: give more text")
    return found


def cut(text: str, max_words: int) -> list[str]:
    """Pieces of at most `max_words` words, of whole sentences where one ends in time.

    A character of a script written without spaces counts as a word.
    """
    words = [match.span() for match in _WORD.finditer(text)]
    ends = {match.end() for match in _SENTENCE_END.finditer(text)}
    pieces = []
    first = 0
    while first < len(words):
        left = len(words) - first
        if left <= max_words:
            last = len(words)
        else:
            longest = first + max_words
            halves = min(longest, first + (left + 1) // 2)  # no tail of a word or two
            last = next((end for end in range(longest, first + 2, -1) if words[end - 1][1] in ends), halves)
        pieces.append(text[words[first][0] : words[last - 1][1]])
        first = last
    return pieces
