"""spikeless: language-model pre-training that does not blow up."""

from spikeless import recipes as recipes
from spikeless.errors import UnhealthyRun as UnhealthyRun
from spikeless.errors import UserError as UserError
from spikeless.experiments.compare import compare as compare
from spikeless.preflight.audit import audit as audit
from spikeless.run import RunConfig as RunConfig
from spikeless.training.loop import train as train
