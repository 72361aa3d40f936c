"""One file a data set: what it is, and how its songs come out of what is downloaded."""
