"""Data: corpora, tokenizers, token shards, and sampling that depends on nothing but the seed and the step."""

from spikeless.data.corpora import Corpus as Corpus
from spikeless.data.corpora import parse_corpus as parse_corpus
from spikeless.data.encoding import refuse_rowless as refuse_rowless
from spikeless.data.mixture import Mixture as Mixture
from spikeless.data.prepare import PreparedData as PreparedData
from spikeless.data.prepare import check_data as check_data
from spikeless.data.prepare import prepare as prepare
from spikeless.data.prepare import prepare_folder as prepare_folder
from spikeless.data.prepare import prepared_tokenizer as prepared_tokenizer
from spikeless.data.reading import Reading as Reading
from spikeless.data.reading import split_reading as split_reading
from spikeless.data.sampling import Sampler as Sampler
from spikeless.data.sampling import validation_batches as validation_batches
from spikeless.data.sampling import validation_bytes_per_token as validation_bytes_per_token
from spikeless.data.shard_writer import write_shards as write_shards
from spikeless.data.shards import Tokens as Tokens
from spikeless.data.shards import open_shards as open_shards
from spikeless.data.tokenizers import Tokenizer as Tokenizer
from spikeless.data.tokenizers import load_tokenizer as load_tokenizer
from spikeless.data.tokenizers import parse_tokenizer as parse_tokenizer
