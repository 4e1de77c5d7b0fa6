"""Write examples/lab.ipynb and examples/lab.de.ipynb from one list of cells, so that they cannot drift.

    python scripts/notebooks.py          writes both, without outputs

A text has two versions, code has one: what is run is the same in both languages.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
NAMES = {"en": "lab.ipynb", "de": "lab.de.ipynb"}
SLOW = "slow"  # cells that need a trained model: about two minutes on two cores

# (tag, English, German) is a text, (tag, code) a cell to run; LANG becomes the notebook's language.
CELLS: list[tuple[str, ...]] = [
    ("", """# The lab: a language model in-house

You advise a research team. It has 100,000 scientific articles, domain terms of its own, and one GPU with 24 GB that is
paid for. Three questions: cloud or own machine? Does it fit? What does the LoRA configuration look like, and does it
help?

Run the cells from top to bottom. Nothing leaves this computer. Everything up to *Prepare* takes seconds; training and
evaluation of the tiny embedded model about two minutes on two cores. It shows the way, not quality.""",
     """# Das Aufgabenblatt: ein Sprachmodell im eigenen Haus

Sie beraten ein Forschungsteam. Es hat 100.000 wissenschaftliche Artikel, eigene Fachbegriffe und eine bezahlte GPU mit
24 GB. Drei Fragen: Cloud oder eigener Rechner? Passt es? Wie sieht die LoRA-Konfiguration aus, und hilft sie?

Führen Sie die Zellen von oben nach unten aus. Nichts verlässt diesen Rechner. Alles bis *Aufbereiten* dauert Sekunden,
Training und Auswertung des winzigen eingebetteten Modells etwa zwei Minuten auf zwei Kernen. Es zeigt den Ablauf, keine
Qualität."""),
    ("", """import json
import tempfile
from pathlib import Path

import numpy as np

import hauslm
from hauslm.base.words import use_language
from hauslm.scenario import parse
from hauslm.start import write_demo

LANGUAGE = "LANG"
use_language(LANGUAGE)"""),
    ("", """## Task 1: compare

The sheet's table asks for performance, cost, privacy and upkeep. Here each cell is a judgement with its figures.""",
     """## Aufgabe 1: vergleichen

Die Tabelle des Blatts fragt nach Leistung, Kosten, Datenschutz und Wartungsaufwand. Hier ist jede Zelle ein Urteil mit
seinen Zahlen."""),
    ("", """team = parse("name: team\\nlanguage: LANG\\n", "team")
hauslm.chapter(hauslm.compare(team), LANGUAGE)"""),
    ("", """## Task 2: decide

The verdict, its reasons, and what would overturn it.""",
     """## Aufgabe 2: entscheiden

Das Urteil, seine Gründe, und was es kippen würde."""),
    ("", """decision = hauslm.decide(team)
told = hauslm.chapter(decision, LANGUAGE)
told"""),
    ("", """told.figures[0]"""),
    ("", """**Look closely.** Something is cheaper than the blue bar. What keeps it out? Is that a reason of cost, or one of
another kind? The next figure shows which assumption moves the result most.""",
     """**Sehen Sie genau hin.** Etwas ist billiger als der blaue Balken. Was hält es fern? Ist das ein Grund der Kosten oder ein
anderer? Die nächste Zeichnung zeigt, welche Annahme das Ergebnis am meisten bewegt."""),
    ("", """told.figures[1]"""),
    ("", """**Exercise.** What if the articles were openly licensed and might leave the house? Change the answers and decide
again. Then try `documents_per_month: 50` under `workload`.""",
     """**Übung.** Was, wenn die Artikel offen lizenziert wären und das Haus verlassen dürften? Ändern Sie die Antworten und lassen
Sie neu entscheiden. Versuchen Sie dann `documents_per_month: 50` unter `workload`."""),
    ("", """changed = parse(
    \"\"\"
name: team
language: LANG
scenario:
  data:
    copyright: open
    may_leave: "yes"
\"\"\",
    "exercise",
)
other = hauslm.decide(changed)
print(decision.verdict.title.say(LANGUAGE))
print(other.verdict.title.say(LANGUAGE))"""),
    ("", """## Does it fit 24 GB?

First the sheet's code as it stands: the model in 16 bit, nothing recomputed.""",
     """## Passt es in 24 GB?

Zuerst der Code des Blatts, wie er ist: das Modell in 16 Bit, nichts wird neu berechnet."""),
    ("", """question = {
    "model": "mistral-7b-v0.1",
    "gpu": "rtx-4090",
    "seq_len": 2048,
    "micro_batch_size": 1,
    "rank": 8,
    "targets": "q_proj,k_proj,v_proj,o_proj",
}
as_it_is = hauslm.plan_free(**question, method="lora", checkpointing=False)
print(as_it_is.margin.say(LANGUAGE))
hauslm.chapter(as_it_is, LANGUAGE).figures[0]"""),
    ("", """Then with the base in 4 bit and activations that are computed again:""",
     """Dann mit dem Grundmodell in 4 Bit und neu berechneten Aktivierungen:"""),
    ("", """fitting = hauslm.plan_free(**question, method="qlora", checkpointing=True)
print(fitting.margin.say(LANGUAGE))
hauslm.chapter(fitting, LANGUAGE).figures[0]"""),
    ("", """**Exercise.** Raise `seq_len` until it does not fit any more. Which part grows, and why does the weights' part not?""",
     """**Übung.** Erhöhen Sie `seq_len`, bis es nicht mehr passt. Welcher Teil wächst, und warum wachsen die Gewichte nicht mit?"""),
    ("", """## Task 3: what LoRA does

A matrix W stays as it is; beside it a product of two narrow matrices is learned. In numbers, for one matrix of 64 by 64:""",
     """## Aufgabe 3: was LoRA tut

Eine Matrix W bleibt, wie sie ist; daneben wird das Produkt zweier schmaler Matrizen gelernt. In Zahlen, für eine Matrix von
64 mal 64:"""),
    ("", """random = np.random.default_rng(0)
size, r, lora_alpha = 64, 8, 16
W = random.normal(size=(size, size))
A = random.normal(size=(r, size))
B = np.zeros((size, r))
x = random.normal(size=size)

before = W @ x
after = W @ x + lora_alpha / r * (B @ (A @ x))
print(np.allclose(before, after), W.size, A.size + B.size)

B = random.normal(size=(size, r))
print(np.linalg.matrix_rank(B @ A))"""),
    ("", """The first line says: right after it is attached, an adapter changes nothing, because B is zero. The sheet's code saves
exactly that. So we train.""",
     """Die erste Zeile sagt: Direkt nach dem Anhängen ändert ein Adapter nichts, denn B ist null. Genau das speichert der Code des
Blatts. Also trainieren wir."""),
    ("", """## Prepare

28 sample articles about the conservation of pipe organs, written for this program. Works are held out as wholes.""",
     """## Aufbereiten

28 Beispielartikel über die Erhaltung von Orgeln, für dieses Programm geschrieben. Zurückgehalten werden ganze Werke."""),
    ("", """folder = Path(tempfile.mkdtemp(prefix="lab-"))
write_demo(folder, LANGUAGE)
settings = folder / "hauslm.yaml"
settings.write_text(settings.read_text().replace("epochs: 2", "epochs: 2\\n  max_steps: 40"))

hauslm.plan(folder)
corpus = hauslm.prepare(folder)
told = hauslm.chapter(corpus, LANGUAGE)
told.figures[0]"""),
    (SLOW, """## Train

The loss should fall. Watch the validation: it is measured on works that are not trained on.""",
     """## Trainieren

Der Verlust sollte fallen. Achten Sie auf die Validierung: Sie wird an Werken gemessen, auf denen nicht trainiert wird."""),
    (SLOW, """run = hauslm.train(folder)
hauslm.chapter(run, LANGUAGE).figures[0]"""),
    (SLOW, """The adapter is a plain PEFT folder; no hauslm is needed to load it.""",
     """Der Adapter ist ein gewöhnlicher PEFT-Ordner; zum Laden braucht es kein hauslm."""),
    (SLOW, """configuration = json.loads((folder / "adapter" / "adapter_config.json").read_text())
print({k: configuration[k] for k in ("r", "lora_alpha", "lora_dropout", "bias", "task_type")})
print((folder / "adapter" / "adapter_model.safetensors").stat().st_size, "bytes")"""),
    (SLOW, """## Evaluate

Did it help? An interval that crosses the dashed line shows no demonstrable difference. Simple methods without any
language model stand beside it: a model that does not beat them is not worth its card.""",
     """## Auswerten

Hat es geholfen? Ein Intervall, das die gestrichelte Linie schneidet, zeigt keinen nachweisbaren Unterschied. Einfache
Verfahren ganz ohne Sprachmodell stehen daneben: Ein Modell, das sie nicht schlägt, ist seine Karte nicht wert."""),
    (SLOW, """evaluation = hauslm.evaluate(folder)
print(evaluation.verdict_text.say(LANGUAGE))
hauslm.chapter(evaluation, LANGUAGE).figures[0]"""),
    (SLOW, """## Analyse

Articles become rows of a schema. Every quote is looked up in the article: what is not found there is marked.""",
     """## Analysieren

Aus Artikeln werden Zeilen nach einem Schema. Jedes Zitat wird im Artikel gesucht; was dort nicht steht, ist
gekennzeichnet."""),
    (SLOW, """hauslm.bundle(folder)
analysis = hauslm.analyse(folder)
print(analysis.documents, analysis.rows, analysis.truncated)
rows = (folder / analysis.output.path).read_text(encoding="utf-8").splitlines()
json.loads(rows[0])"""),
    (SLOW, """**To hand in.** (1) The verdict and the one reason that carries it. (2) The part of the memory that decides whether it
fits. (3) The evaluation in one sentence, with its interval. (4) What you would measure before the team buys anything.""",
     """**Zur Abgabe.** (1) Das Urteil und der eine Grund, der es trägt. (2) Der Teil des Speichers, an dem sich entscheidet, ob es
passt. (3) Die Auswertung in einem Satz, mit Intervall. (4) Was Sie messen würden, bevor das Team etwas kauft."""),
]  # fmt: skip


def notebook(language: str) -> dict[str, Any]:
    """The notebook as nbformat 4.5 JSON, without outputs."""
    cells = []
    for number, (tag, *texts) in enumerate(CELLS):
        code = len(texts) == 1
        text = texts[0].replace("LANG\\n", f"{language}\\n").replace('"LANG"', f'"{language}"')
        text = text.replace("language: LANG\n", f"language: {language}\n")
        if not code:
            text = texts[0 if language == "en" else 1]
        cell: dict[str, Any] = {
            "cell_type": "code" if code else "markdown",
            "id": f"cell-{number:02}",
            "metadata": {"tags": [tag]} if tag else {},
            "source": text.splitlines(keepends=True),
        }
        cells.append(cell | ({"execution_count": None, "outputs": []} if code else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def main() -> None:
    for language, name in NAMES.items():
        path = ROOT / "examples" / name
        path.parent.mkdir(exist_ok=True)
        text = json.dumps(notebook(language), ensure_ascii=False, indent=1)
        path.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
