"""`spikeless generate`."""

import itertools
import sys
from pathlib import Path
from typing import Annotated

import torch
import typer

from spikeless.cli._options import Outside
from spikeless.config import named_modules
from spikeless.evaluation import load_subject
from spikeless.training.generate import SamplingConfig, written
from spikeless.training.generate import generate as continue_prompt

__all__ = ["generate"]


def generate(
    path: Annotated[Path, typer.Argument(help="A run folder, a checkpoint, or a Hugging Face folder.")],
    prompt: Annotated[str, typer.Option("--prompt", help="Text to continue; empty means a new document.")] = "",
    max_tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="New tokens at most.")] = 100,
    temperature: Annotated[float, typer.Option("--temperature", help="0 takes the likeliest token.")] = 0.8,
    top_k: Annotated[int, typer.Option("--top-k", help="Only the k likeliest tokens; 0 keeps all.")] = 0,
    top_p: Annotated[float, typer.Option("--top-p", help="Only the likeliest tokens with this probability.")] = 1.0,
    outside: Outside = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the draws.")] = 0,
) -> None:
    """Continue a text with a trained model."""
    sampling = SamplingConfig(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
    subject = load_subject(path, device=torch.device("cpu"), trusted=named_modules(outside or ()))
    tokenizer, ids = subject.tokenizer, subject.encode(prompt)
    start = [*tokenizer.reading.beginning, *ids] if ids else subject.prefix
    tokens = continue_prompt(subject.scorer.model, start, max_tokens, sampling, subject.scorer.context_length)
    sys.stdout.write(prompt)
    for text in written(tokenizer, ids, itertools.takewhile(lambda token: token != tokenizer.end_of_text, tokens)):
        sys.stdout.write(text)
        sys.stdout.flush()
    sys.stdout.write("\n")
