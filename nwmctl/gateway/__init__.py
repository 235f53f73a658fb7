"""The HTTP edge: vehicles speak hawkBit DDI here, people ask for the status, files come from the mirror's folder.

Asynchronous at the edge only: reads are short look-ups, writes go through one group-commit writer and are answered
after the commit. Decides nothing about campaigns; imports neither the agent nor the steps.
"""
