"""What the numbers of a comparison mean, a sentence each, with the parameters of this one."""

from spikeless.experiments.analysis.comparison import Comparison
from spikeless.experiments.analysis.costs import LEAST_PAIRS
from spikeless.experiments.analysis.learning_rates import DEFINITIONS
from spikeless.experiments.analysis.outcome import SPIKE_WIDTH
from spikeless.experiments.analysis.statistics import ENUMERATED, FLIPS, LEVEL

__all__ = ["definitions"]

PERCENT = f"{100 * LEVEL:.0f} %"


def definitions(comparison: Comparison) -> dict[str, str]:
    """Name and meaning of every quantity that the tables and figures show."""
    about = comparison.about
    found = {
        "validation loss": (
            "the mean cross-entropy per token on held-out text after the last step [nats/token]; perplexity is its "
            "exponential; a run that failed counts as infinite"
        ),
        "failed": "the run met a loss, gradient or parameter that is not finite, or its process died",
        "best learning rate": (
            "the one of the lowest median final validation loss over seeds; it is chosen by the same losses that are "
            "then compared, which flatters each arm a little"
        ),
        **{name: text for name, text in DEFINITIONS.items() if name != "edge"},
        "edge of the grid": DEFINITIONS["edge"],
        "interval": (
            f"a mean ± half of its {PERCENT} Student-t interval over seeds; one seed has none; that of the "
            "perplexity is the exponential of that of the loss"
        ),
        "median and band": (
            "figures show the median over seeds, and as a band the smallest to the largest value; runs that failed "
            "are crosses"
        ),
        "paired test": (
            "the same seed gives both arms the same data in the same order and the same draws of the parameters they "
            "share, so differences are taken seed by seed; shown are their median and the two-sided p of the "
            f"sign-flip permutation test of their mean (all flips up to {ENUMERATED} pairs, else {FLIPS:,} random "
            "ones), or of the sign test where a run failed"
        ),
        "spike": (
            f"a step whose value exceeds the mean of the window before it by {SPIKE_WIDTH:g} of its standard "
            f"deviations, one-sided, itself excluded, here with a window of {_windows(comparison)} optimizer steps (a "
            "quarter of the run's steps, at most 128); a value that is not finite is one too"
        ),
        "spike score": (
            "the share of the steps that are spikes, among those with a whole window before them; the number of "
            "spikes counts neighbouring spike steps as one"
        ),
        "diverged at": "the first of the non-finite losses with which a run ended [optimizer step]",
        "gradient norm": "of the whole gradient, before clipping",
        "update norm": (
            "the Euclidean norm of the change of all parameters in one step, weight decay included; the largest is "
            "that of the logged steps only, so larger ones may lie between"
        ),
        "TEV": (
            "token embedding variability: for each row of the input embedding the population standard deviation over "
            "its entries; μ and σ are its mean and standard deviation over the vocabulary. Raw: of the weights. "
            "Effective: of what enters the residual stream, without positions. Relative: raw μ over raw μ before the "
            "first step. Raw readings of differently parametrised embeddings do not compare (arXiv 2409.07787)"
        ),
        "gradient variance": (
            "exact: the unbiased variance of the mean gradients of equal parts of a batch, divided by their number, "
            "mean over parameters; of a run, the geometric mean over its readings"
        ),
        "hidden variance": (
            "of the residual stream over its width, mean over the tokens of one micro-batch; its growth is that after "
            "the last block over that before the first (arXiv 2312.16903)"
        ),
        "FLOPs per token": (
            "of the forward and backward pass [FLOP/token]: 6 per matrix entry, the head counted and lookups not, and "
            "6 × layers × sequence length × width for causal attention"
        ),
        "tokens/s": f"the median over steps without a run's first tenth{_shared(about.jobs)}",
        "peak memory": (
            "the largest resident memory of the training process during the run, above what it held before it [bytes]; "
            "the process has done a step of this arm and shape by then, so no run pays for what is set aside once; "
            "that of a GPU is not in it"
        ),
        "ratio of a cost": (
            "over the baseline's, pair by pair: finished runs of the same learning rate and seed, which workers take "
            "in turn; shown are the median over pairs, and the smallest to the largest; fewer than "
            f"{LEAST_PAIRS} pairs give no ratio"
        ),
    }
    if any(run.scores for run in comparison.outcomes):
        found["scores"] = (
            "of the last checkpoint, as `spikeless eval` computes them: perplexity and bits per byte of the first "
            "validation documents, each by itself, and LAMBADA where it was given; they are not the validation loss, "
            "which is of windows of a fixed length"
        )
    return found


def _windows(comparison: Comparison) -> str:
    windows = sorted({spikes.window for run in comparison.outcomes for spikes in run.spikes.values()})
    return " to ".join(map(str, dict.fromkeys((windows[0], windows[-1])))) if windows else "as many"


def _shared(jobs: int) -> str:
    if jobs == 1:
        return "; one run at a time"
    return f"; {jobs} runs at a time shared the machine, so a single run alone may be faster"
