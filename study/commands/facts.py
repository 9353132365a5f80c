"""What commands print with --json: plain values."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # only what was made is read; importing what makes it takes seconds
    from study.commands.pipeline import Outcome
    from study.plan import Plan
    from study.report import Analysis
    from study.sweep import Prediction
    from study.verdict import Precision


def plan_facts(plan: Plan, precision: Precision | None, prediction: Prediction | None) -> dict[str, object]:
    """Return what `plan` prints, as plain values."""
    return {
        "factors": [{"name": f.name, "role": f.role, "levels": list(f.levels)} for f in plan.factors],
        "replicates": plan.replicates,
        "folds": plan.folds,
        "trials": len(plan.trials),
        "controls": len(plan.all_by_key) - len(plan.by_key),
        "stages": len(plan.stages),
        "epochs_separate": plan.epochs_separate,
        "epochs_shared": plan.epochs_shared,
        "steps_separate": plan.steps_separate,
        "steps_shared": plan.steps_shared,
        "notes": list(plan.notes),
        "precision": None if precision is None else asdict(precision),
        "predicted_seconds": None if prediction is None else round(prediction.seconds, 1),
        "worker_seconds_shared": None if prediction is None else round(prediction.shared, 1),
        "worker_seconds_separate": None if prediction is None else round(prediction.separate, 1),
    }


def analysis_facts(analysis: Analysis, page: Path) -> dict[str, object]:
    """Return what `report --json` prints."""
    classes = [row for one in analysis.verdicts for row in one.to_frame().to_dict("records")]
    return {
        "trials": len(analysis.results),
        "failed": dict(analysis.failures),
        "report": str(page),
        "verdicts": {one.outcome: one.sentence for one in analysis.verdicts},
        "classes": classes,
        "look": asdict(analysis.attributed.look) if analysis.attributed else None,
        **({"search": analysis.search.facts()} if analysis.search else {}),
        "yardsticks": analysis.yardsticks.astype(object).where(analysis.yardsticks.notna(), None).to_dict("records"),
        "controls": {one.control: {"outcome": one.outcome, "found": one.found} for one in analysis.controls},
    }


def outcome_facts(outcome: Outcome) -> dict[str, object]:
    """Return what `run --json` prints."""
    return {
        "already": outcome.already,
        "trained": outcome.trained,
        "waiting": outcome.waiting,
        "mlflow_behind": outcome.behind,
        "seconds": round(outcome.seconds, 1),
        **analysis_facts(outcome.analysis, outcome.page),
    }
