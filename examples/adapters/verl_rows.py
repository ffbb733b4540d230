"""A data set for verl's agent loop: `python verl_rows.py train.parquet`."""

import sys

import pandas

from himac_envs.adapters.verl import rows

table = pandas.DataFrame(rows("HiMAC-ALFWorld-v0", count=100, data="generated", reward="sparse"))
table.to_parquet(sys.argv[1])
print(len(table), "tasks for the agent loop", table["agent_name"][0])
