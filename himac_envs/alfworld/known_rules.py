"""Digests of the rules that the engine plays, with what each form means.

A digest (see :func:`himac_envs.alfworld.rules.digest`) covers one parsed rule; the text beside it
names the switch that the form sets, and is empty for what all releases share. Sources: the game
files of data release 2.1.2; alfworld 0.4.2's own alfred.pddl and alfred.twl2; and data release
2.1.1, whose files are those of 2.1.2 before the upgrade that alfworld's authors published (three
strings changed and ``help`` added).
"""

from __future__ import annotations

from typing import Final

KNOWN_RULES: Final[dict[str, dict[str, str]]] = {
    "domain action cleanobject": {"accd469e31a0135d": "sink type", "98ad9d3e539e1336": ""},
    "domain action closeobject": {"d471e177147bfe6c": ""},
    "domain action coolobject": {"5da40db8cbca70fe": ""},
    "domain action examineobject": {"3b5e89e65a47a354": ""},
    "domain action examinereceptacle": {"49bf01d912367aa7": ""},
    "domain action gotolocation": {"bde1e3750278a193": ""},
    "domain action heatobject": {"c6b0eb0e4c7d2a44": ""},
    "domain action help": {"c654bc0a7d3fc6a3": ""},
    "domain action inventory": {"f87985d9898170d5": ""},
    "domain action look": {"3736ed9ee2bf0f5b": ""},
    "domain action openobject": {"786ef32fd2ddad21": ""},
    "domain action pickupobject": {"6d99995289f329dc": ""},
    "domain action putobject": {"809a431c1b777557": ""},
    "domain action sliceobject": {"ff761e44ad41b11c": ""},
    "domain action toggleobject": {"945585a422598d53": ""},
    "grammar action cleanobject": {"1de7969616a4b0f0": ""},
    "grammar action closeobject": {"6d4fd99a9785fde2": ""},
    "grammar action coolobject": {"7be166306a08349a": ""},
    "grammar action examineobject": {"0645c251c2d16f4e": ""},
    "grammar action examinereceptacle": {"edc8b88f0875b294": ""},
    "grammar action gotolocation": {"1395ceabde7fffba": ""},
    "grammar action heatobject": {"c1702dec54f960b1": ""},
    "grammar action help": {"927d06ba8c6b41cc": "", "580c8ed809b3fb46": ""},
    "grammar action inventory": {"121b09bc45b7731d": ""},
    "grammar action look": {"9c288a15d1e4106d": ""},
    "grammar action openobject": {"37d81abc4510d1a2": ""},
    "grammar action pickupobject": {"cfa97ba5f30a27c0": ""},
    "grammar action putobject": {"66eb83693a077bba": "", "1d9b3c2ad81d5632": "put command"},
    "grammar action sliceobject": {"cd42a50747c6b7af": ""},
    "grammar action toggleobject": {"4bc4f87df3dbcd01": ""},
    "grammar rule CloseObject.feedback": {"92925f89d24378a8": ""},
    "grammar rule GotoLocation.feedback": {
        "d93bbd4cba623f90": "",
        "0b04303364b2693e": "names location",
    },
    "grammar rule OpenObject.feedback": {"2ab4357a2fcb4930": ""},
    "grammar rule PickupObject.feedback": {"11d35339a96653cf": ""},
    "grammar rule PutObject.feedback": {"68603880180095bf": "", "96e29e1b96c863ac": "put feedback"},
    "grammar rule cleanObject.feedback": {"c97d964d43f20498": ""},
    "grammar rule coolObject.feedback": {"d877def739c651fa": ""},
    "grammar rule examineObject.feedback": {"a79ddb774b306a30": ""},
    "grammar rule examineReceptacle.feedback": {"4f08e36d7e23fb5e": ""},
    "grammar rule heatObject.feedback": {"a170f0d77344e91b": ""},
    "grammar rule help.feedback": {"1bd5400d5c1a7e82": ""},
    "grammar rule intro": {"846e20b7689afa4e": ""},
    "grammar rule inventory.feedback": {"4f22c214849f2b12": ""},
    "grammar rule list_appliances": {"eb3f46679c5b5134": ""},
    "grammar rule list_empty": {"58ba4b12a1d383a4": ""},
    "grammar rule list_last_separator": {"505a6f01dbc3f1cc": ""},
    "grammar rule list_objects_on_the_floor": {"1d0c6890a19407b3": ""},
    "grammar rule list_separator": {"b46645770e59641d": ""},
    "grammar rule look-variations": {"ead786f5075fcd28": ""},
    "grammar rule look.feedback": {"634adff0bdfe3644": ""},
    "grammar rule overview(o)": {"7d7dbef493a837fd": ""},
    "grammar rule overview(r)": {"fd3274bbd4ba090a": ""},
    "grammar rule sliceObject.feedback": {"6a905a7c17cba16e": ""},
    "grammar rule toggleObject.feedback": {"ac420dd452ad544f": ""},
    "types types": {"85b87c2477d4cc5b": ""},
}
