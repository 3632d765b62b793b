import json
import re

import torch

from spikeless.evaluation.tev import find_sources, measure, write_tev_page


def page_of(paths, file):
    readings = [measure(source) for path in paths for source in find_sources(str(path))]
    write_tev_page(readings, file)
    html = file.read_text(encoding="utf-8")
    return html, json.loads(re.search(r'<script type="application/json" id="figures">(.*?)</script>', html, re.S)[1])


def test_the_histogram_counts_every_row(folder, tmp_path):
    wide = folder({"wte.weight": torch.randn(500, 64) * torch.logspace(-3, 0, 500)[:, None]}, name="wide")
    table = torch.randn(300, 64)
    table[:7], table[7, 0] = 0, torch.nan
    narrow = folder({"wte.weight": table}, name="narrow")
    html, figures = page_of([wide, narrow], tmp_path / "tev.html")
    (figure,) = figures
    assert figure["layout"]["xaxis"]["type"] == "log"
    for axis in ("xaxis", "yaxis"):
        assert re.search(r"\[.+\]$", figure["layout"][axis]["title"]["text"])
    first, second = (json_array(line["y"]) for line in figure["data"])
    assert abs(sum(first) - 100) < 1e-9
    assert abs(sum(second) - 100 * 292 / 300) < 1e-9
    assert html.count('class="legend"') == 1
    assert "rows of one value: 7, of them zero: 7" in html
    assert "rows that are not finite: 1" in html
    assert "://" not in re.sub(r"<script.*?</script>", "", html, flags=re.S)


def json_array(array):
    if isinstance(array, list):
        return array
    import base64

    import numpy as np

    return np.frombuffer(base64.b64decode(array["bdata"]), dtype=array["dtype"]).tolist()


def test_all_rows_alike_and_no_rows_at_all(folder, tmp_path):
    row = torch.arange(8.0)
    alike = folder({"wte.weight": row.repeat(5, 1)}, name="alike")
    _, (figure,) = page_of([alike], tmp_path / "alike.html")
    assert sum(json_array(figure["data"][0]["y"])) == 100
    zeros = folder({"wte.weight": torch.zeros(5, 8)}, name="zeros")
    _, figures = page_of([zeros], tmp_path / "zeros.html")
    assert figures == []
