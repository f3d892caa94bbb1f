"""What an endpoint says when it gives no answer: why, whether it passes, how long to wait, and its own words. Pure.

Every provider tells it in a place of its own: at the top or nested, in a list, as JSON in a string, as plain text, with
whatever status. So the whole error is walked once, and its codes, words and marks are looked at wherever they stand.

- *A filter* (:class:`Filtered`) under any status that says nothing of load: the provider withheld the answer.
- *Spent quota or credit* under any status: it does not pass by itself. Words that a limit per minute uses too ("You
  exceeded your current quota", Gemini) mean it only where no wait within :data:`PASSES` seconds is named.
- Else the status, or the code that the body names, decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping

import msgspec

from redinstruct.models import adapting, waits
from redinstruct.models.base import ModelError, Request
from redinstruct.safetext import redact, terminal
from redinstruct.types import FailureReason

MAX_NOTE = 240
"""Characters of the endpoint's own words that are kept."""
PASSES = 600.0
"""Seconds. A limit that is filled again within them is waited for; a longer one is spent for today."""
QUOTED = 24
"""Characters in a row that an endpoint's words share with the request: then they are quoted from it."""
NOT_SHOWN = "[of the request]"
_NOT_FOLLOWED = "no redirect is followed, set the address that it leads to"
_PAGE = re.compile(rb"^\s*<(?:!doctype|html|head|title)", re.IGNORECASE)
_MOST_LEAVES = 400
_DEEPEST = 8
_LONGEST_WORDS = 4000

_STATUS: Mapping[int, tuple[FailureReason, bool]] = {
    400: (FailureReason.BAD_REQUEST, False),
    401: (FailureReason.UNAUTHORIZED, False),
    402: (FailureReason.QUOTA, False),
    403: (FailureReason.FORBIDDEN, False),
    404: (FailureReason.NOT_FOUND, False),
    408: (FailureReason.TIMEOUT, True),
    409: (FailureReason.CONFLICT, True),
    422: (FailureReason.UNPROCESSABLE, False),
    429: (FailureReason.RATE_LIMITED, True),
}
_OF_LOAD = frozenset({408, 409, 429})

_CODE_NAMES = frozenset(
    {"code", "type", "status", "reason", "error", "errorcode", "errortype", "statuscode", "finishreason", "category",
     "blockreason", "quotaid", "__type", "@type", "name", "errcode"}
)  # fmt: skip
_SAYS = frozenset({"message", "msg", "errormessage", "errormsg", "detail", "statusmsg", "raw", "error"})
_MAY_SAY = frozenset({"errors", "details", "description", "title", "reason", "reasons", "blockreasonmessage",
                      "cause", "hint", "code"})  # fmt: skip


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(patterns), re.IGNORECASE)


# Codes are compared without case, blanks and marks: content_filter, ContentFilter and "content filter" are one.
_FILTER_CODE = _any(
    r"\w*content(?:filter|policy|moderation|safety|violation|blocked|risk)\w*",
    r"\w*(?:sensitive|prohibited|unsafe|inappropriate|risk)(?:content|data)\w*",
    r"\w*(?:responsibleaipolicy|policyviolation|datainspectionfailed|riskcontrol|safetycheck|modelarmor)\w*",
    r"\w*(?:moderation(?:blocked|flagged|error)|guardrail|censorship|hooksfailed)\w*",
    r"(?:image)?safety(?:error|block\w*)?|sensitive|spii|blocklist|recitation|imagerecitation|jailbreak|moderation|flagged",
    r"errortoxic|blocked|censored",
    r"1301",  # Zhipu
)
_WHO = (
    r"(?:accounts?|organi[sz]ations?|access|keys?|projects?|teams?|workspaces?|users?|tenants?|subscriptions?"
    r"|ip(?: address(?:es)?)?)"
)
# What is said of a field of the request, of load or of the user's account is no filter, whichever words it uses.
_NOT_ABOUT_TEXT = _any(
    r"(?:unsupported|unrecogni[sz]ed|unknown|unexpected|invalid|extra) (?:request )?"
    r"(?:parameter|argument|field|value|property|type|input)",
    r"inputs are not permitted|rate.?limit|too many requests|quota|no endpoints",
    rf"\b{_WHO}\b[^.]{{0,80}}\b(?:disabled|terminated|suspended|deactivated|banned|restricted|revoked|removed)\b",
    rf"\b{_WHO} (?:was|were|is|are|has been|have been) (?:\w+ )?(?:blocked|flagged|locked)\b",
)
_HARM = r"(?:harmful|unsafe|sensitive|inappropriate|prohibited|disallowed|offensive|toxic|objectionable|violent|sexual)"
_FILTER_WORDS = _any(
    r"content[ _-]?(?:filter|(?:management )?polic|moderation|safety|guideline|risk|security|audit|inspection)",
    r"content[ _](?:exists|contains|has)[ _]risks?|responsible[ _]?ai|considered (?:as )?high[ -]risk",
    rf"{_HARM}[ _](?:or[ _]{_HARM}[ _])?"
    r"(?:content|inputs?|outputs?|prompts?|materials?|words?|text|language|speech|information|requests?)",
    r"(?:safety|moderation)[ _](?:system|filters?|checks?|polic(?:y|ies)|reasons?|classifier|guidelines?|guardrails?)",
    r"failed (?:the )?(?:moderation|safety)|moderation (?:endpoint )?(?:blocked|rejected|failed)|flagged",
    r"(?:usage|acceptable use|use|safety|community) (?:polic(?:y|ies)|guidelines?)",
    r"violat[^.]{0,50} (?:polic(?:y|ies)|terms|guidelines|rules|standards)",
    rf"(?:content|text|prompt|input|output|answer) (?:is|are|was|may be|contains?|includes?) {_HARM}",
    r"guardrails?\b[^.]{0,60}(?:block|violat|interven|fail|trigger|reject|den(?:y|ied)|stopp)",
    r"(?:block|violat|interven|fail|trigger|reject|den(?:y|ied)|stopp)[^.]{0,70}guardrail",
    # Not "Your request was blocked": a firewall says so to a client that it does not like, whatever was asked.
    r"(?:prompt|input|content|response|output|completion|answer|message)s? "
    r"(?:was|were|is|has been|have been|got) (?:blocked|filtered|withheld|censored)",
    r"(?:prompt|content|response) blocked|blocked by (?:the |our |a )?(?:safety|content|policy)",
    r"(?:in|out)put new_sensitive",
    r"敏感|不安全|安全风险|违规|不当内容|风险内容|安全策略|审核(?:不通过|未通过|失败)|不合规",
)
_FILTER_MARKS = frozenset(
    {"filtered", "flagged", "flaggedinput", "blocked", "inputsensitive", "outputsensitive", "blockreason",
     "blockreasonmessage", "moderationhittype", "isblocked"}
)  # fmt: skip

_SPENT_CODE = _any(
    r"\w*insufficient(?:quota|balance|credit|fund)\w*",
    r"\w*(?:billing|paymentrequired|arrearage|overdue|exceededcurrentquota|budgetexceeded|outofcredit|nocredits)\w*",
    r"\w*(?:creditsexhausted|freetieronly|spend(?:ing)?limit|setlimitexceeded|monthlylimit|perday)\w*",
    r"1113|1008",  # Zhipu, MiniMax
)
_SPENT_WORDS = _any(
    r"(?:insufficient|not enough|no (?:remaining |more )?|low|out of|exhausted|negative)[ _](?:account )?"
    r"(?:balance|credits?|funds?|quota)",
    r"(?:balance|credits?|funds?)\b[^.]{0,40}\b"
    r"(?:too low|insufficient|exhausted|depleted|expired|used up|run out|ran out)",
    r"doesn'?t have any credits|used (?:up )?all (?:of )?(?:your |the )?(?:available |included )?(?:credits?|free)",
    r"(?:requires|purchase|buy|add) (?:more |\d+ )?credits|exceeded your monthly included credits",
    r"(?:billing hard|spend(?:ing)?|credit|budget|prepaid|api usage|\bkey)[ _-]limits?|budget has been exceeded",
    r"payment (?:required|method|overdue)|past invoices|account is not active|in good standing|\boverdue",
    r"free (?:tier|quota|allocation)[^.]{0,40}(?:exhausted|used up|exceeded)|daily free allocation|\blimit: 0\b",
    r"余额不足|欠费|资源包|额度(?:不足|已用)",
)
# What a limit per minute is told with, too (Gemini: "You exceeded your current quota ... retry in 23.6s").
_SPENT_PERHAPS = _any(
    r"exceeded (?:your|the|its) (?:current |allotted |assigned )?(?:api )?quota|insufficient_quota|usage limit",
    r"quota (?:has been |was |is )?(?:exceeded|exhausted)",
    r"(?:per|a|/)[ _-]?(?:day|week|month)|daily|weekly|monthly|\b[rt]pd\b",
)
_PER_MINUTE = _any(r"per[ _-]?(?:minute|second|hour)|\b[rt]p[ms]\b")
_TRANSIENT_CODE = _any(
    r"\w*(?:overload|ratelimit|toomanyrequests|throttl|resourceexhausted|servererror|internalerror|unavailable)\w*",
    r"\w*(?:timeout|timedout|badgateway|upstream)\w*",
)
_TRANSIENT_WORDS = _any(
    r"overloaded|rate.?limit|too many requests|temporar(?:y|ily)|tim(?:e|ed)[ -]?out|try again|retry|unavailable|busy",
    r"internal (?:server )?error|upstream|bad gateway|capacity|currently loading|connection (?:error|reset)",
)


class Filtered(Exception):
    """The provider's filter withheld the answer; ``note`` is what it says to that."""

    def __init__(self, note: str | None = None) -> None:
        super().__init__("the provider's filter withheld the answer")
        self.note = note


class ErrorWords(msgspec.Struct):
    """An error as it was told: codes (normalised), words, every named leaf, and whether a mark of a filter is set.

    ``page``: it came as HTML, from a firewall or a proxy on the way; no provider's filter speaks so.
    """

    codes: list[str] = msgspec.field(default_factory=list)
    words: list[str] = msgspec.field(default_factory=list)
    fields: list[tuple[str, object]] = msgspec.field(default_factory=list)
    marked: bool = False
    page: bool = False

    @property
    def is_filter(self) -> bool:
        """Whether a filter speaks."""
        if self.page:
            return False
        if self.marked or any(map(is_filter_code, self.codes)):
            return True
        return any(_FILTER_WORDS.search(text) and not _NOT_ABOUT_TEXT.search(text) for text in self.words)

    @property
    def status(self) -> int | None:
        """The HTTP status that the body names, where it names one."""
        for name, value in self.fields:
            if name in ("code", "status", "statuscode") and isinstance(value, int | str):
                digits = str(value)
                if len(digits) == 3 and digits.isascii() and digits.isdigit() and digits[0] in "45":
                    return int(digits)
        return None

    def is_spent(self, wait: float | None) -> bool:
        """Whether quota or credit is spent; ``wait`` is what the failure asks for outright."""
        if any(_SPENT_CODE.fullmatch(code) for code in self.codes) or any(map(_SPENT_WORDS.search, self.words)):
            return True
        if not any(map(_SPENT_PERHAPS.search, self.words)):
            return False
        return wait > PASSES if wait is not None else not any(map(_PER_MINUTE.search, self.words))

    @property
    def note(self) -> str | None:
        """The endpoint's own words: short, on one line, without secrets and control characters."""
        said = list(dict.fromkeys(text.strip() for text in self.words if text.strip()))
        if not said:
            said = [text for name, text in self.fields if isinstance(text, str) and name in ("code", "type", "status")]
        return _safe(": ".join(said[:2])) if said else None


def is_filter_code(code: str) -> bool:
    """Whether a code (lower case, without marks) is one by which a filter speaks."""
    return _FILTER_CODE.fullmatch(code) is not None


def told(error: object, text: str = "") -> ErrorWords:
    """Walk an error, whatever it is. ``text`` is the answer's body, where it is not JSON."""
    found = ErrorWords()
    for name, value in _leaves(error):
        plain = _plain(name)
        found.fields.append((plain, value))
        if plain in _FILTER_MARKS and (value is True or (isinstance(value, str) and value.lower() not in ("", "none"))):
            found.marked = True
        if plain in _CODE_NAMES and isinstance(value, str | int) and not isinstance(value, bool):
            code = _plain(str(value))
            if len(code) <= 80:
                found.codes.append(code)
        if isinstance(value, str) and (plain in _SAYS or (plain in _MAY_SAY and _is_a_sentence(value))):
            # A validator repeats the request that it refuses: its words are not the endpoint's.
            found.words.append(value[:_LONGEST_WORDS].partition("input_value=")[0])
    if text:
        found.words.append(text)
    return found


def unquoted(note: str | None, request: Request) -> str | None:
    """An endpoint's words without what they quote of the request, which may be shown where questions are hidden.

    A text that is shorter than :data:`QUOTED` is looked for whole, if it has 8 characters at least.
    """
    if not note:
        return note
    said, quoted = " ".join(note.split()), set[int]()
    for text in (" ".join(message.content.split()) for message in request.messages):
        size = min(QUOTED, len(text))
        if size >= 8:
            for start in range(len(said) - size + 1):
                if said[start : start + size] in text:
                    quoted.update(range(start, start + size))
    if not quoted:
        return note
    return "".join(
        "" if at in quoted and at - 1 in quoted else NOT_SHOWN if at in quoted else character
        for at, character in enumerate(said)
    )


def status_error(status: int, headers: Mapping[str, str], data: bytes) -> ModelError | Filtered:
    """What an answer with another status than 200 means."""
    error: object = None
    text = ""
    try:
        error = json.loads(data)
    except (ValueError, RecursionError):
        text = page(data)
    said = told(error, text)
    said.page = _PAGE.search(data[:_LONGEST_WORDS]) is not None
    return _meaning(said, status, headers)


def body_error(error: object) -> ModelError | Filtered:
    """What an error means that came with status 200."""
    said = told(error)
    return _meaning(said, said.status, {})


def _meaning(said: ErrorWords, status: int | None, headers: Mapping[str, str]) -> ModelError | Filtered:
    note = said.note
    if (status == 451 and not said.page) or (status not in _OF_LOAD and said.is_filter):
        return Filtered(note)
    wait = waits.asked(headers, said.fields, said.words)
    reason, transient = _reason(status) if status is not None else _from_words(said)
    too_long = reason is FailureReason.RATE_LIMITED and wait is not None and wait > PASSES
    if too_long or said.is_spent(wait):
        return ModelError(FailureReason.QUOTA, note=note)
    if reason is FailureReason.HTTP_STATUS:
        note = f"status {status}" if note is None else f"status {status}: {note}"
    elif reason is FailureReason.REDIRECT:
        note = (_NOT_FOLLOWED if note is None else f"{_NOT_FOLLOWED}: {note}")[:MAX_NOTE]
    named = [value for name, value in said.fields if name in ("param", "loc") and isinstance(value, str)]
    refused = () if status in _OF_LOAD else adapting.refused(said.codes, said.words, named)
    if not transient:
        return ModelError(reason, note=note, refused=refused)
    wait = waits.refilled(headers) if wait is None else wait
    return ModelError(reason, transient=True, retry_after=wait, note=note, refused=refused)


def _reason(status: int) -> tuple[FailureReason, bool]:
    if status in _STATUS:
        return _STATUS[status]
    if 500 <= status < 600:
        return FailureReason.SERVER_ERROR, True
    if 300 <= status < 400:
        return FailureReason.REDIRECT, False
    return FailureReason.HTTP_STATUS, False


def _from_words(said: ErrorWords) -> tuple[FailureReason, bool]:
    """The reason of an error without a status."""
    if any("ratelimit" in code or "throttl" in code for code in said.codes):
        return FailureReason.RATE_LIMITED, True
    if any(map(_TRANSIENT_CODE.fullmatch, said.codes)) or any(map(_TRANSIENT_WORDS.search, said.words)):
        return FailureReason.SERVER_ERROR, True
    return FailureReason.BAD_SHAPE, False


def _leaves(error: object) -> Iterator[tuple[str, object]]:
    """Every leaf with the name that it stands under, JSON in strings opened; outer ones first, a bounded number."""
    level: list[tuple[str, object]] = [("error", error)]
    seen = 0
    for _ in range(_DEEPEST):
        deeper: list[tuple[str, object]] = []
        for name, value in level:
            seen += 1
            if seen > _MOST_LEAVES:
                return
            opened = _opened(value) if isinstance(value, str) else value
            if isinstance(opened, dict):
                deeper.extend((str(key), part) for key, part in opened.items())
            elif isinstance(opened, list):
                deeper.extend((name, part) for part in opened)
            else:
                yield name, value
        level = deeper


def _opened(text: str) -> object:
    """A string that is a JSON object or list is what it holds (an upstream's error, passed on as text)."""
    if text[:1] in ("{", "[") and len(text) < 1 << 16:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return text


def _plain(name: str) -> str:
    return "".join(character for character in name.lower() if character.isalnum())


def _is_a_sentence(text: str) -> bool:
    return " " in text.strip() or not text.isascii()


def page(data: bytes) -> str:
    """What a page that is not JSON says: an HTML page's title, or the text's beginning."""
    text = data[:_LONGEST_WORDS].decode("utf-8", "replace")
    if (title := re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)) is not None:
        return " ".join(title[1].split())
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())


def _safe(text: str) -> str:
    return terminal(" ".join(redact(text).split()))[:MAX_NOTE]
