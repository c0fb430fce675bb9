"""The gate compares time, memory and error of this working tree with those of a commit."""
