"""All runs of a folder in a browser: list, filter, compare two, open any report. Reads, and writes nothing."""
