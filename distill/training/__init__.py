"""The training loop and what belongs to it: batches in order, averages, states on disk, reports, processes, precision.

It knows nothing of maps: what is minimised is an :class:`distill.objectives.Objective`.
"""
