"""Stage 4: is the model still useful? TruthfulQA, MMLU, BBH, HHH and bias, before and after.

:mod:`runs` carries a check out; :mod:`redinstruct.figures.scores` reads what it found, and loads nothing heavy.
"""
