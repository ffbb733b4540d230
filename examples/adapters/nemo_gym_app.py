"""The app.py of a resources server for NeMo Gym; `--check` only says its class."""

import sys

from himac_envs.adapters.nemo_gym import HiMACResourcesServer

if __name__ == "__main__" and "--check" in sys.argv:
    print(HiMACResourcesServer.__name__)
elif __name__ == "__main__":
    HiMACResourcesServer.run_webserver()
