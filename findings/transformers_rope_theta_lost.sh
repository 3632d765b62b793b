#!/usr/bin/env bash
# A config.json that transformers 5 wrote is read by transformers 4 with another rotary base, without a warning.
#
# Versions:  transformers 5.23.0 writes, transformers 4.57.6 reads
# One would guess: a base that is not the usual 10,000 survives, or the older version refuses. What happens: version 5
# writes it to `rope_parameters` alone; version 4 knows only the field `rope_theta`, keeps `rope_parameters` as a field
# that nothing reads, and takes 10,000. The model loads, all weights fit, and every position is turned by other angles.
# A file with both fields is read alike by both.
#
# Output:
#   written by 5.23.0: rope_theta is absent, rope_parameters {'rope_theta': 500000.0, 'rope_type': 'default'}
#   read by 4.57.6: rope_theta 10000.0, rope_scaling None
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export HF_HOME="$work/hf" HF_HUB_OFFLINE=1 TRANSFORMERS_NO_ADVISORY_WARNINGS=1
for version in 5.23.0 4.57.6; do
    python3 -m venv "$work/$version"
    "$work/$version/bin/pip" install --quiet --disable-pip-version-check "transformers==$version"
done
cd "$work"
5.23.0/bin/python - <<'END'
import json
from pathlib import Path

from transformers import LlamaConfig

LlamaConfig(rope_theta=500000.0).save_pretrained("model")
written = json.loads(Path("model/config.json").read_text())
print(f"written by 5.23.0: rope_theta is {written.get('rope_theta', 'absent')}, rope_parameters", written["rope_parameters"])
assert "rope_theta" not in written and written["rope_parameters"]["rope_theta"] == 500000.0, "the behaviour has changed"
END
4.57.6/bin/python -W error - <<'END'
from transformers import AutoConfig

read = AutoConfig.from_pretrained("model")
print(f"read by 4.57.6: rope_theta {read.rope_theta}, rope_scaling {read.rope_scaling}")
assert read.rope_theta == 10000.0 and read.rope_scaling is None, "the behaviour has changed"
END
