"""`spikeless generate`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from spikeless.training.generate import SamplingConfig, load_model
from spikeless.training.generate import generate as continue_prompt

__all__ = ["generate"]


def generate(
    path: Annotated[Path, typer.Argument(help="A run folder, or one checkpoint in it.")],
    prompt: Annotated[str, typer.Option("--prompt", help="Text to continue; empty means a new document.")] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="New tokens at most.")] = 100,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", help="Only the k likeliest tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="Only the likeliest tokens with this probability.")] = 1.0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
) -> None:
    """Continue a text with a trained model."""
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    model, tokenizer = load_model(path)
    start = tokenizer.encode(prompt) or [tokenizer.end_of_text]
    ids: list[int] = []
    shown = ""
    sys.stdout.write(prompt)
    for token in continue_prompt(model, start, max_tokens, sampling):
        if token == tokenizer.end_of_text:
            break
        ids.append(token)
        text = tokenizer.decode(ids)
        if not text.endswith("\ufffd"):  # a character may take several tokens
            sys.stdout.write(text[len(shown) :])
            sys.stdout.flush()
            shown = text
    sys.stdout.write("\n")
