"""The commands of `stillhouse`, one file for each group of them; heavy libraries are imported where they are used."""
