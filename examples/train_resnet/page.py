"""The HTML page that shows a comparison; beside its pictures it needs no other file and no network."""

import html
import json
from pathlib import Path
from string import Template

PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; color: #222; background: #fff }
body { max-width: 66rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem } h2 { font-size: 1.1rem; margin-top: 2rem }
img { width: 100%; height: auto }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; white-space: nowrap }
th:nth-child(-n+3), td:nth-child(-n+3) { text-align: left }
tr.best { background: #fff4d6; font-weight: 600 }
div { overflow-x: auto } code, pre { font-size: .85rem } pre { overflow-x: auto; background: #f6f6f6; padding: .8rem }
</style>
</head>
<body>
<h1>$title</h1>
<p><strong>$answer</strong></p>
<p>$facts</p>
<img src="accuracy.png" alt="Validation accuracy against epochs, one line for each run">
<div><table>
<thead><tr>$headings</tr></thead>
<tbody>
$rows
</tbody>
</table></div>
<p>The table: $caption.</p>
<img src="loss.png" alt="Training and validation loss against epochs, one line for each run">
<h2>Transformations</h2>
<pre>$transformations</pre>
<h2>How it was run</h2>
<pre>$arguments</pre>
<p>With $versions. All numbers are in <a href="results.json">results.json</a>.</p>
</body>
</html>
""")


def write_page(path: Path, title: str, rows: list[dict[str, str]], caption: str, found: dict) -> None:
    """Writes the page.

    Args:
      path: of the HTML file; `accuracy.png`, `loss.png` and `results.json` lie beside it.
      title: of the page.
      rows: the table: each run's cells by column; a star in the nameless column marks the best run.
      caption: what the table's columns mean.
      found: what is in `results.json`.
    """
    data, network = found["data"], found["network"]
    facts = (
        f"{network['name']}, {network['parameters']:,} weights, trained on {data['train']:,} pictures, compared on "
        f"{data['validation']:,} others, tested on {data['test']:,} more. Runs: {len(rows)}; compilations of the "
        f"training step: {found['compilations_of_the_training_step']}; {found['seconds']:.0f} seconds "
        f"({found['device']['name']}); {found['started']}."
    )
    page = PAGE.substitute(
        title=html.escape(title),
        answer=html.escape(found["answer"]),
        caption=html.escape(caption),
        facts=html.escape(facts),
        headings="".join(f"<th>{html.escape(heading)}</th>" for heading in rows[0]),
        rows="\n".join(map(_row, rows)),
        transformations=html.escape("\n".join(run["transformation"] for run in found["runs"])),
        arguments=html.escape("\n".join(f"{k}: {json.dumps(v)}" for k, v in found["arguments"].items())),
        versions=html.escape(", ".join(f"{name} {version}" for name, version in found["versions"].items())),
    )
    path.write_text(page, encoding="utf-8")


def _row(cells: dict[str, str]) -> str:
    kind = ' class="best"' if cells[""] else ""
    return f"<tr{kind}>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells.values()) + "</tr>"
