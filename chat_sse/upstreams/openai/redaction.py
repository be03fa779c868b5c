"""What of an upstream's error is passed on to the developer.

Its words may quote the key that it refuses, and the question that it could not take. So they are told only
where they are about the account and quote nothing of the question; of all other errors, only what is a name:
type, code, parameter. And from whatever is told, everything is taken that looks like a secret: rather too
much than too little.
"""

import re

import msgspec

from chat_sse.upstreams.openai.classify import Told

# A wrong key, an unknown model, a rate limit: these speak of the account. Others name the field at fault, and
# some servers (vLLM, guardrails of gateways) what it held.
_ABOUT_THE_ACCOUNT = (401, 404, 429)

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,63}")
_STATUS = re.compile(r"[1-9][0-9]{2,5}")
_MAX_READ_CHARS = 4000
_MAX_TOLD_CHARS = 300
# A shorter one is none (local servers are given "none"), and would hit ordinary words.
_MIN_SECRET_CHARS = 8
# As many characters in a row that stand in the question too are a quotation of it.
_QUOTATION_CHARS = 12

_SECRET = re.compile(
    r"""
    (?<=://) [^\s/@]{1,200} @                              # user and password in a URL
    | (?<=[?&;]) [\w.-]{1,40} = [^\s&\#"'<>]+              # what a URL asks with
    | \b (?:bearer|basic|digest) \s+ \S+                   # an Authorization header
    | \b [\w-]{0,40} (?:key|token|secret|password) \b ["']? \s* [:=] \s* ["']? [^\s"',;]+
    | \b eyJ [\w-]{8,} (?: \. [\w-]* )*                    # a JWT
    | \b AIza [\w-]{10,} | \b (?:AKIA|ASIA) [A-Z0-9]{8,} | \b dapi [0-9a-f]{8,}
    | \b (?: sk | pk | rk | ak | gsk | csk | dsk | xai | key | hf | r8 | fw | pplx | nvapi | tgp | sess | org
        | proj | ghp | gho | github | glpat | xox[a-z] | voyage | jina | lin | aa | esecret
      ) [-_] [\w*•….-]{6,}
    | [\w-]* [*•…]{2,} [\w*•….-]*                          # masked: sk-****abcd
    | \b \w [\w-]{2,40} \.{3,} \w [\w-]+                   # masked: abcd...wxyz
    | \b [0-9a-f]{8} (?: -[0-9a-f]{4} ){3} -[0-9a-f]{12} \b
    | (?<![\w+/-]) (?= [\w+/]* \d ) [\w+/]{24,} ={0,2}     # Azure, Mistral, Cohere, Together: only letters
    | (?<![\w+/-]) (?= [\w+/-]* \d ) [\w+/-]{40,} ={0,2}
    """,
    re.IGNORECASE | re.VERBOSE,
)


def error_details(status: int, told: Told, *, secrets: tuple[str, ...], asked: bytes) -> str:
    """Return what a developer is told of an error response.

    `secrets`: what must not be in it, whatever it looks like. `asked`: the conversation, in JSON.
    """
    said = ""
    if status in _ABOUT_THE_ACCOUNT and told.message:
        said = scrub(told.message, secrets)
    if not said or _quotes(said, asked):
        said = names_of(told, secrets)
    return f"upstream answered {status}: {said}" if said else f"upstream answered {status}"


def names_of(told: Told, secrets: tuple[str, ...] = ()) -> str:
    """Return an error's type, code and parameter as far as they are names or statuses, without secrets."""
    members = (told.type, told.code, told.param)
    names = [text for text in members if text and (_NAME.fullmatch(text) or _STATUS.fullmatch(text))]
    return scrub(", ".join(dict.fromkeys(names)), secrets)


def _quotes(said: str, asked: bytes) -> bool:
    starts = range(len(said) - _QUOTATION_CHARS + 1)
    pieces = {said[start : start + _QUOTATION_CHARS] for start in starts}
    return any(msgspec.json.encode(piece)[1:-1] in asked for piece in pieces)


def scrub(text: str, secrets: tuple[str, ...] = ()) -> str:
    """Return a text without secrets, and without what looks like one."""
    text = text[:_MAX_READ_CHARS]
    for secret in secrets:
        if len(secret) >= _MIN_SECRET_CHARS:
            text = text.replace(secret, "[secret]")
    return _SECRET.sub("[secret]", text)[:_MAX_TOLD_CHARS]
