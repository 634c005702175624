"""Where a completion begins under templates as models have them: thinking, content parts, refusals, none at all."""

from functools import cache
from typing import Any

import pytest
import transformers

from tests.tiny import TINY_MODEL
from wherefrom.attribution.models.render import Renderer
from wherefrom.attribution.models.rule import RenderingRule
from wherefrom.errors import NoChatTemplate, TemplateNotPrefix, TemplateRefused, UnusableModel
from wherefrom.records import Message, Role

END = 1
ANSWER = "It weighs eight pounds."
REASONED = "<think>\nLet me see.\n</think>\n\nIt weighs eight pounds."
#: As it comes out of a model whose prompt has opened the think block.
CONTINUED = "Let me see.\n</think>\n\nIt weighs eight pounds."
ASKED = (Message(role=Role.USER, content="How heavy is the blender?"),)
INSTRUCTED = (Message(role=Role.SYSTEM, content="Be short."), *ASKED)

TURN = "{{ '<|' + m.role + '|>' + m.content + '<|end|>' }}"


def template(answer: str, generation: str, *, before: str = "") -> str:
    """A chat template from what it writes for the assistant's turn and for the generation prompt."""
    return (
        f"{before}{{% for m in messages %}}{{% if m.role == 'assistant' %}}{answer}{{% else %}}{TURN}{{% endif %}}{{% endfor %}}"
        f"{{% if add_generation_prompt %}}{generation}{{% endif %}}"
    )


#: Drops the reasoning of every answer; its generation prompt opens a think block (DeepSeek-R1 distillates).
DROPS = template(
    "{{ '<|assistant|>' + m.content.split('</think>')[-1].strip() + '<|end|>' }}", "<|assistant|><think>\n"
)
#: Writes an empty think block before answers without reasoning (Qwen3).
EMPTY_BLOCK = template(
    "{% set r = m.content.split('</think>')[0].split('<think>')[-1].strip() if '</think>' in m.content else '' %}"
    "{{ '<|assistant|>\n<think>\n' + r + '\n</think>\n\n' + m.content.split('</think>')[-1].strip() + '<|end|>\n' }}",
    "{{ '<|assistant|>\n' }}{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}",
)
#: Opens the block in the generation prompt, and writes it before every answer too (Qwen3 thinking).
ALWAYS_OPEN = template(
    "{{ '<|assistant|>\n<think>\n\n</think>\n\n' + m.content + '<|end|>' }}", "<|assistant|>\n<think>\n"
)
#: The tags of other houses.
OTHER_TAGS = template("{{ '<|assistant|>' + m.content + '<|end|>' }}", "<|assistant|><|START_THINKING|>")
#: The generation prompt closes the block that rendered answers do not have.
CLOSED = template("{{ '<|assistant|>' + m.content + '<|end|>' }}", "<|assistant|><think>\n\n</think>\n\n")
#: The header of the assistant's turn is no part of the generation prompt.
NO_GENERATION_PROMPT = template("{{ '<|assistant|>final\n' + m.content + '<|end|>' }}", "")
PARTS = (
    "{% for m in messages %}{{ '<|' + m.role + '|>' }}{% for part in m.content %}{{ part['text'] }}{% endfor %}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
ALTERNATING = template(
    "{{ '<|assistant|>' + m.content + '<|end|>' }}",
    "<|assistant|>",
    before="{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}",
)
FORGETFUL = template("{{ '<|assistant|>Thank you for asking.<|end|>' }}", "<|assistant|>")


@cache
def tokenizer() -> Any:
    """The tiny model's; nobody changes it."""
    return transformers.AutoTokenizer.from_pretrained(str(TINY_MODEL), local_files_only=True)


def parts(chat_template: str | None, completion: str, turns: Any = ASKED, **rule: Any) -> tuple[str, str]:
    """Prompt and completion of a row, as the model reads them."""
    renderer = Renderer(
        tokenizer(), end_ids=frozenset({END}), rule=RenderingRule(chat_template=chat_template, **rule)
    )
    row = renderer.render(turns, completion, max_tokens=500, over_long="reject")
    ranges = renderer.ranges(completion, row, chat=True)
    assert len(ranges) == row.completion_tokens
    assert ranges[-1] == (len(completion),) * 2
    answer = tokenizer().decode(row.ids[row.start :])
    assert completion[ranges[0][0] :].strip() == answer.removesuffix("<|end|>")
    return tokenizer().decode(row.ids[: row.start]), answer


@pytest.mark.parametrize(
    ("chat_template", "completion", "ends_with", "explained"),
    [
        (DROPS, ANSWER, "<|end|><|assistant|>", ANSWER),
        (DROPS, REASONED, "<|assistant|><think>\n", CONTINUED),
        (DROPS, CONTINUED, "<|assistant|><think>\n", CONTINUED),
        (EMPTY_BLOCK, ANSWER, "<|assistant|>\n<think>\n\n</think>\n\n", ANSWER),
        (EMPTY_BLOCK, REASONED, "<|assistant|>\n", REASONED),
        (EMPTY_BLOCK, CONTINUED, "<|assistant|>\n<think>\n", CONTINUED),
        (ALWAYS_OPEN, ANSWER, "<|assistant|>\n<think>\n\n</think>\n\n", ANSWER),
        (OTHER_TAGS, ANSWER, "<|end|><|assistant|>", ANSWER),
        (CLOSED, ANSWER, "<|end|><|assistant|>", ANSWER),
        (NO_GENERATION_PROMPT, ANSWER, "<|assistant|>final\n", ANSWER),
        (PARTS, ANSWER, "<|end|><|assistant|>", ANSWER),
    ],
)
def test_where_the_completion_begins(
    chat_template: str, completion: str, *, ends_with: str, explained: str
) -> None:
    """The model's own words are the completion, all of them and nothing else but the end of the turn."""
    prompt, answer = parts(chat_template, completion)
    assert prompt.endswith(ends_with)
    assert ASKED[0].content in prompt
    assert answer == f"{explained}<|end|>"


def test_template_variables() -> None:
    """With thinking switched off the block is part of the generation prompt; the rows are the same."""
    off = parts(EMPTY_BLOCK, ANSWER, template_args={"enable_thinking": False})
    assert off == parts(EMPTY_BLOCK, ANSWER)
    _, reasoned = parts(EMPTY_BLOCK, REASONED, template_args={"enable_thinking": False})
    assert reasoned == f"{REASONED}<|end|>"


def test_the_templates_own_sentence() -> None:
    """What a template says when it refuses a chat is told; the chat's own text is not."""
    with pytest.raises(TemplateRefused, match="row: the chat template failed: System role not supported"):
        parts(ALTERNATING, ANSWER, INSTRUCTED)
    assert parts(ALTERNATING, ANSWER)[1] == f"{ANSWER}<|end|>"
    repeating = "{{ raise_exception('cannot render ' + messages[-1].content) }}"
    with pytest.raises(TemplateRefused, match=r"the chat template failed: TemplateError$") as raised:
        parts(repeating, ANSWER)
    assert "blender" not in str(raised.value)


@pytest.mark.parametrize(
    "completion", [ANSWER, "Acht Pfund, mehr nicht.", "それは約八ポンドの重さがありますが軽いほうです。"]
)
def test_template_without_the_completion(completion: str) -> None:
    """A rendering that lacks the completion is no row, however it looks."""
    with pytest.raises(TemplateRefused, match="leaves the completion's text out"):
        parts(FORGETFUL, completion)


def test_generation_prompt_with_words() -> None:
    """Only think blocks are forgiven: words that no answer begins with are refused as before."""
    with pytest.raises(TemplateNotPrefix):
        parts(template("{{ '<|assistant|>' + m.content + '<|end|>' }}", "<|assistant|>Well, "), ANSWER)


class Bare:
    """The tiny tokenizer without its chat template."""

    chat_template = None

    def __getattr__(self, name: str) -> Any:
        return getattr(tokenizer(), name)

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return tokenizer()(*arguments, **options)


def bare(**rule: Any) -> Renderer:
    """A renderer of a model without a chat template."""
    return Renderer(Bare(), end_ids=frozenset({END}), rule=RenderingRule(**rule))


@pytest.mark.parametrize(
    ("rule", "whole"),
    [
        ({}, f"{ASKED[0].content}{ANSWER}"),
        ({"join": "\n"}, f"{ASKED[0].content}\n{ANSWER}"),
        ({"join": " => ", "join_ends": True}, f"{ASKED[0].content} => {ANSWER}<|end|>"),
    ],
)
def test_joined(rule: dict[str, Any], whole: str) -> None:
    """Without a template, prompt and completion stand behind each other as the rule says; the prompt is not explained."""
    renderer = bare(**rule)
    row = renderer.render(ASKED, ANSWER, plain=True, max_tokens=500, over_long="reject")
    assert tokenizer().decode(row.ids) == whole
    assert (
        tokenizer().decode(row.ids[: row.start]).rstrip()
        == (ASKED[0].content + rule.get("join", "")).rstrip()
    )
    ranges = renderer.ranges(ANSWER, row, chat=True)
    covered = {place for start, end in ranges for place in range(start, end)}
    assert covered == set(range(len(ANSWER)))


def test_messages_without_a_template() -> None:
    """A chat, even of one turn, is refused under a code of its own."""
    with pytest.raises(NoChatTemplate, match=r"`messages` cannot be rendered.*--chat-template") as raised:
        bare().render(ASKED, ANSWER, max_tokens=500, over_long="reject")
    assert raised.value.code == "no_chat_template"
    assert bare(chat_template=PARTS).has_template


def test_token_behind_the_embeddings() -> None:
    """A token that the model has no embedding for is named, not left to an index error."""
    renderer = Renderer(tokenizer(), end_ids=frozenset({END}), embeddings=40)
    with pytest.raises(UnusableModel, match=r"row: token id \d+, but the model has 40 embeddings"):
        renderer.render(ASKED, ANSWER, max_tokens=500, over_long="reject")
