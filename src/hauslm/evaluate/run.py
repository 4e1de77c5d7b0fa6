"""Does the adapter help, what did it cost, and how sure is that? The stage `evaluate`.

Base and adapter answer the same items and read the same held-out text, in one process; every figure of
the record is traced back to rows in `work/evaluate/items.jsonl`, from which an interrupted evaluation
goes on. What each figure means stands in the module that measures it; here they are brought together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from hauslm.base.errors import DataError
from hauslm.base.files import ProjectFolder
from hauslm.base.progress import Progress, Silent
from hauslm.base.words import Sentence, say
from hauslm.data.glossary import Term, load_glossary
from hauslm.data.task import EXTRACTION, Task
from hauslm.evaluate import (
    cost,
    examples,
    forgetting,
    inputs,
    language,
    lm_eval,
    memorisation,
    scorers,
    terms,
    verdict,
)
from hauslm.evaluate import task as asking
from hauslm.evaluate.baselines import TFIDF, Baseline, baselines, sampled
from hauslm.evaluate.cloud import Prices, cloud_model, prices
from hauslm.evaluate.ledger import Ledger, Meter, Question, System, Unit
from hauslm.evaluate.measures import Measure, differences, family
from hauslm.evaluate.systems import Systems, systems
from hauslm.lm.interface import LanguageModel
from hauslm.records import Corpus, CostPerItem, Evaluation, Run, Said, SystemScore, sentences
from hauslm.scenario import Scenario


def evaluate(
    scenario: Scenario,
    folder: ProjectFolder,
    *,
    corpus: Corpus,
    run: Run,
    model: LanguageModel | None = None,
    cloud: LanguageModel | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compare base and adapter (and a cloud model, whose making needed a Permit) and say what follows.

    `model` replaces the loading of base and adapter; it must offer an adapter called "adapter".
    `cloud` replaces the model of evaluation.cloud (`evaluate/cloud.py`: H665, H666, H811). Raises H660 (files are not those of the run), H663 (nothing is held out), H345 (glossary).
    """
    progress = progress or Silent()
    lm_eval.need(scenario)
    # Before any model answers: a mistake in the glossary must not cost the measuring before it.
    name = scenario.evaluation.glossary
    glossary = load_glossary(folder.root / name) if name else None
    priced = prices(scenario) if scenario.evaluation.cloud.endpoint else None
    compared = systems(scenario, folder, run, model, cloud or cloud_model(scenario))
    with Ledger(folder.work / "evaluate" / "items.jsonl", progress) as ledger:
        work = _Work(scenario, folder, corpus, run, compared, ledger, priced, glossary)
        result = work.record()
        ledger.forget_unused()
    return result


@dataclass
class _TaskResult:
    """The task's measures, the answers behind them, and what the record says about the task."""

    trial: inputs.Trial
    method: str
    measures: list[Measure]
    answers: dict[str, list[asking.Answer]]
    baselines: list[Baseline]
    waits: dict[str, list[float]]  # seconds of items asked alone, of the systems on this machine


@dataclass
class _Work:
    """One evaluation in progress: the parts are measured in turn, then put together."""

    scenario: Scenario
    folder: ProjectFolder
    corpus: Corpus
    run: Run
    systems: Systems
    ledger: Ledger
    prices: Prices | None = None  # of the cloud model
    glossary: list[Term] | None = None  # the team's; None: terms are mined
    notices: list[Sentence] = field(default_factory=list)
    private: dict[str, Any] = field(default_factory=dict)  # names documents; not for sharing

    def record(self) -> Evaluation:
        settings = self.scenario.evaluation
        prepared = self.folder.work / "prepared"
        documents = prepared / "documents.jsonl"
        texts = inputs.held_out(documents, settings.max_documents)
        trial = self._trial(prepared)
        if trial is None and self.systems.cloud is not None:
            self.systems.cloud = None
            self.notices.append(
                say(
                    "The cloud model was not asked: without a labelled task there is nothing that it could answer, since it does not tell the probability of a text."
                )
            )
        if trial is None and not texts.test:
            raise DataError(
                "H663",
                say("There is nothing to evaluate on: no document and no task item was held out."),
                where=str(prepared),
                next_step=say("Raise documents.test_share, or add documents, and prepare again."),
            )
        leaked = inputs.units(texts, trial, self._leaks(documents, texts, trial))
        train = inputs.sampled_train(documents)
        result = self._task(trial) if trial else None
        measures = list(result.measures) if result else []
        measures += self._language(texts) if settings.bits_per_byte and texts.test else []
        measures += self._terms(texts, train) if texts.test else []
        headline = measures[0] if measures else None
        if headline is None:
            raise DataError(
                "H663",
                say("There is nothing to evaluate on: no document and no task item was held out."),
                where=str(prepared),
                next_step=say("Switch evaluation.bits_per_byte on, or name a task."),
            )
        seed = self.scenario.training.seed
        lost = self._forgetting(seed) if settings.forgetting else _off()
        kept = self._memorisation(texts, train, seed) if settings.memorisation else _off()
        harness, remarks = lm_eval.measure(
            self.scenario, self.folder, self.ledger, self.systems.local
        )
        self.notices += remarks
        judged = verdict.judge(headline, leaked, seed=seed)
        families = self._families(measures, result, seed)
        self._conclusions(headline, families, result, lost, kept)
        return Evaluation(
            n=len(headline.documents),
            documents=len(set(headline.documents)),
            systems=self._scores(measures, result, texts),
            differences=differences(families),
            forgetting=lost,
            memorisation=kept,
            verdict=judged.finding,
            verdict_text=Said.of(judged.text),
            examples=self._examples(result, texts),
            task=self._about(result, texts, headline, leaked, seed),
            lm_eval=harness,
            notices=sentences(self.notices),
        )

    # ------------------------------------------------------------ the inputs

    def _trial(self, prepared: Any) -> inputs.Trial | None:
        if not self.corpus.task:
            return None
        items = inputs.load_items(prepared / "task.jsonl")
        trial = inputs.trial(
            Task.from_json(self.corpus.task), items, self.scenario.evaluation.max_items
        )
        if trial is None:
            self.notices.append(
                say("The task has no test items, so the verdict rests on bits per byte alone.")
            )
        return trial

    def _leaks(
        self, documents: Any, texts: inputs.Texts, trial: inputs.Trial | None
    ) -> frozenset[str]:
        """Test documents that also stand in the training text; told, and left out of a good verdict."""
        inputs.find_leaks(documents, texts, trial)
        self.notices += [*self.systems.notices, *texts.notices, *(trial.notices if trial else ())]
        if texts.shared:
            self.notices.append(
                say(
                    "Wording of training documents stands in {count:,} of {all:,} test documents (at "
                    "least {share:.0%} of their 13-grams); a gain on them may be memory.",
                    count=len(texts.shared),
                    all=texts.tested,
                    share=inputs.LEAK_SHARE,
                )
            )
            self.private["shared_wording"] = {k: round(v, 4) for k, v in texts.shared.items()}
        return frozenset(texts.shared)

    # ------------------------------------------------------------ the parts

    def _task(self, trial: inputs.Trial) -> _TaskResult:
        spoken = trial.task.kind == EXTRACTION or self.systems.cloud is not None
        asked, room = self._asked(trial, spoken)
        answers = {s.name: self._answers(s, trial, asked, room, spoken) for s in self.systems.all()}
        waits = {
            s.name: cost.alone(self.ledger, s, _groups(s, trial, asked, room, spoken))
            for s in self.systems.local
        }
        made = baselines(trial.task, trial.train, trial.test, seed=self.scenario.training.seed)
        if not made:
            self.notices.append(
                say("There are no training items, so no baselines could be fitted.")
            )
        elif trial.task.kind != EXTRACTION and TFIDF not in {b.name for b in made}:
            self.notices.append(
                say(
                    "TF-IDF with logistic regression could not be fitted: the training items have one label "
                    "only, or no words."
                )
            )
        if (partly := sampled(trial.train)) is not None:
            self.notices.append(partly)
        golds = [asking.gold(trial.task, i) for i in trial.test]
        given = {name: [a.value for a in found] for name, found in answers.items()}
        given |= {b.name: list(b.answers) for b in made}
        measures = []
        for scorer in self._scorers(trial, golds).values():
            measure = Measure.of(scorer, [i.unit for i in trial.test])
            measure.rows = {
                name: [scorer.row(g, a) for g, a in zip(golds, values, strict=True)]
                for name, values in given.items()
            }
            measures.append(measure)
        return _TaskResult(
            trial, "generation" if spoken else "likelihood", measures, answers, made, waits
        )

    def _scorers(self, trial: inputs.Trial, golds: list[str]) -> dict[str, scorers.Scorer]:
        if trial.task.kind == EXTRACTION:
            return scorers.extraction()
        return scorers.classification(sorted(set(golds)))

    def _asked(self, trial: inputs.Trial, spoken: bool) -> tuple[list[asking.Asked], int]:
        """The prompts, the same for every system (sizes by the base's tokenizer), and room to answer."""
        model = self.systems.base.model
        room = asking.answer_room(trial.task, trial.train, model, likelihood=not spoken)
        seq_len = int(self.run.settings.get("seq_len") or model.context_length)
        return asking.asked(trial.task, trial.test, model, seq_len, room), room

    def _answers(
        self,
        system: System,
        trial: inputs.Trial,
        items: list[asking.Asked],
        room: int,
        spoken: bool,
    ) -> list[asking.Answer]:
        if not spoken:
            normalised = self.scenario.evaluation.length_normalised
            return asking.by_likelihood(
                self.ledger, system, trial.task, items, length_normalised=normalised
            )
        found = asking.by_generation(self.ledger, system, trial.task, items, room)
        self.notices += asking.answer_notices(found, system.shown)
        return found

    def _language(self, texts: inputs.Texts) -> list[Measure]:
        measure = Measure("bits_per_byte", [t.unit for t in texts.test], higher_is_better=False)
        for system in self.systems.local:
            measure.rows[system.name] = language.bits_and_bytes(self.ledger, system, texts.test)
        return [measure]

    def _terms(self, texts: inputs.Texts, train: Sequence[inputs.Text]) -> list[Measure]:
        """Terms of the glossary, else words mined from the training documents."""
        known = self.glossary
        if known is None:
            general = [t for code in forgetting.LANGUAGES for t in forgetting.general_texts(code)]
            known = terms.mined(train, general)
        places, available = language.chosen_occurrences(texts.test, known)
        self.private["terms"] = {
            "source": "mined" if self.glossary is None else "glossary", "known": len(known),
            "places": available, "used": len(places),
        }  # fmt: skip
        if not places:
            if self.glossary is not None:
                self.notices.append(
                    say("No term of the glossary stands in the held-out documents.")
                )
            return []
        scores = {s.name: language.term_scores(self.ledger, s, places) for s in self.systems.local}
        first = next(iter(scores.values()))
        bits = Measure("term_bits_per_byte", first.documents, higher_is_better=False)
        written = Measure("term_written", first.documents, secondary=True)
        chosen = Measure("terminology", first.choice_documents)
        for system, score in scores.items():
            bits.rows[system], written.rows[system] = score.bits, score.written
            chosen.rows[system] = score.chosen
        return [*([chosen] if chosen.documents else []), bits, written]

    def _forgetting(self, seed: int) -> dict[str, Any]:
        return forgetting.measure(self.ledger, *self.systems.local, seed=seed)

    def _memorisation(
        self, texts: inputs.Texts, train: Sequence[inputs.Text], seed: int
    ) -> dict[str, Any]:
        settings = self.scenario.evaluation
        result, where = memorisation.measure(
            self.ledger,
            *self.systems.local,
            train=train,
            unseen=texts.test,
            training_tokens=self.corpus.tokens.train,
            limit=settings.memorisation_limit,
            canaries=settings.canaries,
            seed=seed,
        )
        if where:
            self.private["memorised"] = where
        return result

    # ------------------------------------------------------------ putting together

    def _families(
        self, measures: list[Measure], result: _TaskResult | None, seed: int
    ) -> dict[tuple[str, str], Any]:
        """Every comparison of the adapter; one family for Holm per system that it is compared with."""
        others = [verdict.BASE_NAME]
        others += [verdict.CLOUD] if self.systems.cloud else []
        others += [b.name for b in result.baselines] if result else []
        return {
            (verdict.ADAPTER, other): family(measures, verdict.ADAPTER, other, seed=seed)
            for other in others
        }

    def _conclusions(
        self,
        headline: Measure,
        families: dict[tuple[str, str], Any],
        result: _TaskResult | None,
        lost: dict[str, Any],
        kept: dict[str, Any],
    ) -> None:
        against_base = families[(verdict.ADAPTER, verdict.BASE_NAME)]
        if result:
            self.notices += verdict.against_baselines(headline, [b.name for b in result.baselines])
        self.notices += verdict.secondary(against_base, headline.name)
        self.notices += verdict.about_forgetting(lost)
        self.notices += verdict.about_memorisation(kept)
        alone = [n for n, c in against_base.items() if c.documents < 2 and n != headline.name]
        if alone:
            self.notices.append(
                say(
                    "Measured in one document only and therefore without an interval: {metrics}.",
                    metrics=[verdict.METRIC_NAMES.get(n, n) for n in alone],
                )
            )
        moved = lost.get("measured") and any(lost[f"difference_{c}"] for c in forgetting.LANGUAGES)
        if all(c.value == 0 for c in against_base.values()) and not moved:
            self.notices.append(
                say(
                    "Base and adapter agree in every figure: the adapter changes nothing, as if it had "
                    "not been trained."
                )
            )

    def _scores(
        self, measures: list[Measure], result: _TaskResult | None, texts: inputs.Texts
    ) -> tuple[SystemScore, ...]:
        costs = {s.name: self._per_item(s, result, texts) for s in self.systems.all()}
        rows = [self._score(s, measures, result, costs[s.name]) for s in self.systems.all()]
        for baseline in result.baselines if result else []:
            metrics, absent = _metrics(baseline.name, measures, "baseline")
            rows.append(
                SystemScore(
                    name=baseline.name, kind="baseline", metrics=metrics, absent=absent,
                    seconds=baseline.seconds,
                )
            )  # fmt: skip
        return tuple(rows)

    def _per_item(
        self, system: System, result: _TaskResult | None, texts: inputs.Texts
    ) -> CostPerItem | None:
        """By the task's items, else by the held-out documents; None if neither was measured."""
        meters = self.ledger.meters
        if result is None:
            meter = meters.get((system.name, language.PART))
            if meter is None:
                return None
            units = language.document_units(texts.test, system, language.PART)
            waits = cost.alone(self.ledger, system, [[u] for u in units])
            return cost.of_local(self.scenario, system, meter, "document", len(texts.test), waits)
        meter = meters.get((system.name, asking.PART), Meter())
        items = len(result.trial.test)
        if system is self.systems.cloud:
            most = self.scenario.evaluation.cloud.concurrency
            return cost.of_cloud(meter, items, self.prices, most)
        return cost.of_local(self.scenario, system, meter, "item", items, result.waits[system.name])

    def _score(
        self,
        system: System,
        measures: list[Measure],
        result: _TaskResult | None,
        per_item: CostPerItem | None,
    ) -> SystemScore:
        kind: Any = system.name
        metrics, absent = _metrics(system.name, measures, kind)
        sure = [a.confidence for a in result.answers[system.name]] if result else []
        if result and sure and all(c is not None for c in sure):
            hits = [bool(row[0]) for row in result.measures[0].rows[system.name]]
            metrics["calibration_error"] = scorers.calibration_error(
                [c for c in sure if c is not None], hits
            )
        spent = [m for (name, _), m in self.ledger.meters.items() if name == system.name]
        return SystemScore(
            name=system.name,
            kind=kind,
            metrics=metrics,
            absent=absent,
            tokens=sum(m.tokens for m in spent),
            seconds=sum(m.seconds for m in spent),
            per_item=per_item,
        )

    def _examples(
        self, result: _TaskResult | None, texts: inputs.Texts
    ) -> tuple[dict[str, Any], ...]:
        if result:
            return examples.of_task(result.trial, result.answers, result.measures[0])
        return examples.of_text(self.ledger, self.systems, texts.test)

    def _about(
        self,
        result: _TaskResult | None,
        texts: inputs.Texts,
        headline: Measure,
        leaked: frozenset[str],
        seed: int,
    ) -> dict[str, Any]:
        """How it was measured, for the report; and what names documents, which is not shared."""
        about: dict[str, Any] = {
            "headline": headline.name,
            "held_out_documents": {"used": len(texts.test), "all": texts.available},
            "cost": {
                f"{system}:{part}": {
                    "tokens": m.tokens, "seconds": round(m.seconds, 3), "units": m.units,
                    "seconds_per_unit": round(m.seconds / max(1, m.units), 5),
                }
                for (system, part), m in sorted(self.ledger.meters.items())
            },
            "reused_rows": self.ledger.reused,
            **self.private,
        }  # fmt: skip
        if result:
            trial = result.trial
            about |= {
                "kind": trial.task.kind,
                "method": result.method,
                "length_normalised": self.scenario.evaluation.length_normalised,
                "labels": list(trial.task.labels),
                "items": {"used": len(trial.test), "all": trial.available},
                "train_items": len(trial.train),
            }
        if leaked:
            clean = headline.compared(verdict.ADAPTER, verdict.BASE_NAME, seed=seed, without=leaked)
            if clean is not None and clean.documents > 1:  # one document has no interval
                about["without_shared_wording"] = {
                    "value": clean.value, "low": clean.low, "high": clean.high,
                    "documents": clean.documents,
                }  # fmt: skip
        return about


def _groups(
    system: System, trial: inputs.Trial, items: Sequence[asking.Asked], room: int, spoken: bool
) -> list[list[Unit | Question]]:
    """Per item what is asked of the model, for asking it alone."""
    if spoken:
        return [list(asking.questions_of(trial.task, a, room)) for a in items]
    return [[u] for u in asking.label_units(system, trial.task, items)]


def _metrics(
    name: str, measures: Sequence[Measure], kind: str
) -> tuple[dict[str, float | None], dict[str, Said]]:
    """Every metric of one system, and why those that it lacks are not there."""
    metrics = {m.name: m.value(name) for m in measures}
    reason = {
        "baseline": say("A baseline gives labels only, no probabilities of texts."),
        "cloud": say("A cloud model does not tell the probability of a given text."),
    }.get(kind, say("Not measured for this system."))
    return metrics, {m: Said.of(reason) for m, v in metrics.items() if v is None}


def _off() -> dict[str, Any]:
    return {"measured": False}
