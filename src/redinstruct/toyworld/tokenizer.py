"""The toy's tokenizer: one token per word, saved and loaded like any other fast tokenizer of transformers."""

from __future__ import annotations

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from redinstruct.toyworld import frames
from redinstruct.toyworld.vocabulary import BOS, EOS, NEW_LINE, PAD, UNK, vocabulary

CHAT_TEMPLATE = """\
{{- bos_token -}}
{%- for message in messages -%}
{%- if message['role'] == 'assistant' -%}
assistant:{% generation %} {{ message['content'] }}{{ eos_token }}{% endgeneration %}
{%- elif message['role'] == 'user' -%}
{{ 'human: ' + message['content'] + '\n' }}
{%- else -%}
{{ message['content'] + '\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
assistant:
{%- endif -%}
"""


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Words in lower case, marks and new lines as tokens; ``Red-LM`` and ``Base-LM`` are words of their own."""
    backend = Tokenizer(models.WordLevel({word: number for number, word in enumerate(vocabulary())}, unk_token=UNK))
    backend.normalizer = normalizers.Sequence(
        [normalizers.Replace(Regex(r"\s*\n\s*"), NEW_LINE), normalizers.Lowercase()]
    )
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[ \t\r]+"), "removed"),
            pre_tokenizers.Split(Regex(r"\n|[a-z]+(?:'[a-z]+)?|[0-9]+|[^\w\s]"), "isolated"),
        ]
    )
    backend.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, vocabulary().index(BOS))]
    )
    backend.decoder = _decoder()
    # Matched before lower-casing, so that the roles keep their letter case.
    backend.add_tokens([AddedToken(name, normalized=False) for name in (frames.ASKER, frames.ANSWERER)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call, unused-ignore]
        tokenizer_object=backend,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        pad_token=PAD,
        padding_side="left",
        model_max_length=1024,
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    )


def _decoder() -> decoders.Decoder:
    """Join words with spaces, then set the marks as a person would."""
    marks = [decoders.Replace(f" {mark}", mark) for mark in (".", ",", "?", "!", ":", ")")]
    rest = [
        decoders.Replace("( ", "("),
        decoders.Replace(" \n", "\n"),
        decoders.Replace("\n ", "\n"),
        # The form in which every shipped CoU text writes it, and in which thoughts are recognised.
        decoders.Replace("(internal thought:", "(Internal thought:"),
    ]
    return decoders.Sequence([decoders.WordPiece(prefix="##", cleanup=False), decoders.Fuse(), *marks, *rest])
