"""Prints what accessible programs show, as a screen reader is told it: a list of nodes, in JSON."""

import json

import pyatspi


def text_of(node):
    try:
        text = node.queryText()
        return text.getText(0, text.characterCount)
    except NotImplementedError:
        return None


def walk(node, found):
    states = [pyatspi.stateToString(state) for state in node.getState().getStates()]
    found.append(
        {"role": node.getRoleName(), "name": node.name, "text": text_of(node), "states": states}
    )
    for child in node:
        if child is not None:
            walk(child, found)


nodes = []
for program in pyatspi.Registry.getDesktop(0):
    try:
        walk(program, nodes)
    except Exception as error:  # It may have closed meanwhile.
        nodes.append({"role": "error", "name": str(error), "text": None, "states": []})
# Where lines break is another matter.
print(json.dumps(nodes).replace("\\u00a0", " "))
