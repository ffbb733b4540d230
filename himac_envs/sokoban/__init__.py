"""Sokoban: gym-sokoban's rules to the letter, with levels, pictures, text, a solver and a batch.

=================================  ===============================================================
``rules``                          cells, levels, one board in plain Python
``generate``, ``levels``           room generators; level files read and written
``source``                         task ids and splits
``solver``, ``subgoals``           optimal search; sub-goals in words and how to reach them
``text``, ``tiles``, ``render``    what an agent reads and sees
``env``                            text actions: the flat and hierarchical ids
``pixels``, ``batch``, ``vector``  gym-sokoban's interface, alone and in batches
``sb3``, ``record``, ``bench``     Stable-Baselines3 adapter, GIF/MP4, speed
=================================  ===============================================================

Importing this package loads nothing but itself; numba is loaded when a kernel is first needed.
"""
