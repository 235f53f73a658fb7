"""The fleet: who has which vehicle, what each owes, what it reported, and when the next wave may open.

Pure decisions (``waves``, ``gates``, the table in ``reports``) stand apart from effects. Every effect is one
transaction that writes state, counters and audited event together. Knows no HTTP and no file format.
"""
