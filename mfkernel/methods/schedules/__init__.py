"""The order in which stochastic gradient descent visits the ratings."""
