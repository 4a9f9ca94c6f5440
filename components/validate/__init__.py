"""The validate stage: data files in, a data gate, canonical splits out."""
