"""May this document be used and passed on? A licence statement read the cautious way.

`classify` answers with one of `CLASSES`. Only a statement whose text, links and wording agree on an
open licence is ``open``; where they contradict each other the answer is ``conflicting`` and a person
decides. Nobody's silence is consent: no statement is ``unknown``. This reads what a publisher wrote;
whether a use is lawful without a licence (text and data mining) is decided by `decide`, not here.

Elements are those of the Creative Commons licence codes: by, nc (non-commercial), nd (no derivatives),
sa (share alike).
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass

from hauslm.base.words import Sentence, say

CLASSES = (
    "open",
    "own",  # the team's own text, said so in the project file
    "sa",
    "nc",
    "nd",
    "nc+nd",
    "nc+sa",
    "restricted",
    "conflicting",
    "unknown",
)
FREE = frozenset({"open", "own"})  # what passes `licence_gate: open_only`


@dataclass(frozen=True, slots=True)
class Rights:
    """A class, a short label for the record, and the reason where a person should look."""

    licence_class: str
    label: str = ""
    why: Sentence | None = None


_CC_LINK = re.compile(
    r"creativecommons\.org/(?P<kind>licen[cs]es?|publicdomain)/(?P<code>(?:cc[ \-])?[a-z\-]+)(?:/(?P<version>\d\.\d))?"
    r"(?=[/\s)\],;.\"'<>]|$)"
)
_CC_CODE = re.compile(
    r"\b(?:cc|creative ?commons ?)[ \-]?by\b(?P<tail>(?:[ \-]?(?:nc|nd|sa)\b)*)(?:[ \-]?(?P<version>\d\.\d))?"
)
_CC_ZERO = re.compile(r"\bcc[ \-]?0\b(?:[ \-]?1\.0)?")
_CC_NAME = re.compile(
    r"(?:creative commons(?: \w+)?|\bcc)[, \-:]*\(?(?:attribution|namensnennung)\b"
    r"(?P<tail>(?:[ \-,_/]*(?:and )?(?:non[ \-]?commercial|no[nt]?[ \-]?deriv\w*(?: works?)?|share[ \-]?alike"
    r"|nicht[ \-]?kommerziell|keine[ \-]?bearbeitung(?:en)?|weitergabe unter gleichen bedingungen))*)"
    r"[ \-,(]*(?:version |unported,? |international |v\.? ?)?(?P<version>\d\.\d)?"
)
_SPELT_OUT = re.compile(r" ?(?:licen[cs]e)? ?\( ?(?:cc|creative ?commons ?)[ \-]?by")
_ELEMENTS = (
    ("nc", re.compile(r"\bnc|non[ \-]?commercial|nicht[ \-]?kommerziell")),
    ("nd", re.compile(r"nd\b|deriv|keine[ \-]?bearbeitung")),
    ("sa", re.compile(r"sa\b|alike|gleichen bedingungen")),
)
_LINK_CODES = {
    "by", "by-nc", "by-nd", "by-sa", "by-nc-nd", "by-nc-sa",
    "cc-by", "cc by", "cc by-nc", "cc-by-nc", "cc-by-nc-nd", "cc by-nc-nd", "cc-by-nc-sa", "cc-by-sa",
}  # fmt: skip

_EITHER_USE = re.compile(
    r"kommerzielle\w*,? (?:und|oder|wie auch|sowie)(?: für)? nicht[ \-]?kommerzielle\w*|"
    r"nicht[ \-]?kommerzielle\w*,? (?:und|oder|wie auch|sowie)(?: für)? kommerzielle\w*|"
    r"(?:both )?(?:commercial(?:ly)?(?: use)?,? (?:and|or|as well as)(?: for)? non[ \-]?commercial(?:ly)?"
    r"|non[ \-]?commercial(?:ly)?,? (?:and|or|as well as)(?: for)? commercial(?:ly)?)|even commercially"
)
_NC_WORDS = re.compile(
    r"non[ \-]?commer[ci]i?al|no commercial|not (?:be )?(?:used )?for commercial|nicht[ \-]?kommerziell"
    r"|commercial (?:re-?use|use|reproduction)\W+(?:requires|is not|not)|non-profit (?:use|purposes)"
)
_ND_WORDS = re.compile(
    r"no modifications?|unmodified|unaltered|no derivative|not (?:be )?(?:altered|modified)"
    r"|verbatim copying|keine bearbeitung"
)
_SA_WORDS = re.compile(
    r"under (?:the|an?) (?:identical|same) (?:terms|licen[cs]e)|share[ \-]?alike"
)
_RESTRICTED = re.compile(
    r"exclusive licen[cs]e|should not be reproduced|may not be reproduced|no part of this"
    r"|personal use only|for the purposes of (?:academic )?research|subject always to"
    r"|granted for the duration|verbatim copying|in the spirit of the public library of science"
    r"|without (?:the )?(?:prior )?(?:written )?permission|with(?:out)? (?:vorheriger|ausdrückliche) "
    r"(?:zustimmung|genehmigung)|standard (?:youtube|publisher) licen[cs]e|confidential|vertraulich"
)
_RESERVED = re.compile(r"all rights reserved|alle rechte vorbehalten")
_PUBLIC_DOMAIN = re.compile(
    r"public domain|gemeinfrei|work of the u\.?s\.? government|u\.?s\.? government employees?"
)
_NOT_PUBLIC_DOMAIN = re.compile(r"not (?:in|within) the public domain|nicht gemeinfrei")
_CC0_FOR_DATA = re.compile(
    r"(?:creative commons )?(?:public domain dedication|cc0)(?: waiver)?[^.;]{0,140}?"
    r"(?:applies|apply) to the (?:data|metadata)[^.;]*|publicdomain/zero/1\.0/?[)\]]?,? "
    r"appl(?:ies|y) to the (?:data|metadata)[^.;]*"
)
_OTHER_OPEN = (
    ("PLoS-OA", re.compile(r"public library of science open[ \-]access licen[cs]e")),
    ("OGL", re.compile(r"open government licen[cs]e|\bogl[ \-]?(?:uk[ \-]?)?\d")),
    (
        "DL-DE-BY-2.0",
        re.compile(r"dl-de[/\-]by[\-/]2[\-.]0|datenlizenz deutschland\W+namensnennung"),
    ),
    ("DL-DE-ZERO-2.0", re.compile(r"dl-de[/\-]zero[\-/]2[\-.]0|datenlizenz deutschland\W+zero")),
    ("Apache-2.0", re.compile(r"\bapache(?:[ \-]licen[cs]e)?,?[ \-](?:version )?2\.0")),
    ("MIT", re.compile(r"^mit(?: licen[cs]e)?$|\bmit licen[cs]e\b")),
    ("BSD", re.compile(r"\bbsd[ \-](?:[023][ \-]clause|licen[cs]e)")),
    ("ODC-BY", re.compile(r"\bodc[ \-]by\b|open data commons attribution")),
)
_OTHER_SA = re.compile(r"\bgfdl\b|gnu free documentation|\bodbl\b|\b[al]?gpl(?:v?\d)?\b")


def classify(statement: str, links: Iterable[str] = ()) -> Rights:
    """The rights that a statement and its licence links express, read together.

    `statement` may be a whole permissions paragraph or a short code such as ``CC-BY-4.0``.
    """
    text = _normal(" ".join([statement, *links]))
    if not text:
        return Rights("unknown", why=say("No licence is stated."))
    text = _CC0_FOR_DATA.sub(" ", text)
    signals, strange = _creative_commons(text)
    words = _EITHER_USE.sub(" ", text)
    nc, nd, sa = (bool(p.search(words)) for p in (_NC_WORDS, _ND_WORDS, _SA_WORDS))
    if strange:
        return Rights(
            "conflicting",
            why=say("The licence link names no existing licence ({link}).", link=strange),
        )
    if signals:
        return _from_signals(signals, words, nc=nc, nd=nd, sa=sa)
    return _without_creative_commons(words, nc=nc, nd=nd)


_SPEAKS_OF_LICENCE = re.compile(
    r"creative commons|creativecommons\.org|\bcc[ -]by\b|\bcc0\b|all rights reserved|alle rechte vorbehalten|public domain"
    r"|dl-de/|lizenziert unter|licen[cs]ed under|released under",
    re.IGNORECASE,
)
_SENTENCES = re.compile(r"(?<=[.!?])\s+(?=[A-ZÄÖÜ©(])")


def find_statement(text: str, most: int = 1500) -> str:
    """What a text says about its own licence: the sentences that speak of one, each with the next.

    Give it only the places where such statements stand (first and last pages); '' if there is none.
    """
    flat = " ".join(text.split())
    parts = _SENTENCES.split(flat)
    chosen: list[str] = []
    length = 0
    wanted = {
        i + k for i, part in enumerate(parts) if _SPEAKS_OF_LICENCE.search(part) for k in (0, 1, 2)
    }
    for index in sorted(wanted):
        if index < len(parts) and length < most:
            part = parts[index]
            match = _SPEAKS_OF_LICENCE.search(part)
            start = max(0, match.start() - 250) if match and len(part) > 700 else 0
            chosen.append(part[start : start + 700])
            length += len(chosen[-1])
    return " ".join(chosen)


def statement_at_ends(text: str, first: int = 3000, last: int = 6000) -> str:
    """`find_statement` in the first and last characters of a running text."""
    return find_statement(text if len(text) <= first + last else f"{text[:first]}. {text[-last:]}")


def _normal(text: str) -> str:
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"[\u2010-\u2015\u2212\u00ad_]", "-", text).replace("&", "and")
    text = re.sub(r"\s*-\s*", "-", text)
    return re.sub(r"\s+", " ", text).strip()


def _creative_commons(text: str) -> tuple[dict[frozenset[str], str], str]:
    """Element sets of all Creative Commons mentions -> version; and a link that is none of them."""
    found: dict[frozenset[str], str] = {}

    def add(elements: frozenset[str], version: str | None) -> None:
        if version or elements not in found:
            found[elements] = version or ""

    links = list(_CC_LINK.finditer(text))
    for match in links:
        code = match["code"].strip(" -")
        if match["kind"] == "publicdomain":
            add(frozenset({"zero"}), "1.0")
        elif code in _LINK_CODES:
            add(_elements(code), match["version"])
        elif not _is_cut_off(match, links):
            return found, match.group(0)
    bare = _CC_LINK.sub(" ", text)
    for match in _CC_CODE.finditer(bare):
        add(_elements("by" + match["tail"]), match["version"])
    for match in _CC_NAME.finditer(bare):
        rest = bare[match.end() :]
        if found and not match["tail"] and (not rest.strip() or _SPELT_OUT.match(rest)):
            continue  # cut off there, or the family name before the full code in brackets
        add(_elements("by " + match["tail"]), match["version"])
    if re.search(r"creative commons[ \-:]*non[ \-]?commercial", bare):
        add(frozenset({"by", "nc"}), None)
    if _CC_ZERO.search(bare) or "creative commons public domain" in bare:
        add(frozenset({"zero"}), None)
    return found, ""


def _is_cut_off(match: re.Match[str], links: list[re.Match[str]]) -> bool:
    """The last words of a shortened statement: a link that an earlier one continues."""
    at_end = match.end() == len(match.string)
    return at_end and any(o is not match and o.group(0).startswith(match.group(0)) for o in links)


def _elements(code: str) -> frozenset[str]:
    return frozenset({"by"} | {name for name, pattern in _ELEMENTS if pattern.search(code)})


def _class_of(elements: frozenset[str]) -> str:
    extra = elements - {"by", "zero"}
    if not extra:
        return "open"
    if extra == {"sa"}:
        return "sa"
    return "+".join(e for e in ("nc", "nd", "sa") if e in extra)


def _label_of(elements: frozenset[str], version: str) -> str:
    if "zero" in elements:
        return "CC0-1.0"
    parts = ["CC", "BY", *(e.upper() for e in ("nc", "nd", "sa") if e in elements)]
    return "-".join(parts) + (f"-{version}" if version else "")


def _from_signals(
    signals: dict[frozenset[str], str], words: str, *, nc: bool, nd: bool, sa: bool
) -> Rights:
    labels = [_label_of(e, v) for e, v in signals.items()]
    classes = {_class_of(e) for e in signals}
    if len(classes) > 1:
        return Rights(
            "conflicting",
            " / ".join(sorted(labels)),
            say(
                "The statement names several licences that contradict each other: {licences}.",
                licences=sorted(labels),
            ),
        )
    elements, version = max(signals.items(), key=lambda item: item[1])
    licence_class, label = _class_of(elements), _label_of(elements, version)
    against = [
        word
        for word, said, element in (
            (say("non-commercial"), nc, "nc"),
            (say("no derivatives"), nd, "nd"),
            (say("share alike"), sa, "sa"),
        )
        if said and element not in elements
    ]
    if licence_class in ("open", "sa") and _RESTRICTED.search(words):
        against.append(say("restricted"))
    if against and (licence_class == "open" or (nc and "nc" not in elements)):
        return Rights(
            "conflicting",
            label,
            say(
                "The licence is {licence}, but the wording says: {words}.",
                licence=label,
                words=against,
            ),
        )
    return Rights(licence_class, label)


def _without_creative_commons(words: str, *, nc: bool, nd: bool) -> Rights:
    open_labels = [label for label, pattern in _OTHER_OPEN if pattern.search(words)]
    public = bool(_PUBLIC_DOMAIN.search(words)) and not _NOT_PUBLIC_DOMAIN.search(words)
    restricted = _RESTRICTED.search(words)
    if open_labels or public:
        label = "+".join((["public-domain"] if public else []) + open_labels)
        if restricted or nc or nd:
            return Rights(
                "conflicting",
                label,
                say(
                    "The licence is {licence}, but the wording says: {words}.",
                    licence=label,
                    words=[
                        w
                        for w, on in (
                            (say("restricted"), restricted),
                            (say("non-commercial"), nc),
                            (say("no derivatives"), nd),
                        )
                        if on
                    ],
                ),
            )
        return Rights("open", label)
    if _OTHER_SA.search(words):
        return Rights("sa", "share-alike")
    if restricted:
        return Rights("restricted", "publisher terms")
    if nc:
        return Rights("nc+nd" if nd else "nc", "non-commercial terms")
    if nd:
        return Rights("nd", "no-derivatives terms")
    if _RESERVED.search(words) or re.search(r"copyright|©|\(c\)", words):
        return Rights("restricted", "copyright, no licence")
    return Rights("unknown", why=say("The licence statement names no licence that is known here."))
