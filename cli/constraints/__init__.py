"""Constraints on the sampling of a turn, over token ids. `turn.ConstraintFactory` joins them.

    headers.py         only legal headers; a message ends with the token of its kind
    content.py         which content follows which grammar: the answer, and the arguments of functions
    grammars.py        grammars and matchers of llguidance
    schemas.py         JSON schemas as grammars, and where in a schema something is unsupported
    property_names.py  one spelling for each property name in JSON
    answer_format.py   the grammar of the answers, and its description for the model
    budget.py          the reasoning ends after so many tokens, or when the user asks for the answer
    masks.py           logit masks of the header grammar
    description.py     a whole turn for an engine that cannot be asked token by token
    turn.py            all of them for one turn

Importing them imports neither torch nor llguidance.
"""
