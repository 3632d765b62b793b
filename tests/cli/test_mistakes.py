"""A user's mistake is one message on stderr that says what would be right, exit code 2, and no traceback."""

import subprocess
import sys

import pytest

MISTAKES = [
    # a name
    ("trian gpt2_nano", "Did you mean 'train'"),
    ("train", "name a recipe"),
    ("train gpt2_nan", "did you mean 'gpt2_nano'"),
    ("train gpt2_nano --with scaled_embd $TINY", "did you mean 'scaled_embed'"),
    ("train gpt2_nano --with 'mlra(rnk=2)' $TINY", "did you mean 'rank'"),
    ("train gpt2_nano $TINY --set optim.learning_rate=1", "has no 'optim.learning_rate'"),
    ("train gpt2_nano $TINY --set lr=1", "did you mean 'optim.lr'"),
    ("train gpt2_nano $TINY --stes 4", "No such option"),
    ("list recipe", "did you mean 'recipes'"),
    ("train gpt2_nano --with nowhere.lab:Foo $TINY", "cannot be imported"),
    ("train gpt2_nano $SMALL --data tetx:notes/*.txt", "did you mean 'text:notes/*.txt'"),
    ("train gpt2_nano $SMALL --data tetx:v:", "did you mean 'text:v:'"),  # no emoji of what a user wrote
    ("train gpt2_nano $TINY --data a.txt b.txt", "values with spaces into quotation"),
    ("train gpt2_nano $TINY --tokenizer byte", "did you mean 'bytes'"),
    ("train gpt2_nano $TINY --set \"metrics.diagnostics=['tve']\"", "did you mean 'tev'"),
    ("train gpt2_nano $TINY --set \"metrics.loggers=['tensorbord']\"", "did you mean 'tensorboard'"),
    # a value
    ("train gpt2_nano $TINY --set model.width=30 --set model.num_heads=4", "not divisible by model.num_heads=4"),
    ("train gpt2_nano --with 'mlra(rank=17)' $TINY", "use 1 to 16"),
    ("train gpt2_nano --with 'mlra(rank=0)' $TINY", "use 1 to 16"),
    ("train gpt2_nano $TINY --set steps=soon", "expected a whole number, got 'soon'"),
    ("train gpt2_nano $TINY --set optim.lr=-1", "optim.lr=-1.0 is out of range"),
    ("train gpt2_nano $TINY --set optim.lr=1e999", "expected a finite number"),
    ("train gpt2_nano $TINY --set data.micro_batches=3", "not divisible by data.micro_batches=3"),
    ("train gpt2_nano $TINY --precision fp16", "did you mean 'bf16'"),
    ("train gpt2_nano $TINY --device tpu", "use auto, cpu, cuda or cuda:N"),
    ("train gpt2_nano $TINY --device cuda:99", "not on this machine"),
    ("train gpt2_nano --dry-run --device tpu", "use auto, cpu, cuda or cuda:N"),
    ("train gpt2_nano $TINY --set model.vocab_size=100", "has rows for ids below 100 only"),
    ("train gpt2_nano $TINY --with scaled_embed+embed_norm", "exclude each other"),
    ("train gpt2_nano $TINY --with \"mlra(rank=__import__('os'))\"", "cannot read the arguments"),
    ("train gpt2_nano $TINY --set \"optim.lr=__import__('os').getpid()\"", "expected a number"),
    # the same thing twice
    ("train gpt2_nano $TINY --steps 4", "--steps and --set steps=… both set steps"),
    ("train gpt2_nano $SMALL --lr 1 --set 'optim=AdamW(lr=2)'", "--lr and --set optim.lr=… both set optim.lr"),
    ("train gpt2_nano $SMALL --seed 1 --set seed=2", "--seed and --set seed=… both set seed"),
    ("train gpt2_nano $TINY --set data.spec=pydocs", "--data and --set data.spec=… both set data.spec"),
    ("train gpt2_nano $SMALL --lr -1", "optim.lr=-1.0 is out of range"),
    # the corpus
    ("train gpt2_nano $SMALL --data 'text:nothing/*.txt'", "no file matches 'nothing/*.txt'"),
    ("train gpt2_nano $SMALL --data 'text:blank.txt'", "blank"),
    ("train gpt2_nano $SMALL --data 'text:short/*.txt'", "give a second file"),
    ("train gpt2_nano $SMALL --data 'text:few.txt'", "sequence_length"),
    ("train gpt2_nano $SMALL --data 'text:binary.txt'", "binary.txt: a NUL byte"),
    ("train gpt2_nano $SMALL --data 'text:latin.txt'", "latin.txt: invalid UTF-8 at byte 3"),
    # the folder
    ("train gpt2_nano $TINY --out blank.txt", "cannot write"),
    ("generate nowhere", "nowhere is no folder"),
    ("runs nowhere", "holds no run"),
    ("report notes", "holds no run"),
    # Hugging Face folders
    ("export nowhere --out made", "neither a run folder"),
    ("export notes", "Missing option '--out'"),
    ("export notes --out made --dtype int8", "valid dtypes: bf16, fp16, fp32"),
    ("train gpt2_nano $TINY --init-from notes", "it has no config.json"),
    ("train gpt2_nano $TINY --init-from nowhere --resume --out made", "it has no config.json"),
    ("train gpt2_nano $TINY --set init_from=notes", "use --init-from"),
    # sampling
    ("generate notes --top-p 0", "top-p 0.0 is out of range"),
    ("generate notes --temperature nan", "temperature nan is out of range"),
    ("generate notes --top-k -1", "top-k -1 is out of range"),
    ("generate notes --max-tokens 0", "--max-tokens"),
    # arms
    ("compare gpt2_nano $TINY", "Missing option '--arms'"),
    ("compare gpt2_nano --arms '' $TINY", "write arms separated"),
    ("compare gpt2_nano --arms 'mlra;;baseline' $TINY", "write arms separated"),
    ("compare gpt2_nano --arms 'mlra; mlra' $TINY", "names mlra more than once"),
    ("compare gpt2_nano --arms 'baseline; scaled_embed+embed_norm' $TINY", "exclude each other"),
    ("compare gpt2_nano --arms 'baseline' --seeds 0 $TINY", "use a whole number from 1"),
    ("compare gpt2_nano --arms baseline --steps 5 --set steps=3", "--steps and --set steps=… both set"),
    ("compare gpt2_nano --arms baseline --steps 9 --set schedule.warmup_steps=90", "comes to 0.1 of its peak only"),
    ("compare gpt2_nano --arms baseline --lrs 1e-3;3e-3 $TINY", "--lrs '1e-3;3e-3': write numbers separated by commas"),
    ("compare gpt2_nano --arms baseline --lrs 1e-3,-1 $TINY", "--lrs: -1.0 is out of range"),
    ("compare gpt2_nano --arms baseline --lrs 1e-3,0.001 $TINY", "--lrs names 0.001 more than once"),
    ("compare gpt2_nano --arms baseline --lrs 0.1 --set optim.lr=1 $TINY", "--set optim.lr=1 and --lrs both set"),
    ("compare gpt2_nano --arms baseline --depths 1.5 $TINY", "--depths '1.5': write whole numbers separated by commas"),
    ("compare gpt2_nano --arms baseline --depths 2 $TINY", "--set model.num_layers=1 and --depths both set"),
    ("compare gpt2_nano --arms baseline --depths 0 --data 'text:notes/*.txt'", "--depths: 0 is out of range"),
    ("compare gpt2_nano --arms baseline --widths 30 --data 'text:notes/*.txt'", "not divisible by model.num_heads=4"),
    ("compare gpt2_nano --arms baseline --widths wide $TINY", "--widths 'wide': write whole numbers"),
    ("compare gpt2_nano --arms baseline --jobs 0 $TINY", "--jobs"),
    ("compare gpt2_nano --arms baseline --jobs two $TINY", "--jobs"),
    ("compare gpt2_nano --arms baseline --add-seeds -1 $TINY", "--add-seeds"),
    ("compare gpt2_nano --arms baseline --steps 0", "steps=0 is out of range"),
    ("compare gpt2_nano --arms baseline --lambada nowhere.jsonl $TINY", "cannot read nowhere.jsonl: No such file"),
    ("compare gpt2_nano --arms baseline --lambada few.txt $TINY", "few.txt, line 1 is not JSON"),
    ("compare gpt2_nano --arms baseline --out blank.txt $TINY", "cannot write"),
]


@pytest.fixture
def odd_files(desk):
    """Corpora that are none."""
    (desk / "blank.txt").write_text(" \n" * 50)
    (desk / "binary.txt").write_bytes(b"text\0more" * 50)
    (desk / "latin.txt").write_bytes("caf\xe9 ".encode("latin-1") * 50)
    (desk / "few.txt").write_text("a few words")
    (desk / "short").mkdir()
    for number in range(3):
        (desk / "short" / f"{number}.txt").write_text("a")
    return desk


@pytest.mark.parametrize(("line", "message"), MISTAKES, ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_one_message_and_exit_code_2(line, message, odd_files, spikeless):
    done = spikeless(line)
    assert done.code == 2
    assert message in done.err.replace("\n", " ")
    assert done.err.count("error:") <= 1
    assert not done.out or (line.startswith("train ") and ", into " in done.out and done.out.count("\n") == 1)
    assert not [path for path in odd_files.rglob("*") if path.name in ("run.json", "status.json", "pwned")]


def test_a_run_that_is_there_is_never_overwritten(desk, spikeless):
    assert spikeless("train gpt2_nano $TINY --out run").code == 0
    before = (desk / "run" / "metrics.jsonl").read_bytes()
    again = spikeless("train gpt2_nano $TINY --out run")
    assert (again.code, "already holds a run; add --resume" in again.err) == (2, True)
    other = spikeless("train gpt2_nano $TINY --set optim.lr=0.5 --with scaled_embed --out run --resume")
    assert other.code == 2
    assert "optim.lr: 0.001 -> 0.5" in other.err
    assert "model.embedding.multiplier: 1.0 -> 4.0" in other.err
    fewer = spikeless("train gpt2_nano $TINY --set steps=1 --out run --resume")
    assert fewer.code in (0, 2)
    assert (desk / "run" / "metrics.jsonl").read_bytes() == before


def test_generate_without_a_checkpoint(desk, spikeless):
    assert spikeless("train gpt2_nano $TINY --set optim.lr=1e30 --set gradients=none --out run").code == 1
    done = spikeless("generate run")
    assert (done.code, "has no checkpoint yet" in done.err) == (2, True)


def test_a_folder_in_use_is_refused(desk, spikeless):
    """The lock is another process's; it ends with that process, however it ends."""
    code = (
        "import sys, pathlib\nfrom spikeless.files import locked\n"
        "with locked(pathlib.Path('run')):\n    print('held', flush=True)\n    sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        done = spikeless("train gpt2_nano $TINY --out run")
        assert (done.code, "run is in use by another process" in done.err) == (2, True)
        holder.kill()
    assert spikeless("train gpt2_nano $TINY --out run").code == 0


def test_a_damaged_metrics_file_is_named(desk, spikeless):
    assert spikeless("train gpt2_nano $TINY --out run").code == 0
    file = desk / "run" / "metrics.jsonl"
    file.write_text("rubbish\n" + file.read_text())
    for line in ("train gpt2_nano $TINY --set steps=4 --resume --out run", "runs run", "report run"):
        done = spikeless(line)
        assert (done.code, "metrics.jsonl, line 1" in done.err) == (2, True)


@pytest.mark.parametrize("name", ["run.json", "environment.json", "tokenizer.json"])
@pytest.mark.parametrize("content", ["", "[]", "{}"])
def test_a_damaged_run_folder_is_named(name, content, desk, spikeless):
    assert spikeless("train gpt2_nano $TINY --set steps=1 --out run").code == 0
    (desk / "run" / name).write_text(content)
    done = spikeless("train gpt2_nano $TINY --set steps=1 --resume --out run")
    assert done.code == 2
    assert name.partition(".")[0] in done.err
