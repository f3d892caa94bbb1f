"""RED-EVAL inside Inspect: ``inspect eval redinstruct/red_eval --model ... -T bank=... -T judge=...``.

Inspect asks and keeps the log; questions, prompts, what of an answer is judged, and the judges are those of ``eval``,
so that both count the same verdicts. Nothing here is imported but by Inspect (:mod:`._registry`, its entry point).
"""
