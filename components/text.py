"""What two texts must share to count as the same, and the marks of a text whose encoding went wrong."""

from __future__ import annotations

import re
import unicodedata

CHINESE_CHARACTER = (
    "[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0002a6df\U0002a700-\U0002ceaf\U0002f800-\U0002fa1f]"
)
"""A regular expression: the blocks that BERT's tokenizer takes apart, too."""


class _KeepLettersAndNumbers(dict[int, str | None]):
    """A table for ``str.translate`` that looks every character up in Unicode once."""

    def __missing__(self, code: int) -> str | None:
        character = chr(code)
        kept = character if unicodedata.category(character)[0] in "LMN" else None
        self[code] = kept
        return kept


_KEEP = _KeepLettersAndNumbers()

# UTF-8 bytes from 0x80 to 0xbf, read as cp1252 (or Latin-1: the same from 0xa0 on), follow an accented letter.
_ANY = bytes(range(0x80, 0xC0)).decode("cp1252", errors="ignore")
# Sound texts have some of these there too: spaces, quotes, dashes, dots, the trademark sign ("voilà…»").
_USUAL = b"\xa0\xab\xb7\xbb\x85\x91\x92\x93\x94\x95\x96\x97\x99".decode("cp1252")
_STRANGE = "".join(character for character in _ANY if character not in _USUAL)
_DAMAGE = re.compile(
    "\ufffd"  # the replacement character
    r"|[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]"  # control characters other than tab and line ends
    f"|Â[{_STRANGE}\xa0]|Ã[{_STRANGE}\xa0]"  # accented Latin: "cafÃ©"
    f"|(?:[ÐÑÎÏ][{_ANY}]){{2}}"  # Cyrillic and Greek: "Ð¿Ñ€"
    f"|[à-ï](?:[{_STRANGE}][{_ANY}]|[{_ANY}][{_STRANGE}])"  # punctuation and Chinese: "â€™", "ä½\xa0å¥½"
    f"|ðŸ[{_ANY}]"  # emoji
)


def normalise(text: str) -> str:
    """The form in which duplicates are looked for: NFKC, case-folded, letters, marks and numbers of any script.

    Full-width and half-width forms, upper and lower case, punctuation and spaces make no difference.
    A text of nothing but punctuation or emoji becomes the empty string.
    """
    kept = unicodedata.normalize("NFKC", text).casefold().translate(_KEEP)
    return unicodedata.normalize("NFKC", kept)  # taking characters out can bring a letter and its mark together


def looks_damaged(text: str) -> bool:
    """Whether the text has marks of a wrong decoding.

    These are the replacement character U+FFFD, control characters other than tab and line ends,
    and sequences that come from UTF-8 bytes read as Latin-1 or cp1252.
    """
    return _DAMAGE.search(text) is not None
