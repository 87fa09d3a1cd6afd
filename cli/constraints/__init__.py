"""What holds the sampling of a turn: constraints over token ids, put together in `turn.hold_turn` and nowhere else.

    headers.py    a header can only be a legal one; a message ends as its kind does
    contents.py   the content of a message follows a grammar that its header has chosen
    grammars.py   schemas, regular expressions and choices as grammars of the engine (llguidance)
    json_keys.py  names in objects are spelled in one way
    budget.py     reasoning ends after so many tokens, or when the person says so
    turn.py       all of them for one turn

Nothing here imports torch or llguidance before it is needed.
"""
