#!/usr/bin/env bash
# safetensors.numpy saves the memory of an array, not its values, if the two are not in the same order.
#
# Versions:  safetensors 0.8.0, numpy 2.4.6
# One would guess: a transposed array is saved as it reads, or refused, as safetensors.torch refuses a tensor that is
# not contiguous. What happens: the shape is right and the numbers are permuted, without a word. Whoever exports
# `weight.T` (Conv1D to Linear, Flax to torch) has a file that loads and is wrong. `numpy.ascontiguousarray` helps.
#
# Output:
#   transposed: saved [[0, 3], [1, 4], [2, 5]], loaded [[0, 1], [2, 3], [4, 5]]
#   two of three columns: saved [[0, 1], [3, 4]], loaded [[0, 1], [2, 3]]
#   in Fortran's order: saved [[0, 1, 2], [3, 4, 5]], loaded [[0, 3, 1], [4, 2, 5]]
set -euo pipefail
unset PYTHONPATH
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check safetensors==0.8.0 numpy==2.4.6
"$work/venv/bin/python" - <<'END'
import numpy as np
from safetensors.numpy import load, save

matrix = np.arange(6, dtype=np.float32).reshape(2, 3)
arrays = {
    "transposed": matrix.T,
    "two of three columns": matrix[:, :2],
    "in Fortran's order": np.asfortranarray(matrix),
}
for name, array in arrays.items():
    loaded = load(save({"array": array}))["array"]
    print(f"{name}: saved {array.astype(int).tolist()}, loaded {loaded.astype(int).tolist()}")
    assert loaded.shape == array.shape and not np.array_equal(loaded, array), "the behaviour has changed"
    assert np.array_equal(load(save({"array": np.ascontiguousarray(array)}))["array"], array)
END
