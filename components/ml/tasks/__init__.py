"""What a model can be made for: one file for each kind of task, one table that names them."""
