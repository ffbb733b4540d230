"""ALFWorld's text games: the original's strings and rules, played by plain Python.

From the file to the agent: ``archive`` and ``games`` find and load games, ``rules`` and ``problem``
read them, ``game`` and ``goals`` turn them into tables, ``engine`` plays them, ``env`` and
``vector`` are the environments. ``subgoals`` and ``aims`` are the language of blueprints,
``planner``, ``expert`` and ``explorer`` the experts. ``generate`` makes new games, ``reference``
plays with the original package, ``bench`` compares the speed.
"""
