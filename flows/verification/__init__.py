"""`stillhouse verify`: the stages run again from a clean clone, and their outputs compared with the recorded ones."""
