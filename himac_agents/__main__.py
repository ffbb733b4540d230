"""``python -m himac_agents`` is ``himac``."""

from himac_agents.cli import main

raise SystemExit(main())
