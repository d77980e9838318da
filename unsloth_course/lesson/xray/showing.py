"""The X-ray as text in a terminal and as HTML in a notebook."""

import html
import shutil
import textwrap
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby

from unsloth_course.lesson.xray.tokens import Token

MOST_TOKENS_SHOWN = 240  # of one run of tokens in the same state


SIGNS = {" ": "␣", "\n": "⏎", "\r": "␍", "\t": "⇥"}
# Half-transparent, so that the theme's own text colour stays readable on them in the light and in the dark.
BACKGROUNDS = {
    "trained": "rgba(46,160,67,.32)",
    "masked": "rgba(128,128,128,.16)",
    "special": "rgba(56,139,253,.28)",
    "end": "rgba(163,113,247,.38)",
    "cut": "rgba(248,81,73,.22)",
}
LEGEND = [
    (Token("text", 0, "trained", True), "trained: underlined"),
    (Token("text", 0, "masked", False), "masked: read, not trained"),
    (Token("<|special|>", 0, "special", False), "special token: in ‹ ›, underlined where trained"),
    (Token("<|end|>", 0, "end", True), "end of sequence: ■"),
    (Token("text", 0, "cut", False), "cut off by max_length: struck through"),
]
SIGNS_EXPLAINED = "␣ space, ⏎ new line, ⇥ tab, <0x..> one byte of a character"


def _visible(token: Token) -> str:
    """The token's text with white space and invisible characters shown by signs."""
    text = "".join(_sign(character) for character in token.text)
    if token.text and unicodedata.combining(token.text[0]):
        text = "◌" + text
    if token.state == "end":
        return f"‹{text}›■"
    return f"‹{text}›" if token.state == "special" else text


def _sign(character: str) -> str:
    if character in SIGNS:
        return SIGNS[character]
    # Controls, and marks that turn the direction of writing, could hide or reorder what is shown.
    if unicodedata.category(character) in {"Cc", "Cf", "Cs", "Zl", "Zp"}:
        return f"<U+{ord(character):04X}>"
    return character


def _runs(tokens: list[Token]) -> Iterator[tuple[str, list[Token], int]]:
    """Neighbouring tokens with the same fate: its name, the tokens to show, and how many are left out after half."""
    for fate, group in groupby(tokens, lambda t: "cut off" if t.state == "cut" else ("masked", "trained")[t.trained]):
        run = list(group)
        hidden = max(0, len(run) - MOST_TOKENS_SHOWN)
        if hidden:
            half = MOST_TOKENS_SHOWN // 2
            run = run[:half] + run[-half:]
        yield fate, run, hidden


def _numbers(tokens: list[Token]) -> str:
    kept = [token for token in tokens if token.state != "cut"]
    trained = sum(token.trained for token in kept)
    cut = len(tokens) - len(kept)
    share = trained / len(kept) if kept else 0.0
    return f"{len(kept):,} tokens, {trained:,} trained ({share:.0%})" + (f", {cut:,} cut off" if cut else "")


def _wrap(head: str, pieces: list[str], width: int) -> list[str]:
    """Lines of pieces between bars; a break stands only between two tokens."""
    lines, line = [], head
    for piece in pieces:
        if len(line) + len(piece) + 1 > width and line.strip() and line != head:
            lines.append(line)
            line = " " * len(head)
        line += piece + "│"
    return [*lines, line]


def _token_html(token: Token, hint: bool = False) -> str:
    # ins and del are underlined and struck through by themselves, also where a viewer strips the style.
    tag = "del" if token.state == "cut" else "ins" if token.trained else "span"
    style = f"background:{BACKGROUNDS[token.state]};color:inherit;font-family:monospace;padding:1px 2px"
    title = f' title="id {token.id}"' if hint else ""
    new_line = "<br>" if hint and token.text.endswith("\n") else ""
    return f'<{tag} style="{style}"{title}>{html.escape(_visible(token))}</{tag}>{new_line}'


@dataclass(frozen=True, repr=False)
class XRay:
    """What `look` found. A notebook shows it as HTML, a terminal as text.

    rows: one list of tokens per row shown (two per row for preference data: chosen, rejected).
    names: a name for each of them, such as "row 0".
    warnings: sentences about the whole train dataset.
    summary: how many rows were checked and which share of their tokens is trained.
    """

    rows: list[list[Token]]
    names: list[str]
    warnings: list[str] = field(default_factory=list)
    summary: str = ""

    def __repr__(self) -> str:
        width = min(120, shutil.get_terminal_size((100, 24)).columns)
        lines = [line for warning in self.warnings for line in textwrap.wrap(f"Warning: {warning}", width)]
        lines += [self.summary] if self.summary else []
        for name, tokens in zip(self.names, self.rows, strict=True):
            lines += ["", f"{name}: {_numbers(tokens)}"]
            for fate, run, hidden in _runs(tokens):
                pieces = [_visible(token) for token in run]
                if hidden:
                    pieces.insert(len(pieces) // 2, f"... {hidden:,} more ...")
                lines += _wrap(f"  {fate:<8} ", pieces, width)
        legend = f"Tokens stand between │. ‹ › special token, ■ end of sequence, {SIGNS_EXPLAINED}."
        lines += ["", *textwrap.wrap(legend, width)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        parts = ['<div style="line-height:1.9">']
        if self.warnings:
            items = "".join(f"<li><b>Warning:</b> {html.escape(warning)}</li>" for warning in self.warnings)
            parts.append(f'<ul style="border-left:4px solid #d29922;padding-left:1.6em">{items}</ul>')
        if self.summary:
            parts.append(f"<p>{html.escape(self.summary)}</p>")
        legend = " &nbsp; ".join(f"{_token_html(token)} {html.escape(meaning)}" for token, meaning in LEGEND)
        parts.append(f"<p><small>{legend} &nbsp; {html.escape(SIGNS_EXPLAINED)}</small></p>")
        for name, tokens in zip(self.names, self.rows, strict=True):
            parts.append(f"<p><b>{html.escape(name)}</b>: {_numbers(tokens)}<br>")
            for _, run, hidden in _runs(tokens):
                pieces = [_token_html(token, hint=True) for token in run]
                if hidden:
                    pieces.insert(len(pieces) // 2, f"<i>... {hidden:,} more ...</i>")
                # The line break in the source shows as a space: it keeps tokens apart where styles are stripped.
                parts.append("\n".join(pieces) + "\n")
            parts.append("</p>")
        parts.append("</div>")
        return "".join(parts)
