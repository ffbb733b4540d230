"""The list of admissible commands of a state."""

from __future__ import annotations

from himac_envs.alfworld.names import bits
from himac_envs.alfworld.records import FRIDGE, NO_TOOL, SINK, StateRecord


def list_commands(state: StateRecord) -> list[str]:
    """The commands that the original would admit, in its order: plain string sort."""
    # Verbs in alphabetical order; only within a verb is there anything to sort.
    game = state.game
    here = game.at[state.location]
    held = state.held
    middle = ["help", "inventory", "look"] if game.dialect.has_help else ["inventory", "look"]
    opens: list[str] = []
    closes: list[str] = []
    puts: list[str] = []
    takes: list[str] = []
    examines: list[str] = []
    cleans: list[str] = []
    cools: list[str] = []
    heats: list[str] = []
    lamps = 0
    name = "" if held < 0 else game.object_names[held]
    if held >= 0:
        examines.append(f"examine {name}")
    for r in here:
        receptacle = game.receptacle_names[r]
        examines.append(f"examine {receptacle}")
        contents = state.contents[r]
        lamps |= contents
        if game.openable >> r & 1:
            if not state.opened >> r & 1:
                opens.append(f"open {receptacle}")
                reachable = False
            else:
                closes.append(f"close {receptacle}")
                reachable = True
        else:
            reachable = True
        if held < 0:
            if reachable and contents:
                takes += game.takes(r, contents)
            continue
        if reachable and game.accepts[r] >> held & 1:
            puts.append(
                f"put {name} in/on {receptacle}"
                if game.dialect.put_command
                else f"move {name} to {receptacle}"
            )
        # The door's state does not matter for these: a closed fridge cools.
        tool = game.tools[r]
        if tool != NO_TOOL:
            if tool == SINK:
                if game.cleanable >> held & 1:
                    cleans.append(f"clean {name} with {receptacle}")
            elif tool == FRIDGE:
                if game.coolable >> held & 1:
                    cools.append(f"cool {name} with {receptacle}")
            elif game.heatable >> held & 1:
                heats.append(f"heat {name} with {receptacle}")
    slices: list[str] = []
    if held >= 0 and game.knives >> held & 1:
        slices = [
            f"slice {game.object_names[o]} with {name}"
            for o in bits(state.lying[state.location] & game.sliceable)
        ]
        slices.sort()
    lamps &= game.toggleable
    uses = [f"use {game.object_names[o]}" for o in bits(lamps)] if lamps else []
    if len(here) > 1:
        for group in (opens, closes, puts, takes, cleans, cools, heats):
            if len(group) > 1:
                group.sort()
    if len(examines) > 1:
        examines.sort()
    if len(uses) > 1:
        uses.sort()
    commands = cleans
    commands += closes
    commands += cools
    commands += examines
    commands += game.goto[state.location]
    commands += heats
    commands += middle
    if game.dialect.put_command:
        commands += opens
        commands += puts
    else:
        commands += puts
        commands += opens
    commands += slices
    commands += takes
    commands += uses
    return commands
