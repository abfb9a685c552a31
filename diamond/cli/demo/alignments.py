"""Every task by every method, at matched cost.

A population may spend a budget of network evaluations (NFE) and hands over one picture: its best by the reward, or,
where nothing is chosen, its first. All methods that choose spend the same NFE; their reward calls differ a little, and
guidance differentiates through most of its evaluations, which the others never do: all three are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from torch import Tensor

import align

from align import Alignment
from align.scoring import Reward
from align.smc import ValueFunction
from diamond.glass import GlassFlow
from diamond.progress import progress_bar

from .models import Cast
from .settings import BRANCH, GLASS_STEPS, GUIDE_COST, WALK_COST, WALK_MC, WALK_TIMES, Settings
from .tasks import Answers, Task

__all__ = ["BASE", "METHODS", "RIVALS", "follow_ess", "full_strength", "run_task"]

BASE = "base"
METHODS = (BASE, "best-of-N", "search", "SMC", "guidance")
RIVALS = (f"best-of-N, GLASS-{GLASS_STEPS}", f"SMC, GLASS-{GLASS_STEPS}", "guidance, plug-in")
DRAWN = 16  # samples of each population that the judge looks at
Run = Callable[[Any, torch.Generator], Alignment]  # a reward and the noise -> all populations of one target


def run_task(cast: Cast, task: Task, settings: Settings, progress: bool) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The task at each budget by each method, and at the shown one by their rivals too.

    Returns:
        By budget and method, the figures; and by method the first population's pictures at the shown budget, one for
        each target.
    """
    plan = [(budget, *named) for budget in settings.budgets for named in _methods(cast, task, budget)]
    plan += [(settings.shown_budget, *named) for named in _rivals(cast, task, settings.shown_budget)]
    figures: dict[str, Any] = {str(budget): {} for budget in settings.budgets}
    pictures: dict[str, Tensor] = {}
    bar = progress_bar(plan, desc=f"align, {task.name}", unit="run", disable=not progress)
    for budget, name, run in bar:
        results = []
        for target, reward in enumerate(task.rewards):
            generator = cast.generator(task.name, budget, name, target)
            results.append(run(reward, generator))
        figures[str(budget)][name] = _summary(cast, task, results, chooses=True)
        if budget == settings.shown_budget:
            pictures[name] = torch.stack([result.best()[0] for result in results])
        if name == "best-of-N":  # its draws, before the choice
            figures[str(budget)][BASE] = _summary(cast, task, results, chooses=False)
            if budget == settings.shown_budget:
                pictures[BASE] = torch.stack([result.samples[0, 0] for result in results])
    order = (*METHODS, *RIVALS)
    figures = {key: {name: rows[name] for name in order if name in rows} for key, rows in figures.items()}
    return figures, {name: pictures[name] for name in order if name in pictures}


def full_strength(cast: Cast, task: Task, settings: Settings) -> dict[str, float]:
    """The reward of a guided population's best picture where the gradient is not scaled down."""
    how = {**task.guidance, "scale": 1.0, "batch": task.populations}
    rewards = []
    for target, reward in enumerate(task.rewards):
        generator = cast.generator("full strength", task.name, target)
        found = align.guide(cast.map, reward, settings.shown_budget // GUIDE_COST, generator=generator, **how)
        rewards.append(found.rewards.amax(1))
    return _mean(rewards)


def follow_ess(cast: Cast, task: Task, settings: Settings) -> dict[str, Any]:
    """Effective sample sizes over the steps of SMC, as shares of the particles, by several look-aheads: draws of the
    map (few, and many), the reward at the posterior mean, and none, which is importance sampling."""
    many = settings.ess_mc
    looks: dict[str, int | Callable[[Cast, Reward], ValueFunction]] = {
        f"map, {WALK_MC} draws": WALK_MC,
        f"map, {many} draws": many,
        "plug-in": _plugin_value,
        "none": _no_value,
    }
    figures: dict[str, Any] = {}
    for name, look in looks.items():
        results = []
        for target, reward in list(enumerate(task.rewards))[::2]:
            how = {"mc": look} if isinstance(look, int) else {"value": look(cast, reward)}
            results.append(
                align.smc(
                    cast.map,
                    reward,
                    settings.ess_particles,
                    times=WALK_TIMES,
                    batch=task.populations,
                    generator=cast.generator("ess", task.name, target),
                    **how,  # type: ignore[arg-type]
                )  # fmt: skip
            )
        shares = torch.cat([result.ess for result in results], dim=1) / settings.ess_particles
        log_z = torch.stack([result.log_z for result in results])  # type: ignore[misc]
        figures[name] = {
            "share": shares.mean(1).tolist(),
            "error": (shares.std(1) / shares.shape[1] ** 0.5).tolist(),
            "nfe": results[0].nfe,
            "ancestors": _ancestors_left(results),
            "log z deviation": float(log_z.std(1).mean()) if task.populations > 1 else None,
        }
    return figures


def _plugin_value(cast: Cast, reward: Reward) -> ValueFunction:
    return lambda x, t: reward(cast.map.denoise(x, t))


def _no_value(cast: Cast, reward: Reward) -> ValueFunction:
    return lambda x, t: torch.zeros(len(x))


def _ancestors_left(results: list[Alignment]) -> float:
    """How many different first states the particles of a population come from, on average."""
    counts = []
    for result in results:
        line = result.ancestors[-1]
        for parents in result.ancestors[:-1].flip(0):
            line = parents.gather(1, line)
        counts += [len(row.unique()) for row in line]
    return sum(counts) / len(counts)


def _methods(cast: Cast, task: Task, budget: int) -> Iterator[tuple[str, Run]]:
    """The methods that choose, each spending `budget` on the Diamond Map."""
    model, batch = cast.map, task.populations
    walkers, guided = budget // WALK_COST, budget // GUIDE_COST
    yield (
        "best-of-N",
        lambda reward, generator: align.best_of_n(model, reward, budget, batch=batch, generator=generator),
    )
    yield (
        "search",
        lambda reward, generator: align.search(
            model, reward, walkers // BRANCH, BRANCH, times=WALK_TIMES, mc=WALK_MC, batch=batch, generator=generator
        ),
    )
    yield (
        "SMC",
        lambda reward, generator: align.smc(
            model, reward, walkers, times=WALK_TIMES, mc=WALK_MC, batch=batch, generator=generator
        ),
    )
    yield (
        "guidance",
        lambda reward, generator: align.guide(model, reward, guided, batch=batch, generator=generator, **task.guidance),
    )


def _rivals(cast: Cast, task: Task, budget: int) -> Iterator[tuple[str, Run]]:
    """The same budget without a Diamond Map: on the teacher's GLASS flow, and on plug-in gradients."""
    glass, batch = GlassFlow(cast.teacher, GLASS_STEPS), task.populations
    walkers = max(1, budget // (WALK_COST * GLASS_STEPS))
    yield (
        RIVALS[0],
        lambda reward, generator: align.best_of_n(
            glass, reward, budget // GLASS_STEPS, batch=batch, generator=generator
        ),
    )
    yield (
        RIVALS[1],
        lambda reward, generator: align.smc(
            glass, reward, walkers, times=WALK_TIMES, mc=WALK_MC, batch=batch, generator=generator
        ),
    )
    if task.plugin is not None:
        particles = budget // (2 * task.plugin["steps"])
        yield (
            RIVALS[2],
            lambda reward, generator: align.guide(
                GlassFlow(cast.teacher, 1),
                reward,
                particles,
                batch=batch,
                generator=generator,
                **task.plugin,  # type: ignore[arg-type]
            ),
        )


def _summary(cast: Cast, task: Task, results: list[Alignment], chooses: bool) -> dict[str, Any]:
    """Means and standard errors over the populations of all targets, and the cost of one population."""
    rewards, held, picks = [], [], []
    measures: dict[str, list[Tensor]] = {name: [] for name in task.measures}
    for target, result in enumerate(results):
        weights = (result.log_weights if chooses else torch.zeros_like(result.rewards)).softmax(-1)
        drawn = result.resample(DRAWN, generator=cast.generator("drawn")) if chooses else result.samples[:, :DRAWN]
        answers = Answers(result.best() if chooses else result.samples[:, 0], result.samples, weights, drawn)
        picks.append(answers.picks)
        rewards.append(result.rewards.amax(1) if chooses else result.rewards[:, 0])
        held.append(1 / weights.square().sum(1))
        for name, measure in task.measures.items():
            measures[name].append(measure(answers, target))
    first = results[0]
    cost = {"nfe": first.nfe, "nfe backward": first.nfe_backward, "reward calls": first.reward_calls}
    seconds = sum(result.seconds for result in results) / (len(results) * task.populations)
    settings = {key: value for key, value in first.settings.items() if value is not None}
    if not chooses:
        cost, seconds, settings = {"nfe": 1, "nfe backward": 0, "reward calls": 0}, seconds / first.rewards.shape[1], {}
    return {
        "reward": _mean(rewards),
        "samples held": _mean(held),
        "digits shown": cast.judge.labels(torch.cat(picks)).bincount(minlength=10).tolist(),
        "measures": {name: _mean(values) for name, values in measures.items()},
        **cost,
        "seconds": seconds,
        "settings": settings,
        "law": first.law if chooses else "p(z)",
    }


def _mean(values: list[Tensor]) -> dict[str, float]:
    every = torch.cat(values).double()
    return {"mean": float(every.mean()), "error": float(every.std() / len(every) ** 0.5) if len(every) > 1 else 0.0}
