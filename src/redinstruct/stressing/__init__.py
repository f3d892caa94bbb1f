"""How long a repair lasts: attacks on a checkpoint that its owner could meet, each beside the undisturbed model.

:mod:`options` is what can be asked for, without torch; :mod:`carrying` carries it out.
"""
