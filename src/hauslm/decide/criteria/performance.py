"""Performance: what do benchmarks of one harness say, and what did the team's own evaluation find?

Scores stand side by side only if harness, benchmark, metric and language are the same; where the way
of asking differs (few-shot for weights, zero-shot for APIs), that is said and nobody is ahead. The
team's own evaluation, once there is one, comes first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hauslm.base.words import N_, Sentence, say
from hauslm.catalog import load
from hauslm.catalog.schema import Model, Score
from hauslm.decide.candidate import fact
from hauslm.decide.context import Context
from hauslm.decide.criteria import Argument, Criterion, Judgement
from hauslm.decide.scores import RANK, Key, key_of, stale_score, usable
from hauslm.records import Cell, Fact, Said

# What a reader looks for first, by language; the German ones are shown for German too.
_BROAD = {"en": ("life_in_the_uk", "MMLU", "MMLU-Pro"), "de": ("mmlu_de", "hellaswag_de")}


@dataclass(frozen=True)
class Pair:
    """The best API and the local model on one benchmark of one harness."""

    key: Key
    cloud_model: Model
    cloud: Score
    local: Score

    @property
    def same_shots(self) -> bool:
        return key_of(self.cloud).shots == key_of(self.local).shots

    @property
    def gap(self) -> float:
        """Advantage of the API in points (or ranks), beyond both 95 % intervals if positive."""
        sign = -1.0 if self.key.lower_is_better else 1.0
        spread = (self.cloud.ci or 0.0) + (self.local.ci or 0.0)
        difference = sign * (self.cloud.score - self.local.score)
        if abs(difference) <= spread:
            return 0.0
        return difference


def _benchmarks(languages: Sequence[str]) -> Iterator[str]:
    for language in languages:
        yield from _BROAD.get(language, ())
    if "de" not in languages:  # a German team wants to know, whatever its articles are in
        yield from _BROAD["de"]


def _pairs(context: Context) -> list[Pair]:
    """One pair per benchmark for which harness, metric and language agree."""
    if context.local is None:
        return []
    local = context.candidate(context.local).scored
    if local is None:
        return []
    apis = _api_models(context)
    found = []
    for name in _benchmarks(context.judged.scenario.workload.languages):
        pair = _best_pair(name, local, apis)
        if pair is not None:
            found.append(pair)
    return found


def _api_models(context: Context) -> list[Model]:
    """API models that could be used: those of candidates that miss no floor."""
    names = {
        c.model
        for r, c in enumerate(context.judged.candidates)
        if c.kind in ("cloud", "hosted") and not context.judged.misses_a_floor(r)
    }
    models = [load.model(n) for n in sorted(names) if n in load.ids("models")]
    return [load.model(m.serves) if m.serves else m for m in models]


def _best_pair(name: str, local: Model, apis: Sequence[Model]) -> Pair | None:
    mine = [s for s in local.scores if s.benchmark == name and usable(s)]
    best: Pair | None = None
    for score in mine:
        key = key_of(score)
        for model in apis:
            for other in model.scores:
                theirs = key_of(other)
                same = (theirs.harness, theirs.benchmark, theirs.metric, theirs.language) == (
                    key.harness, key.benchmark, key.metric, key.language,
                )  # fmt: skip
                if not same or not usable(other) or key.metric not in ("", "accuracy"):
                    continue
                if best is None or _rank(other, score, key) > _rank(
                    best.cloud, best.local, best.key
                ):
                    best = Pair(key, model, other, score)
    return best


def _rank(cloud: Score, local: Score, key: Key) -> tuple[float, float]:
    sign = -1.0 if key.lower_is_better else 1.0
    return sign * cloud.score, sign * local.score


def judge(context: Context) -> Judgement:
    pairs = _pairs(context)
    cloud = _cell(context, pairs, cloud=True)
    local = _cell(context, pairs, cloud=False)
    if context.evaluation is not None:
        return cloud, _own_evaluation(context, local), ""
    fair = [p for p in pairs if p.same_shots and p.gap]
    if fair and all(p.gap > 0 for p in fair):
        return cloud, local, "cloud"
    return cloud, local, "local" if fair and all(p.gap < 0 for p in fair) else ""


def _cell(context: Context, pairs: Sequence[Pair], *, cloud: bool) -> Cell:
    side = context.cloud if cloud else context.local
    if not pairs:
        what = say("No benchmark of one harness has a score of both sides; nothing is compared.")
        extra = _alone(context, side)
        return Cell(judgement=Said.of(what), facts=extra)
    parts = [_part(context, p, cloud=cloud) for p in pairs]
    scores = [p.cloud if cloud else p.local for p in pairs]
    facts = tuple(
        fact(say("{benchmark} ({harness}, {shots})", benchmark=s.benchmark, harness=s.harness,
                 shots=key_of(s).shots), s.quantity)
        for s in scores
    )  # fmt: skip
    joined = parts[0]
    for part in parts[1:]:
        joined = say("{first}; {second}", first=joined, second=part)
    return Cell(judgement=Said.of(say("{scores}.", scores=joined)), facts=facts)


def _part(context: Context, pair: Pair, *, cloud: bool) -> Sentence:
    score = pair.cloud if cloud else pair.local
    local = context.candidate(context.local).scored if context.local is not None else None
    name = pair.cloud_model.name if cloud else (local.name if local else "")
    mark: Sentence | str = ""
    if stale_score(score.date, context.judged.on):
        mark = say(", stale: of {date}", date=score.date)
    return say(
        "{benchmark}: {name} {score:.1f} ({harness}, {shots}{mark})",
        benchmark=pair.key.benchmark, name=name, score=score.score, harness=score.harness,
        shots=key_of(score).shots, mark=mark,
    )  # fmt: skip


def _alone(context: Context, row: int | None) -> tuple[Fact, ...]:
    """Scores of a side for itself: shown, not compared."""
    model = context.candidate(row).scored if row is not None else None
    if model is None:
        return ()
    languages = context.judged.scenario.workload.languages
    rows = [s for s in model.scores if s.benchmark == RANK and s.language in languages]
    return tuple(
        fact(say("{benchmark} ({harness}, {shots})", benchmark=s.benchmark, harness=s.harness,
                 shots=key_of(s).shots), s.quantity)
        for s in rows[:2]
    )  # fmt: skip


def _own_evaluation(context: Context, cell: Cell) -> Cell:
    """The team's own result before any benchmark."""
    assert context.evaluation is not None  # noqa: S101 - the caller looked
    what = say(
        "Own evaluation on {n:,} items: {verdict} Benchmarks: {rest}",
        n=context.evaluation.n, verdict=context.evaluation.verdict_text.sentence(),
        rest=cell.judgement.sentence(),
    )  # fmt: skip
    return Cell(judgement=Said.of(what), facts=cell.facts)


def argue(context: Context) -> list[Argument]:
    row = context.chosen
    if row is None:
        return []
    found: list[Argument] = []
    if context.evaluation is not None:
        what = say(
            "The own evaluation on {n:,} items says: {verdict}",
            n=context.evaluation.n, verdict=context.evaluation.verdict_text.sentence(),
        )  # fmt: skip
        found.append((what, ()))
    found += _within(context, row)
    for pair in _pairs(context)[:1]:
        cell_cloud, cell_local = _part(context, pair, cloud=True), _part(context, pair, cloud=False)
        template = say(
            "Against the best API: {cloud}; {local}. Asked differently, so only a rough comparison.",
            cloud=cell_cloud, local=cell_local,
        )  # fmt: skip
        if pair.same_shots:
            template = say(
                "Against the best API: {cloud}; {local}.", cloud=cell_cloud, local=cell_local
            )
        found.append((template, ()))
    return found


def _within(context: Context, row: int) -> list[Argument]:
    """Why this model among those that tie with it in cost, and what became of the sheet's models."""
    judged = context.judged
    chosen = context.candidate(row)
    if chosen.scored is None:
        return []
    rivals = [
        c for r, c in enumerate(judged.candidates)
        if c.setting == chosen.setting and c.adaptation == chosen.adaptation and c.scored
        and judged.standing[r] == judged.standing[row]
    ]  # fmt: skip
    panel = judged.panel([c.scored for c in rivals if c.scored])
    score = panel.scores.get(chosen.scored.id) if panel else None
    found: list[Argument] = []
    if chosen.model == judged.named_model:
        found.append((_named(context, row, [c.scored for c in rivals if c.scored]), ()))
    elif panel is not None and score is not None:
        values = {
            "n": len({c.scored.id for c in rivals if c.scored}),
            "model": chosen.scored.name,
            "benchmark": panel.key.benchmark,
            "score": score.score,
            "harness": panel.key.harness,
            "shots": panel.key.shots,
            "language": panel.key.language,
        }
        if panel.key.lower_is_better:
            what = say(
                "Of {n:,} models that do the same work here at about the same cost, {model} has the best "
                "comparable score: mean rank over all tasks {score:.2f}, 1 is best ({harness}, {shots}, "
                "{language}).",
                **values,
            )
        else:
            what = say(
                "Of {n:,} models that do the same work here at about the same cost, {model} has the best "
                "comparable score: {benchmark} {score:.2f} ({harness}, {shots}, {language}).",
                **values,
            )
        found.append((what, (fact(say("Score"), score.quantity),)))
    found += _sheet_models(context, row)
    return found


def _named(context: Context, row: int, rivals: Sequence[Model]) -> Sentence:
    """The project file names the model: said, with the best scored alternative beside it."""
    model = context.candidate(row).scored
    panel = context.judged.panel(rivals)
    best = panel.best([m.id for m in rivals]) if panel else None
    name = model.name if model else ""
    if best is None or panel is None or (model and best == model.id):
        return say(
            "{model} is the base model of the project file, and no model that does the same work "
            "here at about the same cost has a better comparable score.",
            model=name,
        )
    score = panel.scores[best]
    return say(
        "{model} is the base model of the project file; {n:,} models do the same work here at about "
        "the same cost. The best comparable score among them has {best}: {score:.2f} "
        "({harness}, {benchmark}). On your own task hauslm evaluate decides, not a benchmark.",
        model=name, n=len({m.id for m in rivals}), best=load.model(best).name, score=score.score,
        harness=panel.key.harness, benchmark=panel.key.benchmark,
    )  # fmt: skip


def _sheet_models(context: Context, row: int) -> list[Argument]:
    """The lab sheet named Mistral 7B: would it do, and what is the difference?"""
    judged = context.judged
    chosen = context.candidate(row)
    if chosen.kind != "local" or "mistral-7b" in chosen.model:
        return []
    identity = f"{chosen.setting}/mistral-7b-v0.3/nf4/lora"
    other = judged.row.get(identity)
    if other is None or judged.standing[other] != judged.standing[row]:
        return []
    what = say(
        "The sheet's Mistral 7B would do the work on the same machine too, for {difference:EUR} over "
        "the horizon less; it has no score in that comparison, so the better documented model is "
        "preferred.",
        difference=judged.cost(row) - judged.cost(other),
    )
    return [(what, context.cost_facts(other))]


def brief(context: Context, row: int) -> Sentence:
    """The mean rank over all tasks in the documents' language, if the model has one."""
    model = context.candidate(row).scored
    languages = context.judged.scenario.workload.languages
    ranks = [
        s
        for s in (model.scores if model else ())
        if s.benchmark == RANK and s.language in languages
    ]
    if not ranks:
        return say("No comparable score.")
    best = min(ranks, key=lambda s: s.score)
    return say("{benchmark} {score:.2f} ({shots}, {language})", benchmark=best.benchmark,
               score=best.score, shots=key_of(best).shots, language=best.language)  # fmt: skip


CRITERION = Criterion("performance", N_("Performance"), 1, 7, judge, argue, brief)
