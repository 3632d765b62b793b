"""Conversations as text: a tokenizer's chat template, run in a sandbox that can change nothing and reach nothing."""

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import jinja2
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from spikeless.errors import UserError

__all__ = ["chat_template", "render_chat"]

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names that the reasoning of a message goes by; templates read the first, and some the second."""


def chat_template(templates: Any, spec: str) -> str:
    """The one template of a tokenizer's configuration: a text, or the one called "default" of several.

    Raises:
        UserError: there is none, or several and none of that name.
    """
    if isinstance(templates, list):
        named = {each.get("name"): each.get("template") for each in templates if isinstance(each, dict)}
    else:
        named = templates if isinstance(templates, dict) else {"default": templates}
    if isinstance(chosen := named.get("default"), str):
        return chosen
    if any(isinstance(each, str) for each in named.values()):
        names = ", ".join(sorted(str(name) for name in named))
        raise UserError(f"the tokenizer {spec} has the chat templates {names}, and none called 'default'; rename one")
    raise UserError(
        f"the tokenizer {spec} has no chat template, so messages cannot become text; put one beside its "
        "tokenizer.json as chat_template.jinja, or give a field of text"
    )


def render_chat(template: str, messages: Sequence[Mapping[str, Any]], tokens: Mapping[str, Any], spec: str) -> str:
    """Messages as text, as `apply_chat_template(messages, tokenize=False)` of transformers gives it.

    There is no `strftime_now`: the same messages are the same text on any day.

    Args:
        template: in jinja2.
        messages: plain JSON: each an object with "role" and "content", or what else the template reads.
        tokens: texts of the special tokens by their names, such as `bos_token`.
        spec: of the tokenizer, for messages.

    Raises:
        UserError: the template is damaged, refuses these messages, or does what the sandbox forbids.
    """
    try:
        return _compiled(template).render(
            messages=[_with_reasoning(each) for each in messages],
            tools=None,
            documents=None,
            add_generation_prompt=False,
            **tokens,
        )
    except Exception as error:  # a template raises what it likes
        hint = ""
        if isinstance(error, jinja2.UndefinedError) and "strftime_now" in str(error):
            hint = "; data must not change from day to day: write a date into the template in place of today's"
        raise UserError(f"the chat template of {spec} cannot write these messages: {error}{hint}") from None


class _Generation(Extension):
    """`{% generation %}` marks what an assistant said, for those who mask the rest; its text is kept."""

    tags = {"generation"}  # noqa: RUF012, the library's way

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_kept"), [], [], body).set_lineno(line)

    def _kept(self, caller: Any) -> str:
        return caller()


class _Dict:
    """`dict` without the attributes of the class."""

    def __call__(self, *args: Any, **fields: Any) -> dict[Any, Any]:
        return dict(*args, **fields)


class _Namespace(Namespace):
    """jinja's own, but no name may look like one of Python's internals."""

    def __init__(*args: Any, **fields: Any) -> None:
        self, *rest = args
        for name in (fields := dict(*rest, **fields)):
            _refuse_inner(name)
        Namespace.__init__(self, fields)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_inner(name)
        Namespace.__setitem__(self, name, value)


def _refuse_inner(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a name of a namespace must not begin with an underscore: {name!r}")


@lru_cache(maxsize=8)
def _compiled(template: str) -> jinja2.Template:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals |= {"raise_exception": _raise, "dict": _Dict(), "namespace": _Namespace}
    return environment.from_string(template)


def _raise(message: str) -> None:
    raise jinja2.TemplateError(message)


def _tojson(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    """JSON without the escapes that jinja's own filter makes for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _with_reasoning(message: Mapping[str, Any]) -> Mapping[str, Any]:
    said = next((message[name] for name in REASONING if message.get(name) is not None), None)
    return message if said is None else {"thinking": said, **message, "reasoning_content": said}
