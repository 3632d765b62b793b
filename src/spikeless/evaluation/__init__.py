"""Numbers of a finished checkpoint: perplexity, bits per byte, LAMBADA, TEV."""

from spikeless.evaluation.lambada import Lambada as Lambada
from spikeless.evaluation.lambada import LambadaExample as LambadaExample
from spikeless.evaluation.lambada import evaluate_lambada as evaluate_lambada
from spikeless.evaluation.lambada import read_lambada as read_lambada
from spikeless.evaluation.perplexity import Perplexity as Perplexity
from spikeless.evaluation.perplexity import evaluate_perplexity as evaluate_perplexity
from spikeless.evaluation.subject import Subject as Subject
from spikeless.evaluation.subject import load_subject as load_subject
