"""Pruning: units of the axis classes leave every tensor that holds them.

structured.py is the pass. By a ratio: groups.py finds what may lose units, scoring.py and criteria.py say what each is
worth, allocate.py (with overrides.py, work.py) how many go, by_ratio.py makes the plan, surgery.py (with counts.py)
carries it out. Folders: exact/ without a ratio, units that can go without a trace; fit/ with data, criteria and least
squares; sparse/ zeros in weights that keep their shape.
"""
