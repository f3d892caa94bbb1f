"""Rates and intervals: pure functions of counts, with their sources::

    one rate                                wilson, jeffreys; wilson_by_question where questions were asked several
                                            times, clustered where they come in topics; mean_of_rates of several
    the six labels of a measure             rates, rates_by_question, bounds
    a judge's errors corrected              corrected, corrected_by (labels from this run; of its model);
                                            run_rate, run_difference (of these very answers; strata makes the parts);
                                            rogan_gladen (an outside calibration)
    a cheap judge and a strong one          two_judges
    which attempts to label                 draw_part
    two runs over the same questions        paired, mcnemar_midp; paired_by_question (several samples of each, a
                                            margin), paired_by_cluster (topics in general), paired_means (scores);
                                            detectable, detectable_mean (the smallest change that so many pairs show)
    several tests, several tries            holm, holm_levels, smallest_level; hit_at_k (one question), at_k (all)
    where outcomes vary                     variance_shares (questions, prompts, samples, readings), shrunken (topics)
    agreement of raters                     cohen_kappa, gwet_ac1, krippendorff_alpha
    how many questions a gate needs         questions_needed, gate_power
    stopping a run as soon as it is decided decide; Watch (question by question)

Importing this package loads neither numpy nor scipy; a function that needs them imports them when called. What the
intervals cover, measured: docs/experiments/coverage.md.
"""

from redinstruct.stats.agreement import cohen_kappa, gwet_ac1, krippendorff_alpha
from redinstruct.stats.by_question import at_k, question_effect, wilson_by_question
from redinstruct.stats.calibration import rogan_gladen
from redinstruct.stats.clusters import clustered, design_effect, unlike_from
from redinstruct.stats.correction import corrected, corrected_by, corrected_of, draw_part, part_sizes, two_judges
from redinstruct.stats.finite import run_difference, run_rate
from redinstruct.stats.intervals import jeffreys, mean_of_rates, wilson
from redinstruct.stats.means import ROUNDING, detectable, detectable_mean, paired_means
from redinstruct.stats.multiplicity import hit_at_k, holm, holm_levels, smallest_level
from redinstruct.stats.pairs import mcnemar_midp, paired, paired_by_cluster, paired_by_question
from redinstruct.stats.parts import Part, sides, strata, tallied
from redinstruct.stats.power import Need, gate_power, questions_needed
from redinstruct.stats.rates import PROVISIONAL_BELOW, Rates, bounds, rates, rates_by_question, rates_of
from redinstruct.stats.sequential import Watch, decide
from redinstruct.stats.values import Calibration, Change, Decision, Interval, Paired, WeakJudge, grouped
from redinstruct.stats.variation import RepeatedVerdict, Shares, shrunken, variance_shares

__all__ = [
    "PROVISIONAL_BELOW", "ROUNDING", "Calibration", "Change", "Decision", "Interval", "Need", "Paired", "Part", "Rates",
    "RepeatedVerdict", "Shares", "Watch", "WeakJudge", "at_k", "bounds", "clustered", "cohen_kappa", "corrected",
    "corrected_by", "corrected_of", "decide", "design_effect", "detectable", "detectable_mean", "draw_part",
    "gate_power", "grouped", "gwet_ac1", "hit_at_k", "holm", "holm_levels", "jeffreys", "krippendorff_alpha",
    "mcnemar_midp", "mean_of_rates", "paired", "paired_by_cluster", "paired_by_question", "paired_means", "part_sizes",
    "question_effect", "questions_needed", "rates", "rates_by_question", "rates_of", "rogan_gladen", "run_difference",
    "run_rate", "shrunken", "sides", "smallest_level", "strata", "tallied", "two_judges", "unlike_from",
    "variance_shares", "wilson", "wilson_by_question",
]  # fmt: skip
