"""The training of one phase after another: what is learnt, from which rows, what moves, and how."""
