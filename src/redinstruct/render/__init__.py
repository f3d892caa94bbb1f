"""Figures as people read them: words, tables, one HTML page, Markdown, JUnit XML, CSV, a notebook's view.

A pure projection of the store. Nothing here can call a model, so a report spends nothing.
"""
